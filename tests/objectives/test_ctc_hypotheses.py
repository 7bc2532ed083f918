"""The teacher's transcripts as labels: against transformers' own loss, across rates and vocabularies, in a run."""

import pytest
import tiny
import tiny_speech
import torch
from torch.nn import functional as F

from hf_distill import CTC, Task
from hf_distill.objectives import build
from hf_distill.objectives.ctc_hypotheses import CTCHypotheses, needed
from hf_distill.objectives.prefix_beam import prefix_beam
from hf_distill.signals import DenseLogits, Head, Signals


def shown(rows, frames, letters=5, seed=0, lengths=None, blank=0):
    generator = torch.Generator().manual_seed(seed)
    logits = (2 * torch.randn(rows, frames, letters, generator=generator)).requires_grad_()
    lengths = torch.full((rows,), frames) if lengths is None else torch.tensor(lengths)
    return Signals({"logits": Head(DenseLogits(logits), torch.arange(frames) < lengths.unsqueeze(1), blank=blank)})


def reference(student, teacher, n, reduction, blank=0):
    """Each recording by itself: transcripts that fit, weighed by their shares, each by torch's own loss."""
    total = 0.0
    for row in range(len(student.rows)):
        ours = student.logits.tensor[row][student.rows[row]].double().log_softmax(-1)
        log_p = teacher.logits.tensor[row][teacher.rows[row]].detach().double().log_softmax(-1)
        fit = [(one, share) for one, share in prefix_beam(log_p, blank, n, 50) if needed(one) <= len(ours)]
        weights = torch.tensor([share for _, share in fit]).softmax(0).tolist()
        for (letters, _), weight in zip(fit, weights, strict=True):
            target = torch.tensor([letters], dtype=torch.long).view(1, -1)
            cost = F.ctc_loss(ours.unsqueeze(1), target, (len(ours),), (len(letters),), blank, "none").squeeze()
            total = total + weight * cost / (max(1, len(letters)) if reduction == "mean" else 1)
    return total


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize(("n", "blank"), [(3, 0), (3, 4), (6, 0)])
def test_values_and_gradients_agree_with_float64(n, blank, reduction):
    student, teacher = shown(4, 7, lengths=[7, 5, 2, 7], blank=blank), shown(4, 9, seed=1, lengths=[9, 6, 9, 4])
    total, count = CTCHypotheses(n=n, beam=50, reduction=reduction)(student, teacher, {})
    wanted = reference(student.heads["logits"], teacher.heads["logits"], n, reduction, blank)
    assert count == 4
    assert total.item() == pytest.approx(wanted.item(), rel=1e-5)
    logits = student.heads["logits"].logits.tensor
    ours, theirs = (torch.autograd.grad(one, logits)[0] for one in (total, wanted))
    assert torch.allclose(ours, theirs.float(), rtol=1e-4, atol=1e-6)
    assert not ours[~student.heads["logits"].rows].any()


def test_one_transcript_is_that_of_the_best_path():
    student, teacher = shown(3, 8), shown(3, 8, seed=1)
    best = teacher.heads["logits"].logits.tensor.argmax(-1)
    heard = [[letter for letter in row.unique_consecutive().tolist() if letter] for row in best]
    log_p = student.heads["logits"].logits.tensor.log_softmax(-1).transpose(0, 1)
    lengths = torch.tensor([len(one) for one in heard])
    flat = torch.tensor([letter for one in heard for letter in one])
    wanted = F.ctc_loss(log_p, flat, torch.tensor([8, 8, 8]), lengths, reduction="none") / lengths
    assert CTCHypotheses()(student, teacher, {}).total.item() == pytest.approx(wanted.sum().item(), rel=1e-6)


def test_a_recording_in_which_nothing_is_heard_or_nothing_fits_is_counted():
    student, teacher = shown(2, 2), shown(2, 6, seed=1)
    logits = teacher.heads["logits"].logits.tensor.data
    logits[:] = 9 * F.one_hot(torch.tensor([[0] * 6, [1, 0, 1, 0, 1, 0]]), 5)
    total, count = CTCHypotheses()(student, teacher, {})
    silence = -student.heads["logits"].logits.tensor[0].log_softmax(-1)[:, 0].sum()
    assert count == 2
    assert total.item() == pytest.approx(silence.item(), rel=1e-6)
    logits[0] = logits[1]
    total, count = CTCHypotheses()(student, teacher, {})
    assert (total.item(), count.item()) == (0.0, 2)
    total.backward()


@pytest.mark.parametrize("wrong", [{"n": 0}, {"n": 9, "beam": 8}, {"reduction": "none"}])
def test_options_that_cannot_be_used_are_refused(wrong):
    with pytest.raises(ValueError, match="ctc_hypotheses"):
        build({"ctc_hypotheses": wrong})


def test_other_tasks_have_no_frames(tmp_path):
    for name in ("ctc_hypotheses", "guided_ctc"):
        told = rf"{name} compares what frames say beside a blank \(CTC\), SequenceClassification has no such frames"
        with pytest.raises(ValueError, match=told):
            tiny.trainer(tmp_path, teacher_model=tiny.teacher(), args={"objective": name})


def run_of(folder, objective, teacher=None, student=None, callbacks=(), data=None, task=None, **args):
    return tiny.trainer(
        folder, student or tiny_speech.wav2vec2(), data or tiny_speech.recordings(), task=task,
        teacher_model=teacher or tiny_speech.wav2vec2(seed=7, width=24, layers=3, silent=1.0),
        data_collator=tiny_speech.collate, callbacks=list(callbacks), objective=objective,
        args={"remove_unused_columns": False, **args},
    )  # fmt: skip


TERMS = {"ctc_hypotheses": {"n": 3}, "guided_ctc": 1.0}


def test_8_x_1_equals_2_x_4(tmp_path):
    found = []
    for batch, accumulation in ((8, 1), (2, 4)):
        seen = tiny.Gradients()
        cut = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation, "max_steps": 1}
        run = run_of(tmp_path, TERMS, callbacks=[seen], **cut)
        run.train()
        found.append(({k: v for k, v in run.state.log_history[0].items() if k.startswith("loss")}, seen.first))
    for name, value in found[0][0].items():
        assert found[1][0][name] == pytest.approx(value, rel=1e-5), name
    assert {"loss/ctc_hypotheses", "loss/guided_ctc"} < found[0][0].keys()
    assert tiny.relative(found[1][1], found[0][1]) < 1e-5


@pytest.mark.parametrize("strides", [(4, 4), (4, 2), (4, 8)], ids=["same", "finer", "coarser"])
def test_a_kept_teacher_of_any_rate_teaches_what_a_live_one_does(tmp_path, strides):
    settings = {"max_steps": -1, "num_train_epochs": 3, "per_device_train_batch_size": 4}
    runs = [
        run_of(
            tmp_path / name, TERMS, tiny_speech.wav2vec2(seed=7, width=24, strides=strides, silent=1.0),
            teacher_cache=name, **settings,
        )
        for name in ("off", "auto")
    ]  # fmt: skip
    for run in runs:
        run.train()
    assert tiny.losses(runs[1]) == pytest.approx(tiny.losses(runs[0]), rel=1e-5)
    assert tiny.losses(runs[1], "teacher_cache_hits")[-1] == 1.0


def test_the_teachers_own_frames_are_read_whatever_the_students_rate(tmp_path):
    student, teacher = tiny_speech.wav2vec2(), tiny_speech.wav2vec2(seed=7, strides=(4, 2), silent=1.0)
    rows = tiny_speech.recordings(1)
    run = run_of(tmp_path, "ctc_hypotheses", teacher, student, alpha=1.0)
    batch = tiny_speech.collate(rows)
    fed = {name: batch[name] for name in ("input_values", "attention_mask")}
    with torch.no_grad():
        ours, theirs = (one.eval()(**fed).logits[0] for one in (student, teacher))
    assert (len(ours), len(theirs)) == (6, 12)
    heard = torch.tensor([one for one in theirs.argmax(-1).unique_consecutive().tolist() if one])
    assert 0 < len(heard) <= 6
    wanted = F.ctc_loss(ours.log_softmax(-1).unsqueeze(1), heard.view(1, -1), (6,), (len(heard),)).item()
    assert run.evaluate(rows)["eval_loss"] == pytest.approx(wanted, rel=1e-5)


def test_without_transcripts_a_student_learns_what_its_teacher_hears(tmp_path):
    bare = [{"input_values": row["input_values"]} for row in tiny_speech.recordings()]
    run = run_of(tmp_path, {"ctc_hypotheses": {"n": 2}}, data=bare, alpha=1.0, max_steps=30)
    run.train()
    assert tiny.losses(run)[-1] < 0.5 * tiny.losses(run)[0]


def test_letters_in_another_order_are_the_same_letters(tmp_path):
    teacher, other = (tiny_speech.wav2vec2(seed=7, silent=1.0) for _ in range(2))
    order = [3, 0, 7, 1, 2, 6, 5, 4]  # where the student's letters are among the other's; 3 is its blank
    places = torch.tensor(order).argsort()
    other.lm_head.weight.data, other.lm_head.bias.data = (one.data[places] for one in teacher.lm_head.parameters())
    other.config.pad_token_id = 3
    found = []
    for one, letters in ((teacher, None), (other, order)):
        student = tiny_speech.wav2vec2()
        task = CTC.from_model(student, teacher_letters=letters)
        run = run_of(tmp_path, {**TERMS, "forward_kl": 1.0}, one, student, task=task)
        run.train()
        found.append(tiny.losses(run))
    assert found[1] == pytest.approx(found[0], rel=1e-5)


def test_a_teacher_without_one_of_the_students_letters_never_says_it():
    student, teacher = tiny_speech.wav2vec2(), tiny_speech.wav2vec2(seed=7, vocab_size=5)
    task = CTC.from_model(student, teacher_letters=[0, 1, 2, 3, 4, -1, -1, -1])
    batch = tiny_speech.collate(tiny_speech.recordings(4))
    fed = {name: batch[name] for name in ("input_values", "attention_mask")}
    with torch.no_grad():
        ours, theirs = (task.read(one, batch, one.eval()(**fed)) for one in (student, teacher))
    assert type(Task.of(teacher)) is CTC
    logits = task.match(ours, theirs, batch)[1].heads["logits"].logits.tensor
    assert logits.shape[-1] == tiny_speech.LETTERS
    assert not logits.softmax(-1)[..., 5:].any()
