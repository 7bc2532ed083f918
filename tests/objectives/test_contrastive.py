"""Finding one's own teacher vector: the formula, equal rows, rows of other ranks."""

import pytest
import reference
import torch
from vectors import MASK, built, compared, of_rows, same_gradient, states

from hf_distill.objectives import build, contrastive
from hf_distill.objectives.contrastive import Contrastive


def mapped(term, side, vectors):
    linear = getattr(term, side)["1_1"]
    return vectors.double() @ linear.weight.double().T + linear.bias.double()


@pytest.mark.parametrize("width", [3, 6])
@pytest.mark.parametrize("temperature", [0.07, 1.0])
@pytest.mark.parametrize("pool", ["mean", "last"])
def test_values_and_gradients_agree_with_float64(width, temperature, pool):
    term = built(Contrastive, (3, width), dim=5, temperature=temperature, pool=pool)
    student, teacher = states(3).requires_grad_(), states(width, seed=1)
    total, count = compared(term, student, teacher)
    ours = mapped(term, "students", reference.pooled(student, MASK, pool))
    theirs = mapped(term, "teachers", reference.pooled(teacher, MASK, pool))
    wanted = reference.info_nce(ours, theirs, theirs, temperature)
    assert count == 4
    assert total.item() == pytest.approx(wanted.item(), rel=1e-5)
    assert same_gradient(total, wanted, [student, *term.parameters()])


def test_rows_that_the_teacher_shows_alike_are_not_told_apart():
    """Four rows, two of them the same: each is told from two others, once each."""
    student, teacher = states(3)[:, 0].requires_grad_(), states(6, seed=1)[:, 0]
    teacher[2] = teacher[0]
    term = built(Contrastive, dim=5)
    total, count = of_rows(term, student, teacher)
    theirs = mapped(term, "teachers", teacher)
    wanted = reference.info_nce(mapped(term, "students", student), theirs, theirs[[0, 1, 3]], 0.07)
    assert count == 4
    assert total.item() == pytest.approx(wanted.item(), rel=1e-5)
    assert same_gradient(total, wanted, [student, *term.parameters()])


@pytest.mark.parametrize("seen", [[[0, 1], [2, 3]], [[0, 1, 2], [3]], [[0, 1], [0, 1], [2, 3], [2, 3]]])
def test_ranks_add_up_to_one_process(monkeypatch, seen):
    """Equal and unequal shares, and two pairs of ranks that hold the same rows, as tensor parallelism does."""
    student, teacher = states(3)[:, 0].requires_grad_(), states(6, seed=1)[:, 0]
    term = built(Contrastive, dim=5)
    inputs = [student, *term.parameters()]
    whole, _ = of_rows(term, student, teacher)
    everyone, parts = teacher[[row for rows in seen for row in rows]], []
    for rank, rows in enumerate(seen):
        first = sum(len(others) for others in seen[:rank])

        def found(vectors, first=first, rows=rows):
            assert torch.equal(vectors, teacher[rows])
            return everyone, first

        monkeypatch.setattr(contrastive, "gathered", found)
        parts.append(of_rows(term, student[rows], teacher[rows]).total)
    added = sum(parts) * 4 / len(everyone)
    assert added.item() == pytest.approx(whole.item(), rel=1e-6)
    assert same_gradient(added, whole, inputs)


def test_what_is_trained_and_the_run_s_temperature():
    term = build({"contrastive": {"dim": 5}}).terms["contrastive"]
    term.set_temperature(4.0)
    assert term.temperature == 0.07
    again = built(Contrastive, dim=5)
    shapes = {name: tuple(p.shape) for name, p in again.named_parameters()}
    assert shapes == {
        "students.1_1.weight": (5, 3), "students.1_1.bias": (5,), "teachers.1_1.weight": (5, 6),
        "teachers.1_1.bias": (5,),
    }  # fmt: skip


@pytest.mark.parametrize(("options", "message"), [
    ({"dim": 0}, "dim=0 was given to contrastive: give at least 1"),
    ({"temperature": 0.0}, "temperature=0.0 was given to contrastive: give a number greater than 0"),
    ({"temperature": float("nan")}, "temperature=nan was given to contrastive"),
])  # fmt: skip
def test_numbers_that_are_too_small_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Contrastive(**options)
