"""A teacher of waves with a frame rate of its own: kept equals live, or it is said that nothing is kept."""

import logging

import pytest
import tiny
import torch
from torch import nn
from torch.nn import functional as F

from hf_distill import CachedTeacher, LiveTeacher, Task
from hf_distill.signals import DenseLogits, Head, Signals, Sum

SLOW, FAST = 4, 2  # samples a frame: the student's and the teacher's


class Framed(nn.Module):
    """One distribution over 5 letters for each frame of a wave."""

    def __init__(self, stride, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.stride, self.layer = stride, nn.Linear(stride, 5)

    def forward(self, input_values, attention_mask=None):
        cut = input_values[:, : input_values.shape[1] // self.stride * self.stride]
        return {"logits": 3 * self.layer(cut.unflatten(1, (-1, self.stride)))}


class Letters(Task):
    """A letter for each of the student's frames; ``own`` is whether an answer brings the mask of its own frames."""

    auto_class, pipeline_tag, positions = "AutoModelForCTC", "automatic-speech-recognition", True

    def __init__(self, own, frames):
        self.own, self.frames = own, frames

    @classmethod
    def from_model(cls, model):
        return None

    @staticmethod
    def framed(batch, stride):
        lengths, width = batch["attention_mask"].sum(1) // stride, batch["attention_mask"].shape[1] // stride
        return torch.arange(width) < lengths.unsqueeze(1)

    def mask(self, batch):
        return self.framed(batch, SLOW)

    def rows(self, batch):
        return self.mask(batch)

    def labels(self, batch):
        return batch["labels"] != -100

    def hard(self, outputs, batch):
        counted = self.labels(batch)
        loss = F.cross_entropy(outputs["logits"][counted], batch["labels"][counted], reduction="sum")
        return Sum(loss, counted.sum())

    def signals(self, model, batch, outputs, captured=None):
        frames = self.framed(batch, model.stride)
        mask = frames if self.own else self.mask(batch)
        return Signals({"logits": Head(DenseLogits(outputs["logits"]), frames)}, mask=mask)

    def align(self, student, teacher, batch):
        logits, shape = teacher.heads["logits"].logits.tensor, student.heads["logits"].rows.shape
        pooled = DenseLogits(logits.unflatten(1, (shape[1], -1)).mean(2))
        return Signals({"logits": Head(pooled, student.heads["logits"].rows)}, mask=student.mask)


def collated(rows):
    width = -(-max(len(row["input_values"]) for row in rows) // SLOW) * SLOW
    waves, mask = torch.zeros(len(rows), width), torch.zeros(len(rows), width, dtype=torch.long)
    labels = torch.full((len(rows), width // SLOW), -100)
    for i, row in enumerate(rows):
        length = len(row["input_values"])
        waves[i, :length], mask[i, :length] = torch.tensor(row["input_values"]), 1
        labels[i, : length // SLOW] = torch.arange(length // SLOW) % 5
    return {"input_values": waves, "attention_mask": mask, "labels": labels}


def trained(folder, task, cache):
    drawn = torch.Generator().manual_seed(0)
    rows = [{"input_values": torch.randn(SLOW * (2 + i % 3), generator=drawn).tolist()} for i in range(8)]
    settings = {"max_steps": -1, "num_train_epochs": 3, "alpha": 0.7, "teacher_cache": cache, "temperature": 2.0}
    settings |= {"per_device_train_batch_size": 4, "remove_unused_columns": False, "eval_strategy": "epoch"}
    run = tiny.trainer(
        folder, Framed(SLOW, 0), data=rows, eval_dataset=rows[::-1], data_collator=collated, task=task,
        teacher_model=Framed(FAST, 1), args=settings,
    )  # fmt: skip
    run.train()
    return run, tiny.losses(run) + tiny.losses(run, "eval_loss")


@pytest.mark.parametrize(("own", "frames", "kept"), [(True, True, True), (True, False, False), (False, False, False)])
def test_kept_frames_are_the_teachers_own_or_none(tmp_path, caplog, own, frames, kept):
    _, expected = trained(tmp_path / "live", Letters(own, frames), "off")
    with caplog.at_level(logging.WARNING):
        run, found = trained(tmp_path / "kept", Letters(own, frames), "auto")
    assert found == pytest.approx(expected, rel=1e-6)
    assert (len(run.teacher.memory) > 0) is kept
    assert ("are not kept" in caplog.text) is not kept


def test_what_the_batch_says_of_frames_is_not_what_an_answer_has(tmp_path):
    """The mistake that is guarded against: cut by the student's mask, the teacher's frames are others."""
    teacher = CachedTeacher(LiveTeacher(Framed(FAST, 1), Letters(True, True)), always=True)
    rows = [{"input_values": [0.5] * 8}, {"input_values": [0.25] * 4}]
    tiny.trainer(tmp_path, Framed(SLOW, 0), data=rows, data_collator=collated, task=Letters(True, True),
                 teacher_model=teacher, args={"remove_unused_columns": False})  # fmt: skip
    batch = collated(rows)
    first, again = (teacher(batch, frozenset({"heads"})) for _ in range(2))
    assert first.mask.sum(1).tolist() == [4, 2]
    assert torch.equal(again.mask, first.mask)
    assert torch.equal(again.heads["logits"].rows, first.mask)
    shown = [one.heads["logits"].logits.tensor[first.mask] for one in (first, again)]
    assert torch.equal(*shown)
