"""Every divergence against its float64 reference: values, gradients, small differences, bfloat16 autocast."""

import inspect

import pytest
import reference
import torch

from hf_distill.objectives import functional

TEMPERED = ["forward_kl", "reverse_kl", "jsd", "skew_forward_kl", "skew_reverse_kl"]
ALL = [*TEMPERED, "logit_mse", "top1_cross_entropy"]


def pair(n, classes, spread, seed=0):
    generator = torch.Generator().manual_seed(seed)
    teacher = 2 * torch.randn(n, classes, generator=generator)
    return teacher + spread * torch.randn(n, classes, generator=generator), teacher


def worst(found, expected):
    return float(((found.double() - expected) / expected.abs().clamp(min=1e-30)).abs().max())


@pytest.mark.parametrize("classes", [2, 10, 4000])
@pytest.mark.parametrize("spread", [3.0, 0.3, 0.045])
@pytest.mark.parametrize("name", ALL)
def test_values_agree_with_float64(name, spread, classes):
    student, teacher = pair(16, classes, spread)
    found = getattr(functional, name)(student, teacher)
    assert found.dtype == torch.float32
    assert worst(found.sum(), getattr(reference, name)(student, teacher).sum()) < 1e-5


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 8.0])
@pytest.mark.parametrize("name", TEMPERED)
def test_values_carry_the_square_of_the_temperature(name, temperature):
    student, teacher = pair(16, 10, 1.0)
    found = getattr(functional, name)(student, teacher, temperature=temperature)
    assert worst(found, getattr(reference, name)(student, teacher, temperature=temperature)) < 1e-5


@pytest.mark.parametrize("name", ALL)
def test_gradients_agree_with_float64(name):
    student, teacher = pair(8, 10, 1.0)
    ours, theirs = student.clone().requires_grad_(), student.double().requires_grad_()
    getattr(functional, name)(ours, teacher).sum().backward()
    getattr(reference, name)(theirs, teacher.double()).sum().backward()
    assert float((ours.grad - theirs.grad).abs().max() / theirs.grad.abs().max()) < 1e-5


@pytest.mark.parametrize("name", TEMPERED)
def test_gradients_keep_their_size_when_the_temperature_changes(name):
    sizes = []
    for temperature in (16.0, 32.0):
        student, teacher = pair(8, 10, 1.0)
        student.requires_grad_()
        getattr(functional, name)(student, teacher, temperature=temperature).sum().backward()
        sizes.append(float(student.grad.norm()))
    assert sizes[1] / sizes[0] == pytest.approx(1.0, abs=0.1)  # without T**2 it would be a quarter


@pytest.mark.parametrize("name", ALL)
def test_bfloat16_autocast_changes_nothing(name):
    student, teacher = pair(16, 10, 0.045)
    student, teacher = student.bfloat16(), teacher.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = getattr(functional, name)(student, teacher)
    assert found.dtype == torch.float32
    assert worst(found.sum(), getattr(reference, name)(student, teacher).sum()) < 1e-5


@pytest.mark.parametrize("name", ["forward_kl", "jsd", "skew_forward_kl", "logit_mse"])
def test_equal_models_cost_nothing_and_pull_nowhere(name):
    _, teacher = pair(4, 10, 1.0)
    student = teacher.clone().requires_grad_()
    value = getattr(functional, name)(student, teacher)
    value.sum().backward()
    assert value.abs().max() < 1e-12
    assert student.grad.abs().max() < 1e-7


def test_a_class_that_one_model_excludes_stays_finite():
    student = torch.tensor([[0.0, 200.0]], requires_grad=True)
    teacher = torch.tensor([[0.0, -200.0]])
    for name in TEMPERED:
        value = getattr(functional, name)(student, teacher)
        (gradient,) = torch.autograd.grad(value.sum(), student)
        expected = {"forward_kl": 200.0, "reverse_kl": 200.0}.get(name)
        assert value.isfinite().all(), name
        assert gradient.isfinite().all(), name
        if expected:
            assert value.item() == pytest.approx(expected, rel=1e-6), name


def test_a_constant_added_to_all_logits_changes_nothing():
    student, teacher = pair(8, 10, 1.0)
    for name in TEMPERED:
        function = getattr(functional, name)
        assert torch.allclose(function(student + 3, teacher - 5), function(student, teacher), atol=1e-5), name


def test_the_skewed_divergences_are_bounded():
    student, teacher = pair(64, 10, 30.0)
    for name in ("skew_forward_kl", "skew_reverse_kl"):
        values = getattr(functional, name)(student, teacher, skew=0.1)
        assert values.max() <= -torch.tensor(0.1).log() + 1e-5, name
    assert functional.jsd(student, teacher).max() <= torch.tensor(2.0).log() + 1e-5


def test_every_public_function_shows_an_example():
    public = [f for name, f in vars(functional).items() if inspect.isfunction(f) and not name.startswith("_")]
    assert len(public) == len(ALL) + 1  # kl_of_log_probs is what they are made of
    assert all(">>>" in f.__doc__ for f in public)


def test_a_small_divergence_is_right_where_the_textbooks_sum_is_not():
    student, teacher = pair(64, 10, 0.045)
    p, q = teacher.log_softmax(-1), student.log_softmax(-1)
    expected = reference.forward_kl(student, teacher)
    textbook = torch.nn.functional.kl_div(q, p, log_target=True, reduction="none").sum(-1)
    assert expected.median() < 2e-3
    assert worst(textbook, expected) > 1e-4
    assert worst(functional.forward_kl(student, teacher), expected) < 2e-5
