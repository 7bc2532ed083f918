"""Whose loss of the labels it is, where it is computed, and what its parts are divided by."""

import pytest
import tiny
import tiny_tasks
import torch
from torch.nn import functional as F

from hf_distill import SequenceClassification, Task
from hf_distill.signals import Signals, Sum


def step(folder, size, accumulation, task=None, data=None, student=None, **args):
    """One optimizer step: its logged parts and its gradients."""
    seen = tiny.Gradients()
    sizes = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulation, "max_steps": 1}
    run = tiny.trainer(
        folder, student, data, callbacks=[seen], task=task, teacher_model=tiny.teacher(), args={**sizes, **args}
    )
    run.train()
    return {k: v for k, v in run.state.log_history[0].items() if k.startswith("loss")}, seen.first


def partly_labelled():
    return [{**row, "labels": -100} if i in (1, 2, 5) else row for i, row in enumerate(tiny.rows(8))]


class TwoParts(SequenceClassification):
    """Cross-entropy by labels, and the size of the logits, that of each sample counted for each of its tokens."""

    def hard(self, outputs, batch, shown):
        logits, tokens = shown.heads["logits"].logits.tensor.float(), shown.mask.sum(1)
        return {
            "labels": super().hard(outputs, batch, shown),
            "tokens": Sum((logits.square().sum(-1) * tokens).sum(), tokens.sum()),
        }


@pytest.mark.parametrize("alpha", [0.0, 0.4])
def test_each_part_of_a_loss_is_divided_by_what_the_step_counts_of_its_unit(tmp_path, alpha):
    data, task = partly_labelled(), TwoParts(3, tiny.SINGLE)
    whole = step(tmp_path, 8, 1, task, data, alpha=alpha)
    for size, accumulation in ((2, 4), (3, 3)):
        cut = step(tmp_path, size, accumulation, task, data, alpha=alpha)
        assert cut[0] == pytest.approx(whole[0], rel=1e-5)
        assert tiny.relative(cut[1], whole[1]) < 1e-5
    student = tiny.bert()
    batch = tiny.trainer(tmp_path, student, data).data_collator([dict(row) for row in data])
    logits = student.train()(batch["input_ids"], batch["attention_mask"]).logits
    tokens, labels = batch["attention_mask"].sum(1), batch["labels"]
    wanted = F.cross_entropy(logits[labels >= 0], labels[labels >= 0])
    wanted = wanted + (logits.square().sum(-1) * tokens).sum() / tokens.sum()
    assert whole[0]["loss/hard"] == pytest.approx(wanted.item(), rel=1e-5)


def test_a_part_in_a_unit_that_nobody_counts_is_refused(tmp_path):
    class Boxes(SequenceClassification):
        def hard(self, outputs, batch, shown):
            return {"boxes": super().hard(outputs, batch)}

    with pytest.raises(ValueError, match=r"Boxes.hard returned a loss of \['boxes'\], the step counts rows, tokens,"):
        step(tmp_path, 8, 1, Boxes(3, tiny.SINGLE))


class Watched(SequenceClassification):
    """Notes where its loss is computed, and of what."""

    def hard(self, outputs, batch, shown):
        self.seen = [*getattr(self, "seen", []), ("forward" in vars(self.student), shown, outputs["logits"])]
        return super().hard(outputs, batch, shown)


@pytest.mark.parametrize(("args", "inside"), [({"alpha": 0.5}, True), ({"alpha": 0.0}, False)])
def test_a_tasks_loss_is_given_the_students_own_signals_inside_of_its_forward(tmp_path, args, inside):
    task = Watched(3, tiny.SINGLE, teacher_labels=[2, 0, 1])
    task.student = tiny.bert(id2label={0: "a", 1: "b", 2: "c"})
    teacher = tiny.teacher(id2label={0: "b", 1: "c", 2: "a"})
    run = tiny.trainer(tmp_path, task.student, task=task, teacher_model=teacher, args={"max_steps": 1, **args})
    run.train()
    run.evaluate(tiny.rows())
    assert len(task.seen) == 2
    for where, shown, logits in task.seen:
        assert where is inside
        assert isinstance(shown, Signals)
        assert shown.heads["logits"].logits.tensor is logits


def test_a_tasks_loss_is_computed_inside_only_where_it_is_the_loss(tmp_path):
    def mine(outputs, labels, num_items_in_batch=None):
        return outputs.logits.square().mean()

    for args, parts in [
        ({"label_smoothing_factor": 0.1}, {}),
        ({}, {"compute_loss_func": mine}),
        ({"alpha": 1.0}, {}),
    ]:
        task = Watched(3, tiny.SINGLE)
        task.student = tiny.bert()
        args = {"max_steps": 1, **args}
        tiny.trainer(tmp_path, task.student, task=task, teacher_model=tiny.teacher(), args=args, **parts).train()
        assert not hasattr(task, "seen")


def behind(task):
    """The same task with a ``hard`` of two arguments, which runs behind the forward, as it did."""
    own = type(task)

    class Old(own):
        def hard(self, outputs, batch):
            assert not torch.is_autocast_enabled("cpu")
            return super().hard(outputs, batch)

    task.__class__ = Old
    return task


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("name", [*tiny.PROBLEMS, *(name for name in tiny_tasks.CASES if name != "embedding")])
def test_where_a_loss_is_computed_changes_no_digit(tmp_path, name, bf16):
    found = []
    for change in (lambda task: task, behind):
        seen = tiny.Gradients()
        parts = {"callbacks": [seen], "args": {"max_steps": 1, "bf16": bf16}}
        if name in tiny.PROBLEMS:
            student, rows = tiny.bert(problem=name), tiny.rows(8, name)
            parts |= {"task": change(Task.of(student)), "teacher_model": tiny.teacher(name)}
            run = tiny.trainer(tmp_path, student, rows, **parts)
        else:
            student = tiny_tasks.CASES[name].model()
            run = tiny_tasks.trainer(tmp_path, name, student=student, task=change(Task.of(student)), **parts)
        run.train()
        found.append((run.state.log_history[0]["loss/hard"], seen.first, run.evaluate(run.train_dataset)["eval_loss"]))
    assert found[0][0] == found[1][0]
    assert found[0][2] == found[1][2]
    assert all(torch.equal(found[0][1][n], found[1][1][n]) for n in found[1][1])


class OwnMean(tiny.BertForSequenceClassification):
    """A loss that its model takes the mean of over labels, not over samples."""

    def forward(self, input_ids=None, attention_mask=None, labels=None):
        outputs = super().forward(input_ids, attention_mask)
        if labels is not None:
            outputs.loss = F.cross_entropy(outputs.logits, labels, ignore_index=-100) * 3
        return outputs


def test_a_models_own_mean_is_weighed_by_the_unit_that_its_task_names(tmp_path):
    class ByLabels(SequenceClassification):
        loss_unit = "labels"

    data = [{**row, "labels": -100} if i in (1, 2, 5) else row for i, row in enumerate(tiny.rows(8))]
    losses = {}
    for task in (ByLabels, SequenceClassification):
        for size, accumulation in ((8, 1), (4, 2)):
            student = tiny.bert()
            student.__class__ = OwnMean
            own = task(3, tiny.SINGLE, own_loss=True)
            losses[task, size] = step(tmp_path, size, accumulation, own, data, student)[0]["loss/hard"]
    assert losses[ByLabels, 4] == pytest.approx(losses[ByLabels, 8], rel=1e-5)
    assert losses[SequenceClassification, 4] != pytest.approx(losses[SequenceClassification, 8], rel=1e-2)


@pytest.mark.parametrize(
    ("told", "members"),
    [
        (r"loss_unit='boxes' was given by Odd, whose batches are counted in rows, tok", {"loss_unit": "boxes"}),
        (
            r"Odd.hard takes \(outputs\), but is called with the student's outputs",
            {"hard": lambda self, outputs: None},
        ),
    ],
)
def test_what_cannot_be_a_loss_is_refused_before_the_first_step(tmp_path, told, members):
    with pytest.raises(ValueError, match=told):
        step(tmp_path, 8, 1, type("Odd", (SequenceClassification,), members)(3, tiny.SINGLE))
