"""How a live teacher is fed and what it shows."""

import pytest
import tiny
import tiny_language
import tiny_speech
import torch
from torch import nn
from transformers import BartConfig, BartForConditionalGeneration, RobertaConfig, RobertaForSequenceClassification

from hf_distill import (
    AdapterOffTeacher,
    CausalLM,
    FunctionTeacher,
    LiveTeacher,
    Seq2SeqLM,
    SequenceClassification,
    Teacher,
)

TASK = SequenceClassification(num_labels=3)
HEADS = frozenset({"heads"})


def bart(**config):
    return BartForConditionalGeneration(BartConfig(
        vocab_size=32, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, pad_token_id=0,
        decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, bos_token_id=1, eos_token_id=2,
        decoder_start_token_id=2, forced_eos_token_id=None, **config,
    ))  # fmt: skip


def batch():
    return dict(tiny.DataCollatorWithPadding(tiny.tokenizer())(tiny.rows()))


@pytest.mark.parametrize("kind", tiny_speech.CTCS)
def test_recordings_are_heard_in_the_teachers_own_numbers(tmp_path, kind):
    rows = tiny_speech.recordings(4, kind=kind)
    run = tiny.trainer(
        tmp_path, tiny_speech.CTCS[kind](), rows, teacher_model=tiny_speech.CTCS[kind](7),
        data_collator=tiny_speech.collate, args={"teacher_dtype": "bfloat16", "max_steps": 1},
    )  # fmt: skip
    given = tiny_speech.collate(rows)
    shown = run.teacher(given, HEADS).heads["logits"].logits.tensor.float()
    del given["labels"]
    with torch.no_grad():
        wanted = tiny_speech.CTCS[kind](7).eval()(**given).logits
    assert (shown - wanted).norm() < 0.03 * wanted.norm()
    run.train()


def test_every_kind_keeps_the_contract():
    assert isinstance(LiveTeacher(tiny.teacher()), Teacher)
    assert isinstance(FunctionTeacher(lambda batch: None), Teacher)
    assert isinstance(AdapterOffTeacher(), Teacher)
    assert not isinstance(tiny.teacher(), Teacher)


def test_it_is_fed_what_its_forward_takes_and_never_labels():
    fed = LiveTeacher(tiny.teacher(), TASK).inputs({**batch(), "note": torch.ones(8)})
    assert fed.keys() == {"input_ids", "attention_mask"}


def test_a_module_that_takes_anything_is_given_everything_but_labels():
    class Anything(nn.Module):
        def forward(self, **inputs):
            return torch.zeros(len(inputs["input_ids"]), 3)

    teacher = LiveTeacher(Anything(), TASK)
    assert teacher.inputs(batch()).keys() == {"input_ids", "attention_mask"}
    assert teacher(batch(), HEADS).heads["logits"].logits.shape == (8, 3)


def test_a_batch_without_its_columns_is_refused():
    with pytest.raises(ValueError, match=r"takes \[.*'input_ids'.*\], the batch has \['pixels'\]: keep the teacher's"):
        LiveTeacher(tiny.teacher(), TASK)({"pixels": torch.ones(2)}, HEADS)


def test_hidden_states_and_attention_are_made_only_if_they_are_needed():
    teacher = LiveTeacher(tiny.teacher(attn_implementation="eager"), TASK)
    assert teacher(batch(), HEADS).hidden == ()
    assert len(teacher(batch(), HEADS | {"hidden"}).hidden) == 3
    assert len(teacher(batch(), HEADS | {"attention"}).attention) == 2


def test_it_is_in_eval_mode_whenever_it_is_asked():
    model = tiny.teacher(hidden_dropout_prob=0.9)
    teacher = LiveTeacher(model, TASK)
    model.train()  # someone else owns it too
    one, other = (teacher(batch(), HEADS).heads["logits"].logits.tensor for _ in range(2))
    assert torch.equal(one, other)


def test_its_facts_are_its_configurations():
    facts = LiveTeacher(tiny.teacher()).facts
    assert (facts.num_layers, facts.hidden_size, facts.num_heads, facts.vocab_size) == (2, 24, 2, 32)
    assert facts.labels == ("LABEL_0", "LABEL_1", "LABEL_2")
    assert facts.problem_type == tiny.SINGLE


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_it_computes_in_the_precision_that_was_asked_for_whatever_the_run_does(tmp_path, dtype):
    seen = []
    model = tiny.teacher()
    model.bert.encoder.layer[0].register_forward_hook(lambda module, args, outputs: seen.append(args[0].dtype))
    args = {"bf16": True, "teacher_dtype": str(dtype).removeprefix("torch.")}
    run = tiny.trainer(tmp_path, teacher_model=model, args=args)
    run.train()
    assert set(seen) == {dtype}
    assert {p.dtype for p in run.teacher.model.parameters()} == {dtype}
    assert {p.dtype for p in run.model.parameters()} == {torch.float32}


def test_auto_follows_the_run_and_nothing_leaves_the_weights_as_they_are(tmp_path):
    for bf16, asked, dtype in (
        (True, "auto", torch.bfloat16),
        (False, "auto", torch.float32),
        (True, None, torch.float32),
    ):
        run = tiny.trainer(tmp_path, teacher_model=tiny.teacher(), args={"bf16": bf16, "teacher_dtype": asked})
        assert {p.dtype for p in run.teacher.model.parameters()} == {dtype}


def test_a_second_trainer_takes_the_teacher_as_it_is(tmp_path):
    model = tiny.teacher()
    teacher = LiveTeacher(model)
    first, second = (tiny.trainer(tmp_path, teacher_model=teacher) for _ in range(2))
    first.train()
    second.train()
    assert tiny.losses(first) == tiny.losses(second)


def test_answers_from_another_device_come_to_the_batch():
    class Elsewhere(nn.Module):
        def forward(self, input_ids):
            return {"logits": torch.zeros(8, 3, device="cpu")}

    shown = LiveTeacher(Elsewhere(), TASK)({"input_ids": torch.ones(8, 4, device="meta")}, HEADS)
    assert shown.heads["logits"].logits.tensor.device.type == "meta"


def test_a_text_that_is_longer_than_the_teacher_reads(caplog):
    short = LiveTeacher(tiny.teacher(max_position_embeddings=4), TASK)
    with pytest.raises(
        ValueError, match=r"the batch is \d+ tokens long, the teacher .* was made for 4 positions: cut"
    ):
        short(batch(), HEADS)
    config = RobertaConfig(
        vocab_size=9, num_labels=3, max_position_embeddings=6, pad_token_id=1, hidden_size=8, num_hidden_layers=1,
        num_attention_heads=2, intermediate_size=8,
    )  # fmt: skip
    behind_padding = LiveTeacher(RobertaForSequenceClassification(config), TASK)
    behind_padding({"input_ids": torch.full((1, 4), 5)}, HEADS)
    with pytest.raises(ValueError, match=r"the batch is 5 tokens long, the teacher .* was made for 4 positions: cut"):
        behind_padding({"input_ids": torch.full((1, 5), 5)}, HEADS)
    short = LiveTeacher(bart(max_position_embeddings=6), Seq2SeqLM())
    fed = {"input_ids": torch.ones(2, 5, dtype=torch.long), "labels": torch.ones(2, 9, dtype=torch.long)}
    with pytest.raises(ValueError, match=r"the batch is 9 tokens long, the teacher .* was made for 6 positions: cut"):
        short(fed, HEADS)
    turned = LiveTeacher(tiny_language.llama(max_position_embeddings=4), CausalLM())
    for _ in range(2):
        turned({"input_ids": torch.ones(1, 6, dtype=torch.long)}, HEADS)
    assert sum("was made for 4 positions and may know less" in text for text in caplog.messages) == 1


@pytest.mark.slow
@pytest.mark.parametrize("objective", [None, "hidden_mse", "minilm"])
def test_a_compiled_teacher_is_the_same_teacher(tmp_path, objective):
    """Also where hooks must hear it, which compiled code that has run once does not call."""
    spec = objective if objective != "minilm" else {"minilm": {"layers": {"1": 2}}}
    plain = tiny.trainer(tmp_path / "a", teacher_model=tiny.teacher(), objective=spec)
    plain.train()
    teacher = torch.compile(tiny.teacher(), backend="eager")
    teacher(input_ids=torch.ones(1, 3, dtype=torch.long))
    run = tiny.trainer(tmp_path / "b", teacher_model=teacher, objective=spec)
    run.train()
    assert tiny.losses(run) == pytest.approx(tiny.losses(plain), rel=1e-6)
    assert run.teacher.facts == plain.teacher.facts


@pytest.mark.slow
def test_a_compiled_teacher_runs_compiled(tmp_path):
    ran = []

    def backend(graph, inputs):
        return lambda *args: ran.append(len(args)) or graph(*args)

    run = tiny.trainer(tmp_path, teacher_model=torch.compile(tiny.teacher(), backend=backend))
    run.train()
    assert len(ran) >= 3
