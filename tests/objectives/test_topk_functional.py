"""Few ids: equal to float64 references, unbiased over many draws, a lower bound where classes are joined."""

import inspect

import pytest
import reference
import torch

from hf_distill.objectives import functional, topk_functional
from hf_distill.signals import ABSENT

DIVERGENCES = ["forward_kl", "reverse_kl", "jsd", "skew_forward_kl", "skew_reverse_kl"]


def case(n=6, classes=40, head=5, draws=4, temperature=1.0, spread=1.0):
    """A student, a teacher, and what is kept of the teacher, in float64."""
    teacher = 2 * torch.randn(n, classes)
    student = teacher + spread * torch.randn(n, classes)
    p = reference.probabilities(teacher, temperature)
    ids = p.topk(head).indices.sort().values
    others = p.scatter(1, ids, 0.0)
    kept = {
        "ids": ids,
        "p": p.gather(1, ids),
        "tail_ids": others.multinomial(draws, replacement=True) if draws else ids[:, :0],
        "tail": others.sum(1),
        "entropy": -(p * p.log()).sum(1),
    }
    return student, teacher, kept


def sampled(student, kept, temperature=1.0):
    single = {name: value.float() for name, value in kept.items() if value.is_floating_point()}
    return topk_functional.sampled_forward_kl(
        student, kept["ids"], single["p"].log(), kept["tail_ids"], single["tail"], single["entropy"], temperature
    )


def joined(student, kept, temperature=1.0):
    return topk_functional.coarsened(student, kept["ids"], kept["p"].log().float(), kept["tail"].float(), temperature)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
@pytest.mark.parametrize(("classes", "head", "draws"), [(40, 5, 4), (40, 1, 1), (3000, 16, 16)])
def test_sampled_agrees_with_float64(classes, head, draws, temperature):
    student, _, kept = case(classes=classes, head=head, draws=draws, temperature=temperature)
    ours, theirs = student.clone().requires_grad_(), student.double().requires_grad_()
    found = sampled(ours, kept, temperature)
    expected = reference.sampled_forward_kl(
        theirs, kept["ids"], kept["p"], kept["tail_ids"], kept["tail"], kept["entropy"], temperature
    )
    assert found.dtype == torch.float32
    assert torch.allclose(found.double(), expected, rtol=1e-5, atol=1e-5 * temperature**2)
    found.sum().backward()
    expected.sum().backward()
    assert float((ours.grad - theirs.grad).abs().max() / theirs.grad.abs().max()) < 1e-5


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_sampled_is_unbiased_in_value_and_gradient(temperature):
    """Many rows that are one row, each with draws of its own: their mean is the whole teacher's, within its error."""
    many = 40_000
    student, teacher, kept = case(n=1, classes=12, head=3, draws=2, temperature=temperature)
    others = reference.probabilities(teacher, temperature).scatter(1, kept["ids"], 0.0)
    draws = others.expand(many, -1).multinomial(2, replacement=True)
    kept = {name: value.expand(many, *value.shape[1:]) for name, value in kept.items()} | {"tail_ids": draws}
    each = student.expand(many, -1).clone().requires_grad_()
    values = sampled(each, kept, temperature)
    values.sum().backward()
    whole = student.double().requires_grad_()
    exact = reference.forward_kl(whole, teacher, temperature)
    exact.sum().backward()

    def errors(found, expected):  # in standard errors of the mean
        return (found.double().mean(0) - expected).abs() / (found.double().std(0) / many**0.5).clamp(min=1e-7)

    assert values.std() > 0.05  # it is a sample: single rows are off
    assert errors(values, exact).max() < 4
    assert errors(each.grad, whole.grad[0]).max() < 4


def test_sampled_without_draws_and_without_a_tail():
    student, teacher, kept = case(classes=5, head=5, draws=0)
    student.requires_grad_()
    found = sampled(student, kept)
    assert torch.allclose(found, functional.forward_kl(student, teacher), atol=1e-5)
    assert torch.autograd.grad(found.sum(), student)[0].isfinite().all()
    kept["tail_ids"] = torch.zeros(6, 3, dtype=torch.int64)  # draws of a tail that has no probability
    assert torch.allclose(sampled(student, kept), found, atol=1e-6)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("name", DIVERGENCES)
def test_joined_classes_agree_with_float64(name, temperature):
    student, teacher, kept = case(temperature=temperature)
    ours, theirs = student.clone().requires_grad_(), student.double().requires_grad_()
    found = getattr(functional, name)(*joined(ours, kept, temperature), temperature=temperature)
    both = (reference.joined(logits, kept["ids"], temperature) for logits in (theirs, teacher))
    expected = getattr(reference, name)(*both, temperature=temperature)
    assert torch.allclose(found.double(), expected, rtol=1e-4)
    found.sum().backward()
    expected.sum().backward()
    assert float((ours.grad - theirs.grad).abs().max() / theirs.grad.abs().max()) < 1e-4


@pytest.mark.parametrize("name", DIVERGENCES)
def test_joining_classes_gives_a_lower_bound(name):
    student, teacher, kept = case(n=500, spread=2.0)
    exact = getattr(functional, name)(student, teacher)
    found = getattr(functional, name)(*joined(student, kept))
    assert (found <= exact + 1e-5).all()
    assert found.mean() < 0.9 * exact.mean()  # and a real one
    _, _, everything = case(n=500, head=40, draws=0)
    everything["p"] = reference.probabilities(teacher).gather(1, everything["ids"])
    assert torch.allclose(getattr(functional, name)(*joined(student, everything)), exact, atol=1e-4)


def test_the_rest_is_right_where_the_head_holds_nearly_all():
    """1 - 1e-12 is 1 in float32; the rest has to be summed where it is, and so has its gradient."""
    student = torch.tensor([[30.0, 2.0, 1.0, 0.0]])
    teacher = torch.tensor([[3.0, 2.0, 1.0, 0.0]])
    ids, p = torch.tensor([[0]]), reference.probabilities(teacher)
    kept = {"ids": ids, "p": p[:, :1], "tail": p[:, 1:].sum(1)}
    assert torch.log_softmax(student, -1)[0, 0] == 0
    ours, theirs = student.clone().requires_grad_(), student.double().requires_grad_()
    found = functional.forward_kl(*joined(ours, kept))
    expected = reference.forward_kl(reference.joined(theirs, ids), reference.joined(teacher, ids))
    found.sum().backward()
    expected.sum().backward()
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    assert torch.allclose(ours.grad.double(), theirs.grad, rtol=1e-4)


@pytest.mark.parametrize("classes", [5, 12])
@pytest.mark.parametrize("name", DIVERGENCES)
def test_a_teacher_without_a_tail_is_finite(name, classes):
    student, _, kept = case(classes=classes, head=5, draws=0)
    kept["p"], kept["tail"] = kept["p"] / kept["p"].sum(1, keepdim=True), torch.zeros(6)
    student.requires_grad_()
    found = getattr(functional, name)(*joined(student, kept))
    found.sum().backward()
    assert found.isfinite().all()
    assert student.grad.isfinite().all()
    assert (student.grad != 0).any()


def test_every_public_function_shows_an_example():
    public = {
        n: f
        for n, f in vars(topk_functional).items()
        if inspect.isfunction(f) and f.__module__ == topk_functional.__name__
    }
    assert sorted(public) == ["coarsened", "sampled_forward_kl"]
    assert all(">>>" in f.__doc__ for f in public.values())


@pytest.mark.parametrize("classes", [40, 5])
@pytest.mark.parametrize("name", DIVERGENCES)
def test_a_row_that_keeps_fewer_ids_is_compared_as_by_itself(name, classes):
    """Of five classes a row may keep all: then there are no others."""
    student, _, kept = case(classes=classes, head=5 if classes > 5 else 4, draws=0)
    log_p = kept["p"].log().float()
    if classes == 5:
        every = torch.arange(5).expand(6, 5)
        ids = torch.cat((kept["ids"], (10 - kept["ids"].sum(1))[:, None]), 1)
        log_p = torch.cat((log_p, kept["tail"].log().float()[:, None]), 1)
        assert torch.equal(ids.sort(1).values, every)
    else:
        ids = kept["ids"]
    value, widths, student = getattr(functional, name), [5, 4, 1, 3, 2, 5], student.requires_grad_()
    padded, shorter = log_p.clone(), ids.clone()
    for row, width in enumerate(widths):
        padded[row, width:], shorter[row, width:] = ABSENT, ids[row, 0]
    tail = 1 - padded.exp().sum(1)
    together = value(*topk_functional.coarsened(student, shorter, padded, tail))
    alone = torch.cat([
        value(*topk_functional.coarsened(student[[row]], ids[[row], :width], log_p[[row], :width], tail[[row]]))
        for row, width in enumerate(widths)
    ])  # fmt: skip
    assert torch.allclose(together, alone, rtol=1e-5, atol=1e-7)
    (ours,) = torch.autograd.grad(together.sum(), student, retain_graph=True)
    (theirs,) = torch.autograd.grad(alone.sum(), student)
    assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-6)
    assert ours.isfinite().all()
