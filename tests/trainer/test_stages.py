"""Several stages in one run: what is on at a step, and that a resumed run goes on as if it had never stopped."""

from itertools import pairwise

import pytest
import tiny
import torch

from hf_distill.objectives import build

STAGES = {
    "hidden_mse": {"weight": {"until": 0.5}},
    "forward_kl": {
        "weight": {"from": 0.5},
        "temperature": {"kind": "linear", "start": 4.0, "end": 1.0, "from": 0.5, "until": 1.0},
    },
}


def stages(folder, **args):
    return tiny.trainer(
        folder, teacher_model=tiny.teacher(), objective=STAGES, args={"alpha": 1.0, "max_steps": 8, **args}
    )


def test_representation_first_then_prediction_in_one_run_that_resumes_exactly(tmp_path):
    run = stages(tmp_path, save_strategy="steps", save_steps=1)
    run.train()
    logged = [entry for entry in run.state.log_history if "loss" in entry]
    on = [{name for name in entry if name.startswith("loss/")} for entry in logged]
    assert on == [{"loss/hidden_mse"}] * 4 + [{"loss/forward_kl"}] * 4
    weights = {name: value.clone() for name, value in run.model.state_dict().items()}
    for step in (2, 4, 6):  # within either stage, and between them
        again = stages(tmp_path / "again")
        again.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{step}"))
        assert tiny.losses(again) == tiny.losses(run)
        assert all(torch.equal(weights[name], value) for name, value in again.model.state_dict().items())


def test_what_rests_is_not_trained(tmp_path):
    """Its projections have a gradient of zero, which DDP needs, and keep their values."""
    run = stages(tmp_path, optim="sgd", learning_rate=1.0, max_steps=8)
    projections = run.distillation.objective.terms["hidden_mse"].projections
    seen = []

    class Look(tiny.TrainerCallback):
        def on_step_end(self, *args, **kwargs):
            seen.append(next(projections.parameters()).detach().clone())

    run.add_callback(Look())
    run.train()
    moved = [not torch.equal(one, other) for one, other in pairwise(seen)]
    assert moved == [True] * 3 + [False] * 4


def test_a_step_without_anything_to_learn_is_refused_before_the_first(tmp_path):
    run = tiny.trainer(
        tmp_path,
        teacher_model=tiny.teacher(),
        objective={"forward_kl": {"weight": {"until": 0.5}}},
        args={"alpha": 1.0},
    )
    with pytest.raises(ValueError, match="alpha=1 learns from the teacher alone, and from step 2 of 3 no term has"):
        run.train()
    assert run.state.global_step == 0
    labelled = tiny.trainer(
        tmp_path,
        teacher_model=tiny.teacher(),
        objective={"forward_kl": {"weight": {"until": 0.5}}},
        args={"alpha": 0.5},
    )
    labelled.train()
    assert [("loss/forward_kl" in entry) for entry in labelled.state.log_history[:3]] == [True, True, False]


def test_the_arguments_take_a_schedule_as_json():
    args = tiny.arguments("out", objective='{"forward_kl": {"weight": {"kind": "cosine", "start": 1.0, "end": 0.1}}}')
    assert repr(build(args.objective).asked["forward_kl"]) == "cosine 1 -> 0.1 from 0 until 1.0"
