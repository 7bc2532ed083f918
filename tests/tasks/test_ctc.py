"""Letters and a blank for each frame: transcripts that fit, frames of other rates, frames that say something."""

import logging

import pytest
import tiny
import tiny_speech
import torch
from default_run import slow_but
from torch.nn import functional as F

from hf_distill import CTC, Task


def trainer(folder, student=None, data=None, teacher=None, **parts):
    return tiny.trainer(
        folder, student or tiny_speech.wav2vec2(), data or tiny_speech.recordings(),
        teacher_model=teacher or tiny_speech.wav2vec2(seed=7, width=24, layers=3),
        data_collator=tiny_speech.collate, **parts,
    )  # fmt: skip


def step(folder, batch, accumulation, data=None, student=None, teacher=None, **args):
    seen = tiny.Gradients()
    cut = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation, "max_steps": 1}
    cut |= {"train_sampling_strategy": "sequential", "remove_unused_columns": False, **args}
    run = trainer(folder, student, data, teacher, callbacks=[seen], args=cut)
    run.train()
    return {k: v for k, v in run.state.log_history[0].items() if k.startswith("loss")}, seen.first


@pytest.mark.parametrize("kind", tiny_speech.CTCS)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_sum_divided_is_the_models_own_loss(kind, reduction):
    model = tiny_speech.CTCS[kind](ctc_loss_reduction=reduction).eval() if kind != "features" else None
    model = model or tiny_speech.features().eval()
    model.config.ctc_loss_reduction = reduction
    task, batch = Task.of(model), tiny_speech.collate(tiny_speech.recordings(4, kind=kind))
    assert type(task) is CTC
    found, outputs = task.hard(model(**batch), batch), model(**batch)
    ours = found.mean() if reduction == "mean" else found.total
    assert ours.item() == pytest.approx(outputs.loss.item(), rel=1e-6)
    assert found.count == 4


@pytest.mark.parametrize("kind", slow_but(["wav2vec2", "features"], tiny_speech.CTCS))
@pytest.mark.parametrize("objective", ["forward_kl", "auto"])
def test_8_x_1_equals_2_x_4(tmp_path, kind, objective):
    """One micro-batch has a transcript that does not fit, and one that is empty."""
    rows = tiny_speech.recordings(kind=kind)
    rows[2]["labels"], rows[3]["labels"] = torch.tensor([3] * 40), torch.tensor([], dtype=torch.long)
    teacher = {} if kind == "features" else {"width": 24, "layers": 3}
    found = [
        step(
            tmp_path, *cut, rows, tiny_speech.CTCS[kind](), tiny_speech.CTCS[kind](seed=7, **teacher),
            objective=objective, alpha=0.5,
        )
        for cut in ((8, 1), (2, 4))
    ]  # fmt: skip
    for name, value in found[0][0].items():
        assert found[1][0][name] == pytest.approx(value, rel=1e-5), name
    assert tiny.relative(found[1][1], found[0][1]) < 1e-5


def test_alone_it_is_trainers_own_gradient(tmp_path):
    model, rows = tiny_speech.wav2vec2(), tiny_speech.recordings()
    model.train()
    batch = tiny_speech.collate(rows)
    model(**batch).loss.backward()
    wanted = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    _, found = step(tmp_path, 8, 1, rows, tiny_speech.wav2vec2(), alpha=0.0, max_grad_norm=0.0)
    assert tiny.relative(found, wanted) < 1e-6


def test_a_transcript_that_does_not_fit_is_taught_and_told_once(tmp_path, caplog):
    rows = tiny_speech.recordings(4)
    rows[1]["labels"] = torch.tensor([3] * 40)
    with caplog.at_level(logging.WARNING):
        run = trainer(tmp_path, data=rows, args={"max_steps": 3, "per_device_train_batch_size": 4})
        run.train()
    assert caplog.text.count("1 of 4 recordings of a batch have no transcript, or one that does not fit") == 1
    assert all(loss > 0 for loss in tiny.losses(run, "loss/hard"))


def test_labels_that_are_the_blank_are_padding():
    model = tiny_speech.wav2vec2().eval()
    task, batch = Task.of(model), tiny_speech.collate(tiny_speech.recordings(4))
    padded = {**batch, "labels": batch["labels"].masked_fill(batch["labels"] == -100, 0)}
    assert task.hard(model(**batch), batch).total == task.hard(model(**padded), padded).total
    assert model(**padded).loss.item() == pytest.approx(task.hard(model(**padded), padded).mean().item(), rel=1e-6)


@pytest.mark.parametrize("strides", [(4, 4), (4, 2), (4, 8)], ids=["same", "finer", "coarser"])
def test_a_kept_teacher_of_any_rate_teaches_what_a_live_one_does(tmp_path, strides):
    settings = {"max_steps": -1, "num_train_epochs": 3, "per_device_train_batch_size": 4, "alpha": 0.7}
    runs = [
        trainer(
            tmp_path / name, tiny_speech.wav2vec2(), eval_dataset=tiny_speech.recordings(4, seed=3),
            teacher=tiny_speech.wav2vec2(seed=7, width=24, strides=strides), args={**settings, "teacher_cache": name},
        )
        for name in ("off", "auto")
    ]  # fmt: skip
    for run in runs:
        run.train()
    live, kept = runs
    assert tiny.losses(kept) == pytest.approx(tiny.losses(live), rel=1e-5)
    assert kept.evaluate()["eval_kl"] == pytest.approx(live.evaluate()["eval_kl"], rel=1e-5)
    assert tiny.losses(kept, "teacher_cache_hits")[-1] == 1.0


@pytest.mark.parametrize("select", ["all", "spoken", "symmetric"])
def test_only_chosen_frames_are_learned_from(select):
    model, teacher = tiny_speech.wav2vec2(), tiny_speech.wav2vec2(seed=7, silent=1.0)
    task, batch = CTC.from_model(model, select=select), tiny_speech.collate(tiny_speech.recordings(4))
    fed = {name: batch[name] for name in ("input_values", "attention_mask")}
    with torch.no_grad():
        ours, theirs = (task.read(one, batch, one.eval()(**fed)) for one in (model, teacher))
    weights = task.match(ours, theirs, batch)[1].heads["logits"].weights
    if select == "all":
        assert weights is None
        return
    spoken = (theirs.heads["logits"].logits.tensor.argmax(-1) != 0) & theirs.mask
    assert 0 < spoken.sum() < theirs.mask.sum()
    wanted = spoken.clone()
    if select == "symmetric":
        wanted[:, 1:] |= spoken[:, :-1]
        wanted[:, :-1] |= spoken[:, 1:]
    assert torch.equal(weights.bool() & theirs.mask, wanted & theirs.mask)


def test_agreement_is_told_over_spoken_frames(tmp_path):
    model, teacher = tiny_speech.wav2vec2(), tiny_speech.wav2vec2(seed=7, silent=1.0)
    rows = tiny_speech.recordings(3)
    run = trainer(tmp_path, model, teacher=teacher, eval_dataset=rows[:1])
    told = run.evaluate()
    fed = tiny_speech.collate(rows[:1])
    del fed["labels"]
    with torch.no_grad():
        ours, theirs = model.eval()(**fed).logits[0], teacher.eval()(**fed).logits[0]
    spoken = theirs.argmax(-1) != 0
    assert 0 < spoken.sum() < len(spoken)
    same = (ours.argmax(-1) == theirs.argmax(-1))[spoken].float().mean()
    kl = F.kl_div(ours.log_softmax(-1), theirs.log_softmax(-1), log_target=True, reduction="none").sum(-1)[spoken]
    assert told["eval_agreement"] == pytest.approx(same.item())
    assert told["eval_kl"] == pytest.approx(kl.mean().item(), rel=1e-4)


def test_a_task_that_a_user_made_learns_the_frames_from_the_student(tmp_path):
    run = trainer(tmp_path, task=CTC(num_labels=tiny_speech.LETTERS), args={"max_steps": 2})
    run.train()
    assert len(tiny.losses(run, "loss/hard")) == 2


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (torch.tensor([9]), "row 0 of the batch has the letter 9, the student has the letters 0 to 7"),
        (torch.tensor([0.5]), "labels are .* CTC takes whole numbers"),
    ],
)
def test_labels_that_are_no_letters_are_named(tmp_path, labels, told):
    rows = [{**row, "labels": labels} for row in tiny_speech.recordings(4)]
    with pytest.raises(ValueError, match=told):
        trainer(tmp_path, data=rows, args={"max_steps": 1}).train()


def test_another_vocabulary_is_refused(tmp_path):
    with pytest.raises(ValueError, match="has 12 letters, the student 8: CTC compares letter with letter"):
        trainer(tmp_path, teacher=tiny_speech.wav2vec2(vocab_size=12))


@pytest.mark.parametrize("wrong", [{"select": "some"}, {"reduction": "none"}])
def test_unknown_options_are_refused(wrong):
    with pytest.raises(ValueError, match="was given to CTC: use"):
        CTC(**wrong)


def test_labels_are_not_smoothed(tmp_path):
    with pytest.raises(ValueError, match="label_smoothing_factor was given"):
        trainer(tmp_path, args={"label_smoothing_factor": 0.1})


def test_a_model_with_its_layers_in_an_encoder_of_its_own_is_taught(tmp_path):
    """Parakeet: a last class that is the blank, batch norms, hidden states of a quarter or less of the frames."""
    rows = [{**row, "input_features": torch.randn(40 + 8 * i, 8)} for i, row in enumerate(tiny_speech.recordings(4))]
    rows = [{name: row[name] for name in ("input_features", "labels")} for row in rows]
    objective = {"forward_kl": 1.0, "hidden_mse": 1.0, "ctc_hypotheses": 1.0, "guided_ctc": 1.0}
    run = trainer(
        tmp_path, tiny_speech.parakeet(), rows, tiny_speech.parakeet(seed=7, width=24, layers=3),
        args={"objective": objective, "max_steps": 2},
    )  # fmt: skip
    run.train()
    assert run.task.blank == tiny_speech.LETTERS
    assert all(tiny.losses(run, f"loss/{name}")[0] > 0 for name in objective)


@pytest.mark.parametrize("cache", ["off", "auto"])
def test_a_teacher_reads_features_of_its_own(tmp_path, cache):
    """The student reads waves, the teacher features, whose frames are others and whose padding is told."""
    both = list(zip(tiny_speech.recordings(8), tiny_speech.recordings(8, kind="features"), strict=True))
    rows = [{**ours, "teacher_input_features": theirs["input_features"]} for ours, theirs in both]

    def collate(rows):
        own = tiny_speech.collate([{"input_features": row["teacher_input_features"]} for row in rows])
        ours = tiny_speech.collate([{n: row[n] for n in ("input_values", "labels")} for row in rows])
        return {**ours, **{f"teacher_{name}": value for name, value in own.items()}}

    def trained(cache):
        args = {"teacher_cache": cache, "num_train_epochs": 2, "per_device_train_batch_size": 4, "alpha": 1.0}
        run = tiny.trainer(
            tmp_path / cache, tiny_speech.wav2vec2(), rows, teacher_model=tiny_speech.features(7),
            data_collator=collate, args={**args, "max_steps": -1, "remove_unused_columns": False},
        )  # fmt: skip
        shown = run.teacher(collate(rows), frozenset({"heads"})).heads["logits"]
        assert shown.rows.sum(dim=1).tolist() == [len(theirs["input_features"]) for _, theirs in both]
        run.train()
        return run

    assert tiny.losses(trained(cache)) == pytest.approx(tiny.losses(trained("off")), rel=1e-5)
