"""Rank, not probability: standardised logits and Pearson's correlation."""

import pytest
import reference
import torch

from hf_distill.objectives import DIST, StandardisedKL
from hf_distill.objectives.correlation import pearson, standardised
from hf_distill.signals import DenseLogits, Head, Signals


def shown(logits, rows=None):
    rows = torch.ones(logits.shape[:-1], dtype=torch.bool) if rows is None else rows
    return Signals({"logits": Head(DenseLogits(logits), rows)})


@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize(("beta", "gamma"), [(1.0, 1.0), (2.0, 0.0), (0.0, 0.5)])
def test_dist_equals_the_paper_in_value_and_gradient(beta, gamma, temperature):
    student, teacher = torch.randn(7, 4), 2 * torch.randn(7, 4)
    ours, exact = student.clone().requires_grad_(), student.double().requires_grad_()
    found = DIST(beta, gamma, temperature)(shown(ours), shown(teacher), {})
    expected = reference.dist(exact, teacher.double(), beta, gamma, temperature)
    assert torch.allclose((found.total / found.count).double(), expected, rtol=1e-5)
    (found.total / found.count).backward()
    expected.backward()
    assert torch.allclose(ours.grad.double(), exact.grad, rtol=1e-4, atol=1e-7)


def test_standardised_kl_equals_the_paper_in_value_and_gradient():
    student, teacher = torch.randn(7, 4), 2 * torch.randn(7, 4)
    ours, exact = student.clone().requires_grad_(), student.double().requires_grad_()
    found = StandardisedKL(2.0).divergence(ours, teacher)
    expected = reference.standardised_kl(exact, teacher.double(), 2.0)
    assert torch.allclose(found.double(), expected, rtol=1e-4, atol=1e-6)
    found.sum().backward()
    expected.sum().backward()
    assert torch.allclose(ours.grad.double(), exact.grad, rtol=1e-4, atol=1e-6)


def test_scale_and_shift_of_the_logits_do_not_matter_where_they_are_standardised():
    student, teacher = torch.randn(5, 4), torch.randn(5, 4)
    one = StandardisedKL().divergence(student, teacher)
    other = StandardisedKL().divergence(7.0 * student + 3.0, 0.1 * teacher - 5.0)
    assert torch.allclose(one, other, rtol=1e-4)


@pytest.mark.parametrize("term", [DIST(), StandardisedKL()], ids=lambda term: type(term).__name__)
@pytest.mark.parametrize("case", ["flat", "extreme", "single", "same"])
def test_rows_with_nothing_to_correlate_are_finite_and_move_nothing_wild(term, case):
    logits = {
        "flat": torch.zeros(4, 3),
        "extreme": torch.tensor([[9e4, 0.0, -9e4], [0.0, 9e4, 1.0], [-9e4, 0.0, 0.0], [1.0, 2.0, 3.0]]),
        "single": torch.randn(1, 3),
        "same": torch.randn(1, 3).expand(4, 3),
    }[case]
    student, teacher = logits.clone().requires_grad_(), torch.randn(logits.shape)
    total = term(shown(student), shown(teacher), {}).total
    total.backward()
    assert total.isfinite()
    assert student.grad.isfinite().all()


def test_rows_that_do_not_count_are_not_seen():
    student, teacher, rows = torch.randn(4, 3), torch.randn(4, 3), torch.tensor([True, False, True, True])
    apart = DIST()(shown(student[rows]), shown(teacher[rows]), {})
    student[1] = float("nan")
    student.requires_grad_()
    found = DIST()(shown(student, rows), shown(teacher, rows), {})
    found.total.backward()
    assert torch.allclose(found.total, apart.total)
    assert found.count == apart.count == 3
    assert (student.grad[1] == 0).all()


def test_where_no_row_counts_the_total_is_a_zero_with_a_graph():
    student, nobody = torch.randn(4, 3, requires_grad=True), torch.zeros(4, dtype=torch.bool)
    found = DIST()(shown(student, nobody), shown(torch.randn(4, 3), nobody), {})
    found.total.backward()
    assert (found.total.item(), found.count.item()) == (0.0, 0)


def test_a_row_is_scaled_to_mean_zero_and_deviation_one():
    rows = standardised(7 + 3 * torch.randn(3, 50))
    assert torch.allclose(rows.mean(-1), torch.zeros(3), atol=1e-5)
    assert torch.allclose(rows.std(-1, correction=0), torch.ones(3), atol=1e-5)


def test_correlation_is_that_of_every_statistics_book():
    one, other = torch.randn(3, 20), torch.randn(3, 20)
    expected = [torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(one, other, strict=True)]
    assert torch.allclose(pearson(one, other), torch.stack(expected), atol=1e-6)


@pytest.mark.parametrize(("beta", "gamma"), [(-1.0, 1.0), (0.0, 0.0), (1.0, float("inf"))])
def test_weights_that_cannot_be_used_are_refused(beta, gamma):
    with pytest.raises(ValueError, match="give numbers of at least 0, not both 0"):
        DIST(beta, gamma)


def correlated(one, other):
    """Pearson's r of the rows in float64, all at once: ``reference.dist`` takes minutes for so many columns."""
    one, other = (side - side.mean(-1, keepdim=True) for side in (one, other))
    return (one * other).sum(-1) / (one.norm(dim=-1) * other.norm(dim=-1))


@pytest.mark.parametrize(("classes", "temperature", "spread"), [(151_936, 4.0, 2.0), (50_257, 1.0, 0.1)])
def test_dist_equals_the_paper_on_large_vocabularies(classes, temperature, spread):
    """A probability of 150,000 classes differs from another by less than 1e-6: that is no flat row, and no column."""
    student, teacher = spread * torch.randn(3, classes), 2 * torch.randn(3, classes)
    for beta, gamma in [(1.0, 0.0), (0.0, 1.0)]:
        ours, exact = student.clone().requires_grad_(), student.double().requires_grad_()
        found = DIST(beta, gamma, temperature)(shown(ours), shown(teacher), {})
        q, p = reference.probabilities(exact, temperature), reference.probabilities(teacher, temperature)
        expected = temperature**2 * (1 - (correlated(p, q) if beta else correlated(p.T, q.T))).mean()
        (found.total / found.count).backward()
        expected.backward()
        assert exact.grad.norm() > 1e-3
        assert torch.allclose((found.total / found.count).double(), expected, rtol=1e-4)
        assert (ours.grad.double() - exact.grad).norm() < 1e-3 * exact.grad.norm()


def test_the_deviation_of_standardised_logits_is_that_of_the_paper():
    """Divided by the number of classes: two classes become -1 and 1, where a sample's deviation gives 0.71."""
    assert torch.allclose(standardised(torch.tensor([[1.0, 5.0]])), torch.tensor([[-1.0, 1.0]]))
    assert torch.allclose(standardised(torch.tensor([[0.0, 3.0, 6.0]])), 1.5**0.5 * torch.tensor([[-1.0, 0.0, 1.0]]))
