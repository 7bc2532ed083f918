"""Likely classes and the others."""

import pytest
import reference
import torch

from hf_distill.objectives import AdaptiveKL, TopKKL
from hf_distill.objectives.functional import forward_kl
from hf_distill.objectives.topk_kl import adaptive_kl, topk_kl


def both(found, expected, ours, exact):
    assert torch.allclose(found.double(), expected, rtol=1e-5, atol=1e-6)
    found.sum().backward()
    expected.sum().backward()
    assert torch.allclose(ours.grad.double(), exact.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("k", [1, 3])
def test_topk_equals_its_reference_in_value_and_gradient(k, temperature):
    student, teacher = torch.randn(6, 8), 2 * torch.randn(6, 8)
    ours, exact = student.clone().requires_grad_(), student.double().requires_grad_()
    both(
        topk_kl(ours, teacher, k, temperature), reference.topk_kl(exact, teacher.double(), k, temperature), ours, exact
    )


@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("mu", [0.2, 0.5, 0.95])
def test_adaptive_equals_the_paper_in_value_and_gradient(mu, temperature):
    student, teacher = torch.randn(6, 8), 2 * torch.randn(6, 8)
    ours, exact = student.clone().requires_grad_(), student.double().requires_grad_()
    expected = reference.adaptive_kl(exact, teacher.double(), mu, temperature)
    both(adaptive_kl(ours, teacher, mu, temperature), expected, ours, exact)


def test_more_classes_apart_never_cost_less_and_all_of_them_are_the_whole_divergence():
    student, teacher = torch.randn(6, 8), torch.randn(6, 8)
    values = torch.stack([topk_kl(student, teacher, k) for k in range(1, 10)])
    assert (values.diff(dim=0) >= -1e-6).all()
    assert torch.equal(values[-1], forward_kl(student, teacher))


@pytest.mark.parametrize("compare", [topk_kl, adaptive_kl])
def test_extreme_logits_and_equal_models_are_finite(compare):
    extreme = torch.tensor([[9e4, 0.0] + [-9e4] * 18, [0.0] * 20])
    student = extreme.clone().requires_grad_()
    same = compare(student, extreme)
    assert torch.allclose(same, torch.zeros(2), atol=1e-6)
    (same.sum() + compare(student, extreme.flip(0)).sum()).backward()
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("k", [0, -1, 2.5, True])
def test_a_number_of_classes_that_cannot_be_used_is_refused(k):
    with pytest.raises(ValueError, match="at least 1"):
        TopKKL(k)


@pytest.mark.parametrize("mu", [0.0, 1.0, -0.5])
def test_a_share_that_cannot_be_used_is_refused(mu):
    with pytest.raises(ValueError, match="strictly between 0 and 1"):
        AdaptiveKL(mu)
