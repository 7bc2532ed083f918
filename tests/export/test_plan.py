"""What of a model is exported, and which models have no export."""

import pytest
import tiny
import tiny_images
import tiny_language
import tiny_speech
import tiny_tasks
import torch
from transformers import RobertaConfig, RobertaForSequenceClassification

from hf_distill.export import Plan
from hf_distill.tasks import Task


def plan(model, batch=None):
    return Plan.of(model, Task.of(model), batch)


def test_a_text_is_read_by_the_columns_that_its_model_knows():
    assert list(plan(tiny.bert()).example) == ["input_ids", "attention_mask", "token_type_ids"]
    assert list(plan(tiny_language.llama()).example) == ["input_ids", "attention_mask"]
    sizes = dict(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    roberta = RobertaForSequenceClassification(RobertaConfig(type_vocab_size=1, **sizes))
    assert list(plan(roberta).example) == ["input_ids", "attention_mask"]  # its tokenizer makes no types
    assert plan(tiny_tasks.CASES["spans"].model()).outputs == ("start_logits", "end_logits")


def test_sizes_of_recordings_are_free_where_they_have_lengths_of_their_own():
    waves = {"input_values": torch.randn(1, 900), "attention_mask": torch.ones(1, 900), "labels": torch.ones(1, 2)}
    made = plan(tiny_speech.wav2vec2(), waves)
    assert made.free == {name: {0: "rows", 1: "samples"} for name in ("input_values", "attention_mask")}
    assert made.example["input_values"].shape == (2, 900)  # a size of one in an example would be one for ever
    spectra = {"input_values": torch.randn(3, 24, 16)}
    assert plan(tiny_speech.ast(), spectra).free == {"input_values": {0: "rows"}}
    assert plan(tiny_images.vit()).free == {"pixel_values": {0: "rows"}}


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (tiny_language.t5, "of T5ForConditionalGeneration was asked for, which writes with a cache between its steps"),
        (tiny_speech.whisper, "export it with optimum-cli"),
        (tiny_tasks.CASES["choice"].model, "a third size, the choices: train it as a sequence classifier of pairs"),
    ],
)
def test_a_task_without_an_export_is_refused_in_a_sentence(make, said):
    with pytest.raises(ValueError, match=said) as caught:
        plan(make())
    assert str(caught.value).endswith(".")


def test_columns_of_another_model_are_refused():
    with pytest.raises(ValueError, match="the columns \\['waves'\\] are none of those that it reads"):
        plan(tiny_images.vit(), {"waves": torch.ones(2, 3)})
