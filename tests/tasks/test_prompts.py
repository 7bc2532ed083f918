"""A student with a tuned prompt is compared on its text."""

import pytest
import tiny
import torch
from peft import PrefixTuningConfig, PromptEncoderConfig, PromptTuningConfig, get_peft_model

from hf_distill.signals import Signals, Stream
from hf_distill.tasks import SequenceClassification
from hf_distill.tasks.prompts import virtual_tokens, without_prompt

TUNED = [PromptTuningConfig, PromptEncoderConfig, PrefixTuningConfig]


def student(config, size=4):
    torch.manual_seed(0)
    return get_peft_model(tiny.bert(width=24), config(task_type="SEQ_CLS", num_virtual_tokens=size))


@pytest.mark.parametrize("config", TUNED)
@pytest.mark.parametrize("objective", ["auto", "hidden_mse", "pooled_mse", "minilm", "attention_mse"])
def test_a_tuned_prompt_is_no_part_of_what_is_compared(tmp_path, config, objective):
    run = tiny.trainer(tmp_path, student(config), teacher_model=tiny.teacher(), objective=objective)
    assert virtual_tokens(run.model) == 4
    run.train()
    parts = [
        value for name, value in run.state.log_history[0].items() if name.startswith("loss/") and "hard" not in name
    ]
    assert all(0 < value < 100 for value in parts)


def test_hidden_states_are_those_of_the_text():
    model, batch = student(PromptTuningConfig).eval(), {"input_ids": torch.randint(5, 29, (2, 6))}
    with torch.no_grad():
        outputs = model(**batch, output_hidden_states=True)
    shown = SequenceClassification(num_labels=3, problem_type=tiny.SINGLE).read(model, batch, outputs)
    assert [state.shape for state in shown.hidden] == [(2, 6, 24)] * 2
    for state, whole in zip(shown.hidden, outputs.hidden_states, strict=True):
        assert torch.equal(state, whole[:, 4:])


def test_maps_lose_the_prompt_as_query_and_as_key():
    maps, mask = torch.arange(25.0).view(1, 1, 5, 5), torch.ones(1, 3, dtype=torch.bool)
    (left,) = without_prompt(Signals({}, attention=(maps,), mask=mask), 2).attention
    assert torch.equal(left, maps[..., 2:, 2:])


def test_each_stream_loses_the_prompt_before_its_own_text():
    encoder = Stream((torch.arange(7.0).view(1, 7, 1),), mask=torch.ones(1, 5, dtype=torch.bool))
    decoder = torch.arange(3.0).view(1, 3, 1)
    shown = Signals({}, (decoder,), mask=torch.ones(1, 3, dtype=torch.bool), streams={"encoder": encoder})
    left = without_prompt(shown, 2)
    assert torch.equal(left.hidden[0], decoder)  # which has none before it
    assert left.streams["encoder"].hidden[0].flatten().tolist() == [2, 3, 4, 5, 6]
