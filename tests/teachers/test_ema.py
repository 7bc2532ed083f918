import copy

import peft
import pytest
import tiny
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import TrainerCallback

from hf_distill import EMATeacher, LiveTeacher, SequenceClassification, Sum
from hf_distill.objectives.logits import ForwardKL
from hf_distill.training.build_teacher import with_cache


def trained(folder, teacher, student=None, resume=None, callbacks=(), objective="forward_kl", **args):
    settings = {"alpha": 0.7, "max_steps": 6, "learning_rate": 5e-2, "per_device_train_batch_size": 4}
    run = tiny.trainer(
        folder, student or tiny.bert(), data=tiny.rows(16), teacher_model=teacher, objective=objective,
        callbacks=list(callbacks), args={**settings, **args},
    )  # fmt: skip
    run.train(resume_from_checkpoint=resume)
    return run, tiny.losses(run)


def weights(model):
    return {name: value.detach().clone() for name, value in model.named_parameters()}


class Average(TrainerCallback):
    """The same average, as the paper writes it."""

    def __init__(self, decay, warmup, into=None):
        self.decay, self.warmup, self.held, self.into = decay, warmup, None, into

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self.held = {name: value.double() for name, value in weights(model).items()}

    def on_step_end(self, args, state, control, model=None, **kwargs):
        t = state.global_step
        d = min(self.decay, (1 + t) / (10 + t)) if self.warmup else self.decay
        for name, value in weights(model).items():
            self.held[name] = d * self.held[name] + (1 - d) * value.double()
        if self.into is not None:
            self.into.load_state_dict(self.held, strict=False)


@pytest.mark.parametrize(("decay", "warmup"), [(0.9, True), (0.9, False), (0.2, True), (0.0, False)])
def test_it_is_the_average_that_the_paper_writes(tmp_path, decay, warmup):
    reference = Average(decay, warmup)
    run, _ = trained(tmp_path, EMATeacher(decay, warmup=warmup), callbacks=[reference])
    found = weights(run.teacher.model)
    assert tiny.relative(found, {name: value.float() for name, value in reference.held.items()}) < 1e-6
    student = tiny.relative(found, weights(run.model))
    assert student == 0.0 if decay == 0.0 else student > 1e-3


def test_its_answers_are_those_of_a_model_that_is_averaged_by_hand(tmp_path):
    twin = tiny.bert()
    by_hand = trained(tmp_path / "a", twin, callbacks=[Average(0.9, True, into=twin)], teacher_cache="off")[1]
    run, found = trained(tmp_path / "b", EMATeacher(0.9))
    assert isinstance(run.teacher, EMATeacher)  # there is no memory around it
    assert found == pytest.approx(by_hand, rel=1e-5)
    assert tiny.losses(run, "loss/forward_kl")[0] < 1e-7 < tiny.losses(run, "loss/forward_kl")[1]


@pytest.mark.parametrize("order", ["sequential"])
def test_eight_rows_are_four_times_two(tmp_path, order):
    args = {"train_sampling_strategy": order}
    whole = trained(tmp_path / "a", EMATeacher(0.9), per_device_train_batch_size=8, **args)[1]
    parts = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}
    assert trained(tmp_path / "b", EMATeacher(0.9), **parts, **args)[1] == pytest.approx(whole, rel=1e-5)


@pytest.mark.slow
def test_a_resumed_run_goes_on_with_the_average_it_had(tmp_path):
    saving = {"save_strategy": "steps", "save_steps": 3}
    run, whole = trained(tmp_path, EMATeacher(0.9), **saving)
    again, found = trained(tmp_path, EMATeacher(0.9), resume=str(tmp_path / "checkpoint-3"), **saving)
    assert found == whole
    ours, theirs = weights(again.teacher.model), weights(run.teacher.model)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_it_is_in_a_checkpoint_that_is_uploaded_too(tmp_path, monkeypatch):
    run = tiny.trainer(tmp_path, teacher_model=EMATeacher(0.9), args={"save_strategy": "steps", "save_steps": 3})
    monkeypatch.setattr(type(run), "uploads_checkpoints", True)
    run.train()
    held = load_file(tmp_path / "checkpoint-3" / "ema_teacher.safetensors")
    assert held.keys() == weights(run.model).keys()


def test_a_checkpoint_without_it_is_refused(tmp_path):
    saving = {"save_strategy": "steps", "save_steps": 3}
    trained(tmp_path, tiny.teacher(), **saving)
    with pytest.raises(ValueError, match=r"to go on from .*ema_teacher\.safetensors, which is not there"):
        trained(tmp_path, EMATeacher(), resume=str(tmp_path / "checkpoint-3"), **saving)


def test_a_second_training_begins_as_the_student_is(tmp_path):
    run, _ = trained(tmp_path, EMATeacher(0.9))
    run.train()
    assert tiny.losses(run, "loss/forward_kl")[0] < 1e-7


def test_a_student_in_bfloat16_is_averaged_in_float32(tmp_path):
    student = tiny.bert().to(torch.bfloat16)
    run, _ = trained(tmp_path, EMATeacher(0.999, warmup=False), student, learning_rate=1e-2)
    moved = {name: value for name, value in run.teacher.wide.items() if value.to(torch.bfloat16).ne(value).any()}
    assert len(moved) > 10  # rounded to bfloat16 each time, a thousandth of a step would be nothing
    assert {value.dtype for value in run.teacher.wide.values()} == {torch.float32}
    assert {value.dtype for value in run.teacher.model.parameters()} == {torch.bfloat16}
    saving = {"save_strategy": "steps", "save_steps": 3, "learning_rate": 1e-2}
    whole = trained(tmp_path / "a", EMATeacher(0.9), tiny.bert().to(torch.bfloat16), **saving)[1]
    begun = tmp_path / "a" / "checkpoint-3"
    again, found = trained(tmp_path / "a", EMATeacher(0.9), tiny.bert().to(torch.bfloat16), str(begun), **saving)
    assert found == whole
    assert again.teacher.wide


class Normed(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.words, self.norm, self.head = nn.Embedding(32, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)

    def forward(self, input_ids):
        return {"logits": self.head(self.norm(self.words(input_ids).mean(1)))}


def test_statistics_of_a_batch_norm_are_the_students(tmp_path):
    data = [{"input_ids": [5 + i, 6, 7], "labels": i % 3} for i in range(8)]
    run = tiny.trainer(
        tmp_path, Normed(), data, data_collator=lambda rows: {n: torch.tensor([r[n] for r in rows]) for n in rows[0]},
        teacher_model=EMATeacher(0.9), task=SequenceClassification(3, tiny.SINGLE),
    )  # fmt: skip
    run.train()
    ours, theirs = dict(run.teacher.model.named_buffers()), dict(run.model.named_buffers())
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert ours["norm.num_batches_tracked"] == 3


class Weighed(ForwardKL):
    """A term with a parameter of its own."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.ones(()))

    def forward(self, student, teacher, batch):
        found = super().forward(student, teacher, batch)
        return Sum(found.total * self.factor, found.count)


def test_what_an_objective_trains_beside_the_student_is_no_part_of_it(tmp_path):
    run, losses = trained(tmp_path, EMATeacher(0.9), objective=Weighed())
    assert hasattr(run.model, "distillation")
    assert not hasattr(run.teacher.model, "distillation")
    run.train()  # a student that has it is followed too
    assert not hasattr(run.teacher.model, "distillation")
    assert len(losses) == 6


def test_an_adapter_is_averaged_its_base_stays(tmp_path):
    torch.manual_seed(0)
    config = peft.LoraConfig(r=2, target_modules=["query", "value"], modules_to_save=["classifier"])
    reference = Average(0.9, True)
    run, _ = trained(tmp_path, EMATeacher(0.9), peft.get_peft_model(tiny.bert(), config), callbacks=[reference])
    found = weights(run.teacher.model)
    assert tiny.relative(found, {name: value.float() for name, value in reference.held.items()}) < 1e-6
    assert not run.teacher.wide


def test_each_trial_has_an_average_of_its_own_student(tmp_path):
    widths = iter([16, 16, 24, 24])
    run = tiny.trainer(tmp_path, model_init=lambda: tiny.bert(width=next(widths)), teacher_model=EMATeacher(0.9))
    for _ in range(3):
        run.train()
        ours, theirs = weights(run.teacher.model), weights(run.model)
        assert {name: value.shape for name, value in ours.items()} == {n: v.shape for n, v in theirs.items()}
        assert tiny.losses(run, "loss/forward_kl")[0] < 1e-7


def test_it_may_be_one_of_several(tmp_path):
    saving = {"save_strategy": "steps", "save_steps": 3}

    def make():
        return {"past": EMATeacher(0.9), "big": tiny.teacher()}

    whole = trained(tmp_path, make(), **saving)[1]
    run, found = trained(tmp_path, make(), resume=str(tmp_path / "checkpoint-3"), **saving)
    assert isinstance(run.teacher.members["past"], EMATeacher)
    assert found == pytest.approx(whole, rel=1e-6)


@pytest.mark.parametrize("decay", [-0.1, 1.0, 1.5])
def test_a_decay_that_is_none_is_refused(decay):
    with pytest.raises(ValueError, match="give a number from 0 to below 1"):
        EMATeacher(decay)


@pytest.mark.parametrize(
    "asked", [{"cache": "a/folder"}, {"cache": "auto", "whole_window": True}, {"cache": "auto", "prepass": True}]
)
def test_answers_that_change_are_not_to_be_kept(asked):
    with pytest.raises(ValueError, match="whose answers change while the student learns: leave them out"):
        with_cache(EMATeacher(), **asked)


def test_the_student_is_copied_and_not_shared(tmp_path):
    student = tiny.bert()
    before = copy.deepcopy(student.state_dict())
    run = tiny.trainer(tmp_path, student, teacher_model=EMATeacher(0.9))
    assert not {id(p) for p in run.model.parameters()} & {id(p) for p in run.teacher.model.parameters()}
    assert isinstance(run.teacher, LiveTeacher)
    assert run.evaluate(tiny.rows())["eval_loss/forward_kl"] < 1e-7
    assert all(torch.equal(value, before[name]) for name, value in run.teacher.model.state_dict().items())
