"""Alignment of geometries: the definition with kernels, what it does not see, states without any geometry."""

import pytest
import reference
import torch

from hf_distill.models.facts import Facts
from hf_distill.objectives.cka import CKA
from hf_distill.signals import Signals

MASK = torch.tensor([[True, True, True, False], [True, True, False, False]])


def states(width, seed=0):
    return torch.randn(2, 4, width, generator=torch.Generator().manual_seed(seed))


def aligned(student, teacher, mask=MASK):
    term = CKA({1: 1})
    widths = [Facts(hidden_size=one.shape[-1], num_layers=1) for one in (student, teacher)]
    term.build(*widths)
    assert not list(term.parameters())
    return term(*(Signals({}, hidden=(one, one), mask=mask) for one in (student, teacher)), {})


@pytest.mark.parametrize("width", [3, 6])
def test_values_and_gradients_agree_with_kernels_in_float64(width):
    student, teacher = states(3).requires_grad_(), states(width, seed=1)
    total, count = aligned(student, teacher)
    wanted = reference.cka(student.double(), teacher.double(), MASK)
    assert count == 5
    assert total.item() == pytest.approx(wanted.item(), rel=1e-5)
    ours, theirs = (torch.autograd.grad(value, student)[0] for value in (total, wanted))
    assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def test_turning_scaling_and_moving_are_not_seen():
    student = states(4)
    turn = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(2))).Q
    assert abs(aligned(student, 1e4 * student @ turn + 3.0).total) < 1e-4


def test_padding_that_is_not_a_number_does_not_matter():
    student, teacher = states(4), states(6, seed=1)
    clean = aligned(student, teacher).total
    student[~MASK] = teacher[~MASK] = float("nan")
    student.requires_grad_()
    total, _ = aligned(student, teacher)
    total.backward()
    assert total == clean
    assert student.grad.isfinite().all()
    assert (student.grad[~MASK] == 0).all()


@pytest.mark.parametrize("mask", [torch.zeros(2, 4).bool(), torch.eye(2, 4).bool()[:1].expand(2, 4) & False, None])
def test_states_without_geometry_move_nothing(mask):
    """No token, or every token the same."""
    student = torch.ones(2, 4, 3, requires_grad=True)
    total, count = aligned(student, states(6), mask)
    total.backward()
    assert total == count
    assert (student.grad == 0).all()


def test_bfloat16_states_are_compared_in_float32():
    student, teacher = states(4).bfloat16(), states(6, seed=1).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        total, _ = aligned(student, teacher)
    assert total.item() == pytest.approx(reference.cka(student.double(), teacher.double(), MASK).item(), rel=1e-5)
