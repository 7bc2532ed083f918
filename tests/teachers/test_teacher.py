"""The base of all teachers: what a user's own inherits, in a training too."""

import pytest
import tiny
import torch

from hf_distill import DenseLogits, Head, Signals, Teacher


class Sure(Teacher):
    """Ten lines: what the documentation asks of a teacher of one's own."""

    def __call__(self, batch, needs):
        logits = torch.tensor([[2.0, 0.0, -2.0]]).repeat(len(batch["input_ids"]), 1)
        return Signals({"logits": Head(DenseLogits(logits), torch.ones(len(logits), dtype=torch.bool))})


def test_a_teacher_of_ones_own_teaches(tmp_path):
    run = tiny.trainer(tmp_path, tiny.bert(), teacher_model=Sure(), args={"alpha": 1.0, "num_train_epochs": 5.0})
    run.train()
    assert tiny.losses(run)[-1] < tiny.losses(run)[0]
    assert run.teacher.task is run.task


def test_what_is_no_teacher_and_looks_like_one_is_refused(tmp_path):
    class Duck:
        serves, facts, collective, columns = frozenset({"heads"}), None, False, frozenset()

        def __call__(self, batch, needs):
            return None

    with pytest.raises(TypeError, match=r"teacher_model is a Duck, which is no Teacher: make it a subclass"):
        tiny.trainer(tmp_path, tiny.bert(), teacher_model=Duck())


def test_a_teacher_that_cannot_answer_or_write_says_so():
    with pytest.raises(NotImplementedError, match=r"Teacher has no __call__\(batch, needs\)"):
        Teacher()({}, frozenset())
    with pytest.raises(NotImplementedError, match="Teacher writes no texts"):
        Teacher().generate()


def test_a_teachers_own_state_is_in_checkpoints_also_behind_a_cache(tmp_path):
    told = []

    class Counting(Sure):
        def save(self, checkpoint, rank, name="", answers=True):
            told.append(("save", rank, answers))

        def load(self, checkpoint, name=""):
            told.append(("load", name))

    def run(folder, **more):
        args = {"alpha": 1.0, "max_steps": 2, "save_strategy": "steps", "save_steps": 2, "teacher_cache": folder}
        return tiny.trainer(tmp_path, tiny.bert(), teacher_model=Counting(), args={**args, **more})

    run("auto").train()
    run(str(tmp_path / "answers"), max_steps=3).train(resume_from_checkpoint=True)
    assert told[:2] == [("save", 0, True), ("load", "")]
