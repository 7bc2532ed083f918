"""Relations among rows: the formulas, what they do not see, groups."""

import pytest
import reference
import torch
from vectors import MASK, built, compared, of_rows, same_gradient, states

from hf_distill.objectives.relation import RKDAngle, RKDDistance, SimilarityPreserving

EACH = pytest.mark.parametrize("cls", [RKDDistance, RKDAngle, SimilarityPreserving])


@EACH
@pytest.mark.parametrize("width", [3, 6])
@pytest.mark.parametrize("pool", ["mean", "last"])
def test_values_and_gradients_agree_with_float64(cls, width, pool):
    student, teacher = states(3).requires_grad_(), states(width, seed=1)
    term = built(cls, (3, width), pool=pool)
    assert not list(term.parameters())
    total, count = compared(term, student, teacher)
    vectors = (reference.pooled(one.double(), MASK, pool) for one in (student, teacher))
    wanted = 4 * getattr(reference, cls.name)(*vectors)
    assert count == 4
    assert total.item() == pytest.approx(wanted.item(), rel=1e-5)
    assert same_gradient(total, wanted, [student])


@EACH
def test_large_differences_are_in_the_linear_part_of_huber(cls):
    """One row far away: parts of the mean distance differ by more than 1."""
    student, teacher = states(3)[:, 0], states(6, seed=1)[:, 0]
    student[0] *= 1000.0
    student.requires_grad_()
    total, _ = of_rows(built(cls), student, teacher)
    wanted = 4 * getattr(reference, cls.name)(student.double(), teacher.double())
    assert total.item() == pytest.approx(wanted.item(), rel=1e-5)
    ours, theirs = (torch.autograd.grad(value, student)[0] for value in (total, wanted))
    assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(("cls", "moved"), [(RKDDistance, 3.0), (RKDAngle, 3.0), (SimilarityPreserving, 0.0)])
def test_turning_and_scaling_are_not_seen(cls, moved):
    """Distances and angles do not see where the rows are either."""
    student = states(4)[:, 0]
    turn = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(2))).Q
    turned = 100.0 * student @ turn + moved
    assert of_rows(built(cls, (4, 4)), student, turned).total < 1e-9
    assert of_rows(built(cls, (4, 4)), student, turned.flip(0)).total > 1e-2


@pytest.mark.parametrize(("cls", "rows"), [
    (RKDDistance, 1), (RKDDistance, 2), (RKDAngle, 1), (RKDAngle, 2), (SimilarityPreserving, 1),
])  # fmt: skip
def test_too_few_rows_are_a_zero_with_a_graph(cls, rows):
    student = states(3)[:rows, 0].requires_grad_()
    total, count = of_rows(built(cls), student, states(6, seed=1)[:rows, 0])
    total.backward()
    assert (total, count) == (0, rows)
    assert (student.grad == 0).all()


def test_equal_rows_have_no_part_in_the_mean_distance():
    """The mean is that of the distances that are not 0."""
    student = torch.tensor([[0.0], [0.0], [1.0]])
    teacher = torch.tensor([[0.0], [1.0], [3.0]])  # distances 1, 3, 2: parts 0.5, 1.5, 1
    wanted = 2 * (0.5**2 / 2 + 0.5**2 / 2 + 0.0) / 6 * 3  # the student's: 0, 1, 1
    assert of_rows(built(RKDDistance), student, teacher).total.item() == pytest.approx(wanted)


@EACH
def test_rows_that_share_a_large_part_are_told_apart(cls):
    """As those of deep models do, under autocast too; products of rows keep 24 bits of what is shared."""
    student, teacher = states(3)[:, 0] + 50.0, states(6, seed=1)[:, 0] + 50.0
    with torch.autocast("cpu", torch.bfloat16):
        total, _ = of_rows(built(cls), student, teacher)
    wanted = 4 * getattr(reference, cls.name)(student.double(), teacher.double())
    assert total.item() == pytest.approx(wanted.item(), rel=1e-4)
