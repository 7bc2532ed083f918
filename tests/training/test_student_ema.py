"""What is kept of a student is the average of its weights over the steps."""

import pytest
import tiny
import torch
from transformers import TrainerCallback

from hf_distill import StudentEMA


class Past(TrainerCallback):
    """Every state of a student, after each step."""

    def __init__(self):
        self.states = []

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self.on_step_end(args, state, control, model)

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.states.append({name: one.detach().clone() for name, one in model.named_parameters()})


def trainer(folder, ema=None, **args):
    objective = {"forward_kl": 1.0, "hidden_mse": 1.0}  # with a projection beside the student
    past = Past()
    callbacks = [past] if ema is None else [past, ema]
    run = tiny.trainer(folder, objective=objective, teacher_model=tiny.teacher(), callbacks=callbacks, args=args)
    return run, past


def test_it_is_the_average_of_all_steps_and_what_is_saved(tmp_path):
    run, past = trainer(tmp_path, StudentEMA(0.3), max_steps=4)
    run.train()
    average = past.states[0]
    for step, now in enumerate(past.states[1:], start=1):
        decay = min(0.3, (1 + step) / (10 + step))
        average = {name: decay * average[name] + (1 - decay) * now[name] for name in now}
    names = [name for name in average if not name.startswith("distillation.")]
    assert len(names) < len(average)
    ours = dict(run.model.named_parameters())
    assert all(torch.allclose(ours[name], average[name], rtol=1e-5, atol=1e-7) for name in names)
    assert any(not torch.equal(ours[name], past.states[-1][name]) for name in names)
    assert all(torch.equal(ours[n], past.states[-1][n]) for n in average if n not in names)
    run.save_model()
    loaded = type(run.model).from_pretrained(tmp_path)
    assert all(torch.equal(one, ours[name]) for name, one in loaded.named_parameters())


def test_it_changes_nothing_of_the_training(tmp_path):
    losses = []
    for ema in (None, StudentEMA(0.9)):
        run, _ = trainer(tmp_path, ema, max_steps=4)
        run.train()
        losses.append(tiny.losses(run))
    assert losses[0] == losses[1]


def test_a_resumed_run_keeps_the_same_average(tmp_path):
    args = {"max_steps": 6, "save_strategy": "steps", "save_steps": 3}
    whole, _ = trainer(tmp_path, StudentEMA(0.9), **args)
    whole.train()
    again, _ = trainer(tmp_path, StudentEMA(0.9), **args)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    ours, theirs = whole.model.state_dict(), again.model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize(
    ("make", "args", "told"),
    [
        (lambda: StudentEMA(1.0), {}, "decay=1.0 was asked for: give a number from 0 to below 1"),
        (
            lambda: StudentEMA(),
            {"load_best_model_at_end": True, "save_strategy": "steps", "eval_strategy": "steps"},
            "with load_best_model_at_end, which puts the weights of a checkpoint in the place of the average",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(tmp_path, make, args, told):
    def begin():
        tiny.trainer(tmp_path, callbacks=[make()], eval_dataset=tiny.rows(), args=args).train()

    with pytest.raises(ValueError, match=told):
        begin()


def test_a_checkpoint_without_it_is_refused(tmp_path):
    run, _ = trainer(tmp_path, max_steps=3, save_strategy="steps", save_steps=3)
    run.train()
    again, _ = trainer(tmp_path, StudentEMA(), max_steps=6)
    with pytest.raises(ValueError, match=r"checkpoint-3.student_ema.safetensors, which is not there: resume from"):
        again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
