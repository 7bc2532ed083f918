"""What the student carries for its objective, and what it shows of it."""

import pytest
import tiny
import torch
from torch import nn
from transformers import AutoModelForSequenceClassification

from hf_distill.models.facts import Facts
from hf_distill.models.sharding import whole_state
from hf_distill.objectives import build
from hf_distill.training.projections import attach_to_student

HIDDEN = {"hidden_mse": {"layers": {0: 0, 1: 2}}}
KEYS = {f"distillation.terms.hidden_mse.projections.{pair}.weight" for pair in ("0_0", "1_2")}


def objective(spec=HIDDEN):
    made = build(spec)
    made.build(Facts.of(tiny.bert()), Facts.of(tiny.teacher()))
    return made


def test_only_an_objective_with_something_to_train_is_attached():
    student = tiny.bert()
    before = set(student.state_dict())
    attach_to_student(student, objective("forward_kl"))
    assert set(student.state_dict()) == before
    attach_to_student(student, objective())
    assert set(student.state_dict()) == before | KEYS
    attach_to_student(student, objective({"hidden_mse": {"layers": {1: 1}}}))  # another one takes its place
    assert set(student.state_dict()) == before | {"distillation.terms.hidden_mse.projections.1_1.weight"}
    attach_to_student(student, None)
    assert set(student.state_dict()) == before
    assert student._keys_to_ignore_on_save == type(student)._keys_to_ignore_on_save


def test_the_same_objective_is_left_alone():
    student, made = tiny.bert(), objective()
    attach_to_student(student, made)
    weight = made.terms["hidden_mse"].projections["1_2"].weight
    attach_to_student(student, made)
    assert student.distillation.terms["hidden_mse"].projections["1_2"].weight is weight


def test_save_pretrained_by_the_user_leaves_it_out(tmp_path):
    student = tiny.bert()
    attach_to_student(student, objective())
    student.save_pretrained(tmp_path)
    loaded, info = AutoModelForSequenceClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert type(student)._keys_to_ignore_on_save is None  # the class, and so every other model, is untouched
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, student.state_dict()[name])


def test_it_takes_the_students_device_and_dtype():
    student, made = tiny.bert().bfloat16(), objective()
    attach_to_student(student, made)
    assert {p.dtype for p in made.parameters()} == {torch.bfloat16}


def test_a_name_that_is_taken_is_refused():
    student = tiny.bert()
    student.distillation = nn.Linear(1, 1)
    with pytest.raises(ValueError, match=r"has an attribute 'distillation' of its own.*rename it"):
        attach_to_student(student, objective())


def test_building_it_moves_no_random_number_and_is_equal_everywhere(tmp_path):
    made = []
    for _ in range(2):
        torch.manual_seed(len(made))  # ranks may have come to different states
        before = torch.get_rng_state()
        run = tiny.trainer(tmp_path, teacher_model=tiny.teacher(), args={"seed": 3}, objective=HIDDEN)
        made.append(whole_state(run.distillation.objective))
        assert not torch.equal(before, torch.get_rng_state())  # Trainer itself sets the seed
    plain = tiny.trainer(tmp_path, args={"seed": 3})
    state = torch.get_rng_state()
    run = tiny.trainer(tmp_path, teacher_model=(teacher := tiny.teacher()), args={"seed": 3}, objective=HIDDEN)
    assert plain.args.seed == run.args.seed
    assert made[0].keys() == made[1].keys() == {key.removeprefix("distillation.") for key in KEYS}
    assert all(torch.equal(made[0][key], made[1][key]) for key in made[0])
    torch.manual_seed(3)
    tiny.bert()
    assert teacher is run.teacher.model
    assert torch.equal(state, after_construction(tmp_path, objective="forward_kl"))
    assert torch.equal(state, after_construction(tmp_path, objective=HIDDEN))


def after_construction(folder, **parts):
    student, teacher = tiny.bert(), tiny.teacher()
    tiny.trainer(folder, student, teacher_model=teacher, args={"seed": 3}, **parts)
    return torch.get_rng_state()


def test_an_optimizer_that_was_made_before_is_refused(tmp_path):
    student = tiny.bert()
    optimizers = (torch.optim.SGD(student.parameters(), lr=0.1), None)
    with pytest.raises(ValueError, match="without the 2 parameters that the objective trains: pass optimizer_cls_and"):
        tiny.trainer(tmp_path, student, teacher_model=tiny.teacher(), objective=HIDDEN, optimizers=optimizers)
    run = tiny.trainer(
        tmp_path,
        teacher_model=tiny.teacher(),
        objective=HIDDEN,
        optimizer_cls_and_kwargs=(torch.optim.SGD, {"lr": 0.1}),
    )
    before = whole_state(run.distillation.objective)
    run.train()
    assert all(not torch.equal(before[name], value) for name, value in whole_state(run.distillation.objective).items())


def test_without_a_share_for_the_teacher_nothing_is_carried(tmp_path):
    run = tiny.trainer(tmp_path, teacher_model=tiny.teacher(), objective=HIDDEN, args={"alpha": 0.0})
    run.train()
    assert not hasattr(run.model, "distillation")


def test_a_search_may_change_what_is_learned(tmp_path):
    run = tiny.trainer(
        tmp_path, model_init=lambda: tiny.bert(), teacher_model=tiny.teacher(), args={"objective": HIDDEN}
    )
    run.train()
    first, student = run.distillation.objective, run.model
    run.train()
    assert run.distillation.objective is not first  # a new student learns with new projections
    assert run.model is not student
    assert run.model.distillation is run.distillation.objective
    run.args.objective = "forward_kl"
    run.train()
    assert not hasattr(run.model, "distillation")
