"""Depth up to a factor, and up to a factor and a shift: the formulas, what does not count, what is refused."""

import pytest
import torch
from vectors import same_gradient

from hf_distill.objectives import build
from hf_distill.objectives.depth import LEAST, AffineInvariant, ScaleInvariant, scale_invariant
from hf_distill.objectives.values import ValueL1
from hf_distill.signals import Signals, Value

ROWS = torch.tensor([[True, True, False], [True, False, True], [False, False, False], [True, True, True]])


def maps(seed=0, shape=(4, 3, 5)):
    return 0.5 + torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def compared(term, student, teacher, ours=ROWS, theirs=ROWS):
    both = (Signals({}, values={"depth": Value(*one)}) for one in ((student, ours), (teacher, theirs)))
    return term(*both, {})


def each(student, teacher, cost):
    """Add what a cost of two lists of numbers says of each sample of which something counts."""
    counted = [
        (s[r].flatten(), t[r].flatten()) for s, t, r in zip(student.double(), teacher.double(), ROWS, strict=True)
    ]
    return sum(cost(*both) for both in counted if len(both[0]))


def eigen(share):
    def cost(student, teacher):
        d = student.log() - teacher.log()
        return d.square().mean() - share * d.mean().square()

    return cost


def ranftl(student, teacher):
    both = [(one - one.median()) / (one - one.median()).abs().mean() for one in (student, teacher)]
    return (both[0] - both[1]).abs().mean()


COSTS = {
    "value_l1": (ValueL1(), lambda student, teacher: (student - teacher).abs().mean()),
    "scale_invariant": (ScaleInvariant(), eigen(0.5)),
    "scale_free": (ScaleInvariant(share=1.0), eigen(1.0)),
    "affine_invariant": (AffineInvariant(), ranftl),
}


@pytest.mark.parametrize("name", COSTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_values_and_gradients_agree_with_float64(name, dtype):
    term, cost = COSTS[name]
    student, teacher = maps().to(dtype).requires_grad_(), maps(1).to(dtype)
    total, count = compared(term, student, teacher)
    wanted = each(student, teacher, cost)
    assert count == 4
    assert total.item() == pytest.approx(wanted.item(), rel=1e-5)
    assert dtype == torch.bfloat16 or same_gradient(total, wanted, [student])


@pytest.mark.parametrize("name", COSTS)
def test_what_does_not_count_in_one_of_both_has_no_value_and_no_gradient(name):
    term, fewer = COSTS[name][0], ROWS.clone()
    fewer[3, 0] = False
    student, teacher = maps(), maps(1)
    wanted = compared(term, student, teacher, ROWS, fewer).total
    student[3, 0], teacher[3, 0] = float("nan"), float("inf")
    student[~ROWS] = teacher[~ROWS] = float("nan")
    student.requires_grad_()
    total, _ = compared(term, student, teacher, ROWS, fewer)
    total.backward()
    assert total == wanted
    assert (student.grad[~fewer] == 0).all()
    assert student.grad.isfinite().all()
    assert (student.grad[0, :2] != 0).any()


def test_a_factor_costs_what_is_not_forgiven_of_it_and_a_shift_is_another_matter():
    depth = maps(shape=(1, 3, 5))
    rows = torch.ones(1, 3, dtype=torch.bool)

    def cost(term, student):
        return compared(term, student, depth, rows, rows).total.item()

    factor = torch.tensor(3.0).log().square().item()
    assert cost(ScaleInvariant(share=0.0), 3 * depth) == pytest.approx(factor, rel=1e-5)
    assert cost(ScaleInvariant(share=0.75), 3 * depth) == pytest.approx(factor / 4, rel=1e-5)
    assert cost(ScaleInvariant(share=1.0), 3 * depth) == pytest.approx(0, abs=1e-10)
    assert cost(ScaleInvariant(share=1.0), 3 * depth + 1) > 1e-3
    assert cost(AffineInvariant(), 3 * depth + 1) == pytest.approx(0, abs=1e-5)
    assert cost(AffineInvariant(), -depth) > 1.0


def test_a_number_without_a_logarithm_does_not_count_where_it_is_wanted_and_is_a_millimetre_where_it_is_predicted():
    wanted = torch.tensor([[1.0, 0.0, -2.0, float("nan"), float("inf")]])
    predicted = torch.tensor([[-5.0, 1.0, 1.0, 1.0, 1.0]], requires_grad=True)
    every = torch.ones_like(wanted, dtype=torch.bool)
    found = scale_invariant(predicted, wanted, every)
    assert found.item() == pytest.approx(0.5 * torch.tensor(LEAST).log().square().item(), rel=1e-5)
    found.sum().backward()
    assert predicted.grad.isfinite().all()


def test_a_map_that_is_the_same_everywhere_is_compared_without_a_division_by_nothing():
    flat = torch.full((4, 3, 5), 2.0, requires_grad=True)
    total, _ = compared(AffineInvariant(), flat, maps(1))
    total.backward()
    assert total.isfinite()
    assert flat.grad.isfinite().all()


def test_they_are_known_by_their_names():
    asked = {"value_l1": {"of": "depth"}, "scale_invariant": {"share": 0.85}, "affine_invariant": 0.5}
    terms = build(asked).terms
    assert [type(term) for term in terms.values()] == [ValueL1, ScaleInvariant, AffineInvariant]
    assert terms["scale_invariant"].share == 0.85
    with pytest.raises(ValueError, match="share=2 was given to scale_invariant: give a number from 0"):
        build({"scale_invariant": {"share": 2}})


@pytest.mark.parametrize("name", COSTS)
def test_other_things_are_refused(name):
    term = COSTS[name][0]
    with pytest.raises(ValueError, match=rf"{term.name} was asked to compare depth, of shape \[4, 3, 5\], with the"):
        compared(term, maps(), maps(1, (4, 2, 5)), theirs=torch.ones(4, 2, dtype=torch.bool))
