"""The chunk loop: only rows that count, any chunk size, a zero with a graph."""

import pytest
import torch

from hf_distill.objectives import TERMS, build, functional, logits
from hf_distill.signals import DenseLogits, Head, Signals

FUNCTIONS = {
    "forward_kl": functional.forward_kl,
    "reverse_kl": functional.reverse_kl,
    "jsd": functional.jsd,
    "skew_kl": functional.skew_forward_kl,
    "skew_reverse_kl": functional.skew_reverse_kl,
    "logit_mse": functional.logit_mse,
    "top1_cross_entropy": functional.top1_cross_entropy,
}


def shown(tensor, rows=None):
    rows = torch.ones(tensor.shape[:-1], dtype=torch.bool) if rows is None else rows
    return Signals({"logits": Head(DenseLogits(tensor), rows)})


def test_every_name_has_its_function():
    assert {n for n, term in TERMS.items() if issubclass(term, logits.LogitTerm)} == FUNCTIONS.keys()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_term_is_the_sum_of_its_function_over_the_rows(name):
    student, teacher = torch.randn(5, 7, 4), torch.randn(5, 7, 4)
    rows = torch.rand(5, 7) > 0.5
    found = build(name).terms[name](shown(student, rows), shown(teacher, rows), {})
    assert torch.allclose(found.total, FUNCTIONS[name](student[rows], teacher[rows]).sum())
    assert found.count == rows.sum()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_size_of_a_chunk_does_not_matter(name, monkeypatch):
    student, teacher = torch.randn(9, 4), torch.randn(9, 4)
    whole = build(name).terms[name](shown(student), shown(teacher), {})
    monkeypatch.setattr(logits, "CHUNK_ELEMENTS", 8)  # two rows
    chunked = build(name).terms[name](shown(student), shown(teacher), {})
    assert torch.allclose(whole.total, chunked.total)
    assert whole.count == chunked.count == 9


@pytest.mark.parametrize("name", FUNCTIONS)
def test_rows_that_do_not_count_have_no_gradient_even_if_they_are_nan(name):
    student, teacher = torch.randn(4, 3), torch.randn(4, 3)
    student[2], teacher[1] = float("nan"), float("inf")
    student.requires_grad_()
    rows = torch.tensor([True, False, False, True])
    found = build(name).terms[name](shown(student, rows), shown(teacher, rows), {})
    found.total.backward()
    assert found.total.isfinite()
    assert (student.grad[[1, 2]] == 0).all()
    assert (student.grad[[0, 3]] != 0).any()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_where_no_row_counts_the_total_is_a_zero_with_a_graph(name):
    student = torch.randn(4, 3, requires_grad=True)
    nobody = torch.zeros(4, dtype=torch.bool)
    found = build(name).terms[name](shown(student, nobody), shown(torch.randn(4, 3), nobody), {})
    found.total.backward()  # would raise without a graph
    assert (found.total.item(), found.count.item()) == (0.0, 0)
    assert (student.grad == 0).all()


def test_several_heads_are_added():
    head = Head(DenseLogits(torch.randn(3, 4)), torch.ones(3, dtype=torch.bool))
    other = Head(DenseLogits(torch.randn(3, 4)), torch.ones(3, dtype=torch.bool))
    found = build("forward_kl").terms["forward_kl"](
        Signals({"start": head, "end": head}), Signals({"start": other, "end": other}), {}
    )
    expected = 2 * functional.forward_kl(head.logits.tensor, other.logits.tensor).sum()
    assert torch.allclose(found.total, expected)
    assert found.count == 6


def test_a_term_follows_the_run_unless_it_has_its_own_temperature():
    objective = build({"forward_kl": 1.0, "hot": {"term": "forward_kl", "temperature": 8.0}})
    objective.follow(3.0)
    assert (objective.terms["forward_kl"].temperature, objective.terms["hot"].temperature) == (3.0, 8.0)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("inf"), float("nan")])
def test_a_temperature_that_cannot_be_used_is_refused(temperature):
    with pytest.raises(ValueError, match="give one greater than 0"):
        build({"forward_kl": {"temperature": temperature}})


@pytest.mark.parametrize(("name", "share"), [("jsd", "beta"), ("skew_kl", "skew"), ("skew_reverse_kl", "skew")])
@pytest.mark.parametrize("value", [0.0, 1.0, -0.5])
def test_a_share_at_the_ends_is_refused_and_the_way_out_named(name, share, value):
    with pytest.raises(ValueError, match=f"{share}={value}.*strictly between 0 and 1: use forward_kl"):
        build({name: {share: value}})
