"""Sorted probabilities: against the formula in float64, for heads of any two sizes."""

import pytest
import reference
import torch

from hf_distill.objectives import build


@pytest.mark.parametrize(("ours", "theirs"), [(7, 7), (5, 9), (9, 5)])
def test_it_is_the_formula(ours, theirs):
    student, teacher = torch.randn(4, ours), torch.randn(4, theirs)
    found = build("uld").terms["uld"].divergence(student, teacher)
    assert found.shape == (4,)
    assert found.sum().item() == pytest.approx(reference.uld(student, teacher), rel=1e-5)


def test_the_same_probabilities_in_any_order_cost_nothing_and_the_gradient_is_right():
    student = torch.randn(3, 6)
    term = build("uld").terms["uld"]
    assert term.divergence(student, student[:, torch.randperm(6)]).abs().max() < 1e-6
    student, teacher = (torch.randn(2, 5, dtype=torch.float64) for _ in range(2))
    assert torch.autograd.gradcheck(lambda logits: term.divergence(logits, teacher), student.requires_grad_())


def test_the_runs_temperature_is_not_taken():
    objective = build({"uld": {"temperature": 3.0}, "plain": {"term": "uld"}})
    objective.set_temperature(5.0)
    assert (objective.terms["uld"].temperature, objective.terms["plain"].temperature) == (3.0, 1.0)
    with pytest.raises(ValueError, match="temperature=0 was given to ULD"):
        build({"uld": {"temperature": 0}})
