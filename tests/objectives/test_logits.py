"""The chunk loop: only rows that count, any chunk size, a zero with a graph."""

import logging

import pytest
import torch

from hf_distill.cache.sampled import restore, sample
from hf_distill.objectives import (
    TERMS,
    alpha_beta,
    build,
    correlation,
    decoupled,
    functional,
    logits,
    topk_functional,
    topk_kl,
    uld,
)
from hf_distill.objectives.chunked import one_pass
from hf_distill.signals import DenseLogits, Head, Signals

FUNCTIONS = {
    "forward_kl": functional.forward_kl,
    "reverse_kl": functional.reverse_kl,
    "jsd": functional.jsd,
    "skew_kl": functional.skew_forward_kl,
    "skew_reverse_kl": functional.skew_reverse_kl,
    "alpha_beta": alpha_beta.alpha_beta,
    "logit_mse": functional.logit_mse,
    "top1_cross_entropy": functional.top1_cross_entropy,
    "dkd": lambda student, teacher: decoupled.decoupled_kl(student, teacher, teacher.argmax(-1)),
    "standardised_kl": correlation.StandardisedKL().divergence,
    "topk_kl": topk_kl.topk_kl,
    "adaptive_kl": topk_kl.adaptive_kl,
    "uld": uld.ULD().divergence,
}
TOGETHER = {"dist"}
"""Terms whose rows see each other: tests/objectives/test_correlation.py."""
WRITERS = {"distillm2"}
"""Terms that ask who wrote a row: tests/objectives/test_distillm2.py."""
FRAMES = {"guided_ctc"}
"""Terms on frames with a blank: tests/objectives/test_guided_ctc.py."""


def shown(tensor, rows=None):
    rows = torch.ones(tensor.shape[:-1], dtype=torch.bool) if rows is None else rows
    return Signals({"logits": Head(DenseLogits(tensor), rows)})


def test_every_name_has_its_function():
    found = {n for n, term in TERMS.items() if issubclass(term, logits.LogitTerm)}
    assert found == FUNCTIONS.keys() | TOGETHER | WRITERS | FRAMES


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
    monkeypatch.setattr(one_pass, "CHUNK_ELEMENTS", 8)  # two rows
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
    objective.set_temperature(3.0)
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


# ---- A teacher that keeps a few ids ----

BOUNDED = ["reverse_kl", "jsd", "skew_kl", "skew_reverse_kl"]


def term_of(name, temperature=1.0):
    objective = build(name)
    objective.set_temperature(temperature)
    return objective.terms[name]


def few_shown(tensor, rows=None, temperature=1.0, head=6, draws=4):
    """What is kept of a dense teacher [..., V]."""
    columns = sample(tensor.flatten(0, -2), temperature, head, draws, seed=5)
    columns = {name: value.view(*tensor.shape[:-1], *value.shape[1:]) for name, value in columns.items()}
    rows = torch.ones(tensor.shape[:-1], dtype=torch.bool) if rows is None else rows
    return Signals({"logits": Head(restore(columns, temperature, tensor.shape[-1]), rows)})


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("name", [*BOUNDED, "forward_kl"])
def test_few_ids_are_compared_by_joining_or_by_draws(name, temperature):
    student, teacher, rows = torch.randn(5, 7, 30), torch.randn(5, 7, 30), torch.rand(5, 7) > 0.5
    shown_few = few_shown(teacher, rows, temperature)
    found = term_of(name, temperature)(shown(student, rows), shown_few, {})
    kept = shown_few.heads["logits"].logits.select(rows)
    if name == "forward_kl":
        expected = topk_functional.sampled_forward_kl(
            student[rows], kept.ids, kept.log_p, kept.tail_ids, kept.tail, kept.entropy, temperature
        )
    else:
        joined = topk_functional.coarsened(student[rows], kept.ids, kept.log_p, kept.tail, temperature)
        expected = FUNCTIONS[name](*joined, temperature=temperature)
    assert torch.allclose(found.total, expected.sum())
    assert found.count == rows.sum()


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_the_first_choice_is_the_highest_of_few_ids_at_any_temperature(temperature):
    student, teacher = torch.randn(20, 30), 3 * torch.randn(20, 30)
    found = term_of("top1_cross_entropy")(shown(student), few_shown(teacher, temperature=temperature), {})
    assert torch.allclose(found.total, functional.top1_cross_entropy(student, teacher).sum())


@pytest.mark.parametrize("name", [*BOUNDED, "forward_kl", "top1_cross_entropy"])
def test_few_ids_chunk_by_chunk_and_without_rows(name, monkeypatch):
    student, teacher = torch.randn(9, 30, requires_grad=True), few_shown(torch.randn(9, 30))
    whole = term_of(name)(shown(student), teacher, {})
    monkeypatch.setattr(one_pass, "CHUNK_ELEMENTS", 60)  # two rows
    assert torch.allclose(term_of(name)(shown(student), teacher, {}).total, whole.total)
    nobody = torch.zeros(9, dtype=torch.bool)
    found = term_of(name)(shown(student, nobody), teacher, {})
    found.total.backward()  # would raise without a graph
    assert (found.total.item(), found.count.item()) == (0.0, 0)


def test_a_lower_bound_is_announced_once_for_each_term(caplog):
    student, teacher = shown(torch.randn(4, 30)), few_shown(torch.randn(4, 30))
    with caplog.at_level(logging.WARNING, logger="hf_distill"):
        for name in ("forward_kl", "top1_cross_entropy"):
            term_of(name)(student, teacher, {})
        assert not caplog.records
        terms = [term_of("reverse_kl"), term_of("jsd"), term_of("forward_kl")]
        for _ in range(3):
            for term in terms:
                term(student, few_shown(torch.randn(4, 30), draws=0), {})
    names = [record.getMessage().split()[0] for record in caplog.records]
    assert names == ["ReverseKL", "JSD", "ForwardKL"]  # the last because nothing was drawn
    assert "6 classes of a teacher that has 30" in caplog.records[0].getMessage()
    assert "lower bound" in caplog.records[0].getMessage()


@pytest.mark.parametrize("name", [*BOUNDED, "forward_kl"])
def test_few_ids_of_another_temperature_are_refused(name):
    with pytest.raises(ValueError, match=r"asked for temperature 3, the teacher's few ids were kept at 2 .*anew\."):
        term_of(name, 3.0)(shown(torch.randn(4, 30)), few_shown(torch.randn(4, 30), temperature=2.0), {})


def test_a_term_without_a_temperature_reads_few_ids_at_1():
    class TotalVariation(logits.LogitTerm):
        def divergence(self, student, teacher):
            return 0.5 * (student.softmax(-1) - teacher.softmax(-1)).abs().sum(-1)

    student, teacher = torch.randn(8, 30), torch.randn(8, 30)
    bound = TotalVariation()(shown(student), few_shown(teacher), {}).total
    assert 0 < bound < TotalVariation()(shown(student), shown(teacher), {}).total
    with pytest.raises(ValueError, match="TotalVariation was asked for temperature 1"):
        TotalVariation()(shown(student), few_shown(teacher, temperature=2.0), {})


def test_raw_outputs_are_not_in_few_ids():
    with pytest.raises(ValueError, match="LogitMSE compares whole logits, of which the teacher keeps a few ids"):
        term_of("logit_mse")(shown(torch.randn(4, 30)), few_shown(torch.randn(4, 30)), {})
