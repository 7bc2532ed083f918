"""The target class and all others, weighed apart."""

import pytest
import reference
import torch

from hf_distill.objectives import DKD, ForwardKL
from hf_distill.objectives.chunked import one_pass
from hf_distill.objectives.decoupled import decoupled_kl
from hf_distill.signals import DenseLogits, Head, Signals


def shown(logits, labels=None, rows=None):
    rows = torch.ones(logits.shape[:-1], dtype=torch.bool) if rows is None else rows
    return Signals({"logits": Head(DenseLogits(logits), rows, labels)})


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 8.0), (1.0, 0.0), (0.0, 1.0)])
def test_it_equals_the_paper_in_value_and_gradient(alpha, beta, temperature):
    student, teacher, target = torch.randn(6, 5), 3 * torch.randn(6, 5), torch.randint(5, (6,))
    ours, exact = student.clone().requires_grad_(), student.double().requires_grad_()
    found = decoupled_kl(ours, teacher, target, alpha, beta, temperature)
    expected = reference.dkd(exact, teacher.double(), target, alpha, beta, temperature)
    assert torch.allclose(found.double(), expected, rtol=1e-5, atol=1e-6)
    found.sum().backward()
    expected.sum().backward()
    assert torch.allclose(ours.grad.double(), exact.grad, rtol=1e-4, atol=1e-6)


def test_weighed_by_the_teachers_doubt_it_is_the_whole_divergence():
    student, teacher, target = torch.randn(1, 5), torch.randn(1, 5), torch.tensor([2])
    doubt = 1 - teacher.softmax(-1)[0, 2].item()
    found = decoupled_kl(student, teacher, target, alpha=1.0, beta=doubt)
    assert torch.allclose(found, ForwardKL().divergence(student, teacher), rtol=1e-5)


def test_a_teacher_that_is_sure_of_the_target_still_speaks_of_the_others():
    """1 - p(target) is 0 in float32 here, as in the paper's own code."""
    student = torch.zeros(1, 4, requires_grad=True)
    found = decoupled_kl(student, torch.tensor([[200.0, 3.0, 2.0, 1.0]]), torch.tensor([0]), alpha=0.0, beta=1.0)
    others = reference.forward_kl(torch.zeros(1, 3), torch.tensor([[3.0, 2.0, 1.0]]))
    assert torch.allclose(found.double(), others, rtol=1e-5)
    found.sum().backward()
    assert student.grad.isfinite().all()


def test_a_row_without_a_label_takes_the_teachers_first_choice():
    student, teacher = torch.randn(3, 4), torch.randn(3, 4)
    labels = torch.tensor([1, -100, 0])
    target = torch.stack((labels[0], teacher[1].argmax(), labels[2]))
    term = DKD(beta=2.0, temperature=2.0)
    expected = decoupled_kl(student, teacher, target, 1.0, 2.0, 2.0).sum()
    assert torch.allclose(term(shown(student, labels), shown(teacher), {}).total, expected)
    unknown = decoupled_kl(student, teacher, teacher.argmax(-1), 1.0, 2.0, 2.0).sum()
    assert torch.allclose(term(shown(student), shown(teacher), {}).total, unknown)


def test_labels_follow_their_rows_through_chunks(monkeypatch):

    student, teacher, labels = torch.randn(2, 5, 3), torch.randn(2, 5, 3), torch.randint(3, (2, 5))
    rows = torch.rand(2, 5) > 0.4
    monkeypatch.setattr(one_pass, "CHUNK_ELEMENTS", 6)  # two rows
    found = DKD()(shown(student, labels, rows), shown(teacher, None, rows), {})
    assert torch.allclose(found.total, decoupled_kl(student[rows], teacher[rows], labels[rows]).sum())
    assert found.count == rows.sum()


@pytest.mark.parametrize(("alpha", "beta"), [(-1.0, 1.0), (0.0, 0.0), (float("nan"), 1.0)])
def test_weights_that_cannot_be_used_are_refused(alpha, beta):
    with pytest.raises(ValueError, match="give numbers of at least 0, not both 0"):
        DKD(alpha, beta)
