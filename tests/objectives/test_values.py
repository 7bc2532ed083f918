"""What is no distribution: the formula, rows that do not count, which of several, what is refused; whole trainings."""

import pytest
import tiny
import tiny_values
import torch
from vectors import same_gradient

from hf_distill import LiveTeacher, Several, Task
from hf_distill.objectives.values import ValueMSE
from hf_distill.signals import Signals, Value

ROWS = torch.tensor([[True, True, False], [True, False, True], [False, False, False], [True, True, True]])


def boxes(seed=0, shape=(4, 3, 5)):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def compared(student, teacher, ours=ROWS, theirs=ROWS, **options):
    both = (Signals({}, values={"boxes": Value(*one)}) for one in ((student, ours), (teacher, theirs)))
    return ValueMSE(**options)(*both, {})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_values_and_gradients_agree_with_float64(dtype):
    student, teacher = boxes().to(dtype).requires_grad_(), boxes(1).to(dtype)
    total, count = compared(student, teacher)
    gap = (student.double() - teacher.double()).square().mean(-1)
    wanted = gap[0, :2].mean() + gap[1, [0, 2]].mean() + gap[3].mean()  # of the third sample nothing counts
    assert count == 4
    assert total.item() == pytest.approx(wanted.item(), rel=1e-5)
    assert dtype == torch.bfloat16 or same_gradient(total, wanted, [student])


def test_what_does_not_count_in_one_of_both_has_no_value_and_no_gradient():
    student, teacher, fewer = boxes(), boxes(1), ROWS.clone()
    fewer[3, 0] = False
    wanted = compared(student, teacher, ROWS, fewer).total
    student[3, 0], teacher[3, 0] = float("nan"), float("inf")
    student[~ROWS] = teacher[~ROWS] = float("nan")
    student.requires_grad_()
    total, _ = compared(student, teacher, ROWS, fewer)
    total.backward()
    assert total == wanted
    assert (student.grad[~fewer] == 0).all()
    assert (student.grad[fewer] != 0).all()


def test_several_values_are_added_up_and_one_is_named():
    ours, theirs = ({n: Value(boxes(s + k), ROWS) for n, k in (("a", 0), ("b", 9))} for s in (0, 1))
    both = Signals({}, values=ours), Signals({}, values=theirs)
    each = [ValueMSE(of=name)(*both, {}).total.item() for name in "ab"]
    total, count = ValueMSE()(*both, {})
    assert total.item() == pytest.approx(sum(each), rel=1e-6)
    assert each[0] != each[1]
    assert count == 4


@pytest.mark.parametrize("teacher", [boxes(1, (4, 2, 5)), boxes(1, (4, 3, 4))])
def test_other_things_are_refused(teacher):
    with pytest.raises(ValueError, match=r"value_mse was asked to compare boxes, of shape \[4, 3, 5\], with the"):
        compared(boxes(), teacher, theirs=torch.ones(teacher.shape[:2], dtype=torch.bool))
    with pytest.raises(ValueError, match="with the teacher's, of shape None: use a teacher of the same things"):
        ValueMSE()(Signals({}, values={"boxes": Value(boxes(), ROWS)}), Signals({}), {})


# ---- In a training ----


@pytest.mark.parametrize("objective", ["value_mse", {"vector_mse": 1.0, "vector_cosine": {"of": "scene"}}])
def test_8_x_1_equals_2_x_4(tmp_path, objective):
    found = []
    for size, accumulation in ((8, 1), (2, 4), (3, 3)):
        seen = tiny.Gradients()
        args = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulation, "max_steps": 1}
        run = tiny_values.trainer(tmp_path, objective=objective, callbacks=[seen], args=args)
        run.train()
        found.append(({k: v for k, v in run.state.log_history[0].items() if k.startswith("loss")}, seen.first))
    assert len(found[0][0]) == 2 + len([objective] if isinstance(objective, str) else objective)
    for parts, gradients in found[1:]:
        assert parts == pytest.approx(found[0][0], rel=1e-5)
        assert tiny.relative(gradients, found[0][1]) < 1e-5


def test_a_student_comes_to_find_what_its_teacher_finds(tmp_path):
    run = tiny_values.trainer(tmp_path, args={"alpha": 1.0, "max_steps": 60, "learning_rate": 0.05})
    run.train()
    losses = tiny.losses(run, "loss/value_mse")
    assert losses[-1] < 0.05 * losses[0]
    evaluated = run.evaluate(tiny_values.scenes(seed=5))
    assert 0 < evaluated["eval_loss/value_mse"] < losses[0]


@pytest.mark.parametrize(("what", "told"), [("box", "values 'boxes'"), ("scene", "vectors 'scene'")])
def test_a_teacher_that_gives_no_numbers_is_named(tmp_path, what, told):
    teacher = tiny_values.Boxes(seed=1)
    getattr(teacher, what).weight.data[0, 0] = float("nan")
    rows = tiny_values.scenes()
    with pytest.raises(ValueError, match=f"the teacher Boxes gave infinite or NaN {told} for rows"):
        tiny_values.trainer(tmp_path, rows, teacher_model=teacher, args={"teacher_cache": "off"}).train()


def test_what_does_not_count_may_be_no_number(tmp_path):
    class Holes(tiny_values.Boxes):
        def forward(self, points, there):
            shown = super().forward(points, there)
            return {**shown, "boxes": shown["boxes"].masked_fill(there.unsqueeze(-1) == 0, float("nan"))}

    run = tiny_values.trainer(tmp_path, teacher_model=Holes(seed=1), args={"teacher_cache": "off"})
    run.train()
    assert all(p.isfinite().all() for p in run.model.parameters())


class Both(tiny_values.Finding):
    """Shows two vectors."""

    vectors = ("image", "text")


@pytest.mark.parametrize(
    ("objective", "told"),
    [
        ("value_mse", "value_mse compares values, of which SequenceClassification shows none: use a term on heads"),
        ("vector_cosine", "vector_cosine compares vectors, of which SequenceClassification shows none: use a term"),
    ],
)
def test_a_task_that_shows_none_is_refused_before_the_first_step(tmp_path, objective, told):
    with pytest.raises(ValueError, match=told):
        tiny.trainer(tmp_path, teacher_model=tiny.teacher(), objective=objective)


def test_a_name_that_is_not_there_and_a_mean_of_several_are_refused(tmp_path):
    with pytest.raises(ValueError, match="compares the vectors 'scene', of which Both shows image, text: name one"):
        tiny_values.trainer(tmp_path, task=Both(), objective={"vector_mse": {"of": "scene"}})
    several = Several([LiveTeacher(tiny_values.Boxes(seed=seed)) for seed in (1, 2)])
    with pytest.raises(ValueError, match=r"the objective needs \['values'\], the teacher 2 teachers: 0, 1 serves"):
        tiny_values.trainer(tmp_path, teacher_model=several)


def test_one_of_several_teachers_is_compared_by_its_name(tmp_path):
    several = Several({"a": tiny_values.Boxes(seed=1), "b": tiny_values.Boxes(seed=2)})
    asked = {"value_mse": {"teacher": "b"}}
    run = tiny_values.trainer(tmp_path / "a", teacher_model=several, objective=asked, args={"max_steps": 1})
    alone = tiny_values.trainer(tmp_path / "b", teacher_model=tiny_values.Boxes(seed=2), args={"max_steps": 1})
    for one in (run, alone):
        one.train()
    assert tiny.losses(run, "loss/value_mse") == tiny.losses(alone, "loss/value_mse")
    assert isinstance(run.task, Task)
