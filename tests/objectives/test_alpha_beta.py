"""The alpha-beta divergence: its formula and its limits, in value and gradient, however close the models are."""

import copy

import pytest
import reference
import torch
from torch import nn

from hf_distill.models.linear_logits import LinearLogits
from hf_distill.objectives import build, functional
from hf_distill.objectives.alpha_beta import AlphaBeta, alpha_beta
from hf_distill.objectives.chunked import linear_pass, one_pass
from hf_distill.signals import POINTER, DenseLogits, Head, Signals

GENERAL = [(0.2, 0.7), (0.8, 0.3), (0.5, 0.5), (1.5, -0.5), (-0.4, 1.2), (2.0, 1.0), (1e-3, 0.9), (0.9, 1e-3)]
LIMITS = [(1.0, 0.0), (0.0, 1.0), (0.0, 0.0), (0.5, 0.0), (0.0, 2.0), (0.6, -0.6), (-0.6, 0.6)]
EACH = pytest.mark.parametrize(("alpha", "beta"), [*GENERAL, *LIMITS])


def pair(n, classes, spread, seed=0):
    generator = torch.Generator().manual_seed(seed)
    teacher = 2 * torch.randn(n, classes, generator=generator)
    return teacher + spread * torch.randn(n, classes, generator=generator), teacher


def off(found, expected):
    return float(((found.detach().double() - expected.detach()) / expected.detach().abs().max()).abs().max())


@pytest.mark.parametrize("classes", [2, 10, 4000])
@pytest.mark.parametrize("spread", [3.0, 0.3, 0.045])
@EACH
def test_values_and_gradients_agree_with_float64(alpha, beta, spread, classes):
    student, teacher = pair(16, classes, spread)
    ours, exact = student.clone().requires_grad_(), student.double().requires_grad_()
    found = alpha_beta(ours, teacher, alpha, beta)
    expected = reference.alpha_beta(exact, teacher.double(), alpha, beta)
    assert found.dtype == torch.float32
    assert off(found.sum(), expected.sum()) < 1e-5
    found.sum().backward()
    expected.sum().backward()
    assert off(ours.grad, exact.grad) < 1e-5


@EACH
def test_the_teachers_gradient_is_that_of_the_formula_too(alpha, beta):
    student, teacher = pair(8, 10, 1.0)
    ours, exact = teacher.clone().requires_grad_(), teacher.double().requires_grad_()
    alpha_beta(student, ours, alpha, beta).sum().backward()
    reference.alpha_beta(student.double(), exact, alpha, beta).sum().backward()
    assert off(ours.grad, exact.grad) < 1e-5


@pytest.mark.parametrize("temperature", [0.5, 2.0, 8.0])
@pytest.mark.parametrize(("alpha", "beta"), [(0.2, 0.7), (1.0, 0.0)])
def test_values_carry_the_square_of_the_temperature(alpha, beta, temperature):
    student, teacher = pair(16, 10, 1.0)
    found = alpha_beta(student, teacher, alpha, beta, temperature)
    assert off(found, reference.alpha_beta(student, teacher, alpha, beta, temperature)) < 1e-5


def test_its_ends_are_the_two_kl_divergences():
    student, teacher = pair(16, 10, 0.3)
    for (alpha, beta), kl in {(1, 0): functional.forward_kl, (0, 1): functional.reverse_kl}.items():
        assert torch.allclose(alpha_beta(student, teacher, alpha, beta), kl(student, teacher), rtol=1e-5)


@pytest.mark.parametrize(("alpha", "beta"), LIMITS)
def test_it_is_continuous_where_the_formula_has_a_pole(alpha, beta):
    student, teacher = pair(16, 10, 1.0)
    there = alpha_beta(student, teacher, alpha, beta)
    for step in (1e-6, -1e-6):
        assert torch.allclose(alpha_beta(student, teacher, alpha + step, beta + 2 * step), there, rtol=1e-4)


def test_bfloat16_autocast_changes_nothing():
    student, teacher = (one.bfloat16() for one in pair(16, 10, 0.045))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = alpha_beta(student, teacher)
    assert off(found.sum(), reference.alpha_beta(student, teacher, 0.2, 0.7).sum()) < 1e-5


@EACH
def test_equal_models_cost_nothing_and_extreme_logits_are_finite(alpha, beta):
    _, teacher = pair(4, 10, 1.0)
    student = teacher.clone().requires_grad_()
    value = alpha_beta(student, teacher, alpha, beta)
    value.sum().backward()
    assert value.abs().max() < 1e-12
    assert student.grad.abs().max() < 1e-7
    far = torch.tensor([[0.0, 30.0]], requires_grad=True)
    value = alpha_beta(far, torch.tensor([[0.0, -30.0]]), alpha, beta)
    assert value.isfinite().all()
    assert torch.autograd.grad(value.sum(), far)[0].isfinite().all()


def test_a_class_that_both_models_exclude_costs_nothing():
    student, teacher = pair(4, 10, 1.0)
    more = [torch.cat((one, torch.full((4, 3), -1e4)), dim=1) for one in (student, teacher)]
    assert torch.allclose(alpha_beta(*more), alpha_beta(student, teacher), rtol=1e-6)


def test_a_large_vocabulary_in_one_pass_has_the_gradient_of_whole_logits(monkeypatch):
    monkeypatch.setattr(one_pass, "CHUNK_ELEMENTS", 3 * 40)
    monkeypatch.setattr(linear_pass, "BLOCK_ELEMENTS", 2 * 40)
    torch.manual_seed(0)
    head, hidden, theirs = nn.Linear(8, 40), torch.randn(2, 7, 8, requires_grad=True), torch.randn(2, 7, 40)
    rows, objective = torch.rand(2, 7) > 0.3, build({"alpha_beta": {"alpha": 0.3, "beta": 0.6, "temperature": 2.0}})
    again = copy.deepcopy(head)
    teacher = Signals({"logits": Head(DenseLogits(theirs), rows)})
    share = {"alpha_beta": torch.tensor(0.4)}
    linear = objective(Signals({"logits": Head(LinearLogits(hidden, head), rows)}), teacher, {}, share)["alpha_beta"]
    whole = objective(Signals({"logits": Head(DenseLogits(again(hidden)), rows)}), teacher, {})["alpha_beta"]
    assert torch.allclose(linear.total, whole.total)
    (0.4 * linear.total).backward()
    to_hidden, hidden.grad = hidden.grad, None
    (0.4 * whole.total).backward()
    assert torch.allclose(to_hidden, hidden.grad, atol=1e-6)
    assert torch.allclose(head.weight.grad, again.weight.grad, atol=1e-6)


def test_only_what_joining_classes_lowers_may_be_told_of_a_few():
    student, teacher = pair(16, 10, 1.0)
    joined = [torch.cat((one[:, :4], one[:, 4:].logsumexp(-1, keepdim=True)), dim=1) for one in (student, teacher)]
    assert AlphaBeta(0.3, 0.7).few
    assert (alpha_beta(*joined, 0.3, 0.7) <= alpha_beta(student, teacher, 0.3, 0.7)).all()
    with pytest.raises(ValueError, match="AlphaBeta compares whole logits"):
        AlphaBeta(0.2, 0.7).check_few(1.0)
    assert (alpha_beta(*joined, 3.0, 1.0) > alpha_beta(student, teacher, 3.0, 1.0)).any()


@pytest.mark.parametrize(("alpha", "beta"), [(0.2, -0.3), (float("nan"), 0.0), (0.0, float("inf"))])
def test_what_weighs_the_least_likely_most_is_refused(alpha, beta):
    with pytest.raises(ValueError, match="at least 0 together"):
        AlphaBeta(alpha, beta)


def test_where_all_classes_weigh_alike_a_row_must_have_all():
    assert POINTER in AlphaBeta().accepts
    assert POINTER not in AlphaBeta(0.5, -0.5).accepts
