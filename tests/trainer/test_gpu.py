"""On a GPU: exact as on a CPU, side by side, in bfloat16, in float8. Skipped where there is none."""

import pytest
import tiny
import tiny_language
import tiny_tasks
import together_ranks
import torch
from datasets import Dataset
from transformers import (
    AutoModelForSequenceClassification,
    DataCollatorForSeq2Seq,
    set_seed,
)
from two_processes import GENERATORS, IMAGES, IMAGES_IN_TEXTS, LATENTS, NOISE, READS, parts_of, settings_of

from hf_distill import train_together

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="wants a GPU")
HIDDEN = {"forward_kl": 1.0, "hidden_mse": {"layers": {0: 0, 1: 2}}}


@pytest.fixture(autouse=True)
def _whole_float32(monkeypatch):
    """Convolutions of a GPU round their numbers to ten bits unless they are told not to."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def trainer(folder, student=None, args=None, **parts):
    args = {"use_cpu": False, "dataloader_pin_memory": True, **(args or {})}
    parts.setdefault("teacher_model", tiny.teacher())
    return tiny.trainer(folder, student, args=args, **parts)


def trained(folder, *given, **parts):
    run = trainer(folder, *given, **parts)
    run.train()
    return run


def weights(run):
    return {name: value.cpu().clone() for name, value in run.model.state_dict().items()}


def assert_equal(one, other):
    assert tiny.losses(one) == tiny.losses(other)
    theirs = weights(other)
    assert all(torch.equal(value, theirs[name]) for name, value in weights(one).items())


def parts(kind):
    """A student, its rows, the other parts of a trainer, and its arguments."""
    if kind == "hidden states":
        return tiny.bert(), tiny.rows(), {"objective": HIDDEN}, {}
    student, data, both = parts_of(kind)
    args = settings_of(kind)
    return student, data, {**both, "objective": args.pop("objective", None)}, args


@pytest.mark.parametrize(
    "kind",
    ["hidden states", *GENERATORS, *tiny_tasks.CASES, *IMAGES, *IMAGES_IN_TEXTS, *LATENTS, *NOISE, *READS],
)
def test_8_x_1_equals_2_x_4(tmp_path, kind):
    found = []
    for batch, pieces in ((8, 1), (2, 4)):
        student, data, both, args = parts(kind)
        seen = tiny.Gradients()
        cut = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": pieces}
        run = trainer(tmp_path, student, {**args, **cut, "max_steps": 1}, data=data, callbacks=[seen], **both)
        run.train()
        assert next(run.model.parameters()).is_cuda
        found.append((seen.first, tiny.losses(run)[0]))
    (whole, loss), (cut, other) = found
    assert other == pytest.approx(loss, rel=1e-5)
    assert tiny.relative(cut, whole) < 1e-5


def test_a_token_without_a_vector_is_a_sentence_and_no_assertion_of_the_device(tmp_path):
    run = trainer(tmp_path, tiny.bert(vocab_size=20))
    with pytest.raises(ValueError, match=r"the student .* for the tokens 0 to 19"):
        run.train()


def test_a_resumed_run_is_bit_equal_with_dropout_and_projections(tmp_path):
    def run(folder):
        args = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "max_grad_norm": 1.0}
        return trainer(folder, tiny.bert(hidden_dropout_prob=0.1), args, data=tiny.rows(32), objective=HIDDEN)

    whole, again = run(tmp_path / "whole"), run(tmp_path / "again")
    whole.train()
    again.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    assert_equal(again, whole)


@pytest.mark.parametrize("bf16", [False, True])
def test_kept_answers_teach_what_live_ones_do(tmp_path, bf16):
    def run(cache):
        args = {"teacher_cache": cache, "max_steps": 6, "bf16": bf16}
        return trained(tmp_path / cache, args=args, objective={"forward_kl": 1.0, "hidden_mse": 1.0})

    live, kept = run("off"), run("auto")
    assert tiny.losses(kept) == pytest.approx(tiny.losses(live), rel=1e-2 if bf16 else 1e-5)


def test_bfloat16_stays_near_float32(tmp_path):
    def run(bf16):
        return trained(tmp_path / str(bf16), args={"bf16": bf16, "learning_rate": 1e-3})

    full, half = run(False), run(True)
    assert tiny.losses(half) == pytest.approx(tiny.losses(full), rel=2e-2)
    assert tiny.losses(half) != tiny.losses(full)
    assert all(value.dtype == torch.float32 for value in half.model.parameters())


def test_students_side_by_side_are_what_they_are_alone(tmp_path):
    teacher, data = tiny.teacher(), Dataset.from_list(tiny.rows(10))

    def made(folder):
        return [
            together_ranks.made(
                tmp_path / folder, name, teacher, data, use_cpu=False, eval_strategy="epoch",
                gradient_accumulation_steps=2,
            )
            for name in together_ranks.KINDS
        ]  # fmt: skip

    alone, together = made("alone"), made("together")
    for one in alone:
        set_seed(one.args.seed)
        one.train()
    state = torch.cuda.get_rng_state()
    train_together(together)
    assert torch.equal(torch.cuda.get_rng_state(), state)
    for one, other in zip(together, alone, strict=True):
        assert_equal(one, other)


@pytest.mark.parametrize("bf16", [False, True])
def test_fused_logits_are_the_whole_ones(tmp_path, bf16):
    def run(fused):
        args = {"fused_logits": fused, "bf16": bf16, "alpha": 0.5}
        return trained(
            tmp_path / fused, tiny_language.llama(), args, data=tiny_language.texts(),
            teacher_model=tiny_language.teacher(), data_collator=DataCollatorForSeq2Seq(tiny_language.tokenizer()),
        )  # fmt: skip

    fused, whole = run("on"), run("off")
    assert tiny.losses(fused) == pytest.approx(tiny.losses(whole), rel=1e-2 if bf16 else 1e-5)


def test_recomputed_activations_are_the_kept_ones(tmp_path):
    def run(asked):
        return trained(tmp_path / str(asked), args={tiny.CHECKPOINTING: asked}, objective=HIDDEN)

    assert tiny.losses(run(True)) == pytest.approx(tiny.losses(run(False)), rel=1e-5)


@pytest.mark.skipif(
    torch.cuda.is_available() and torch.cuda.get_device_capability() < (8, 9), reason="wants a GPU for float8"
)
def test_a_float8_students_folder_has_the_weights_that_it_was_trained_with(tmp_path):
    """Sums of products are shorter there than in training, so logits differ, by less than what rounding changed."""
    pytest.importorskip("torchao")
    args = {"student_quantization": "float8", "alpha": 1.0, "max_steps": 8, "learning_rate": 1e-3}
    run = trainer(tmp_path, tiny.bert(32, layers=2), args, teacher_model=None)  # as it was, it teaches itself
    run.train()
    batch = {"input_ids": torch.arange(5, 29).view(4, 6).cuda()}
    run.model.eval()
    run.save_model()
    kind = AutoModelForSequenceClassification
    plain = kind.from_pretrained(tmp_path, device_map="cuda").eval()
    loaded = kind.from_pretrained(tmp_path, subfolder="quantized", device_map="cuda").eval()
    trained, kept = (one.bert.encoder.layer[0].attention.self.query for one in (run.model, loaded))
    assert torch.equal(kept.weight.dequantize().float(), trained.weight_fake_quantizer(trained.weight).float())
    with torch.no_grad():
        shown, again, whole = (one(**batch).logits for one in (run.model, loaded, plain))
    assert 0 < (again - shown).abs().max() < (whole - shown).abs().max()
