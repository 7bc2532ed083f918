"""Attention maps: the formulas, what dropout took away, heads that differ in number."""

import pytest
import reference
import torch

from hf_distill.models.facts import Facts
from hf_distill.objectives.attention import AttentionKL, AttentionMSE
from hf_distill.signals import Signals

TERMS = {"mse": AttentionMSE, "kl": AttentionKL}
MASK = torch.tensor([[False, True, True, True], [True, True, False, False]])


def maps(heads, seed=0, mask=MASK):
    scores = torch.randn(2, heads, 4, 4, generator=torch.Generator().manual_seed(seed))
    return scores.masked_fill(~mask[:, None, None, :], -1e4).softmax(-1)


def compared(kind, student, teacher, mask=MASK, **options):
    term = TERMS[kind](**{"layers": {1: 1}, **options})
    term.build(Facts(num_layers=1), Facts(num_layers=1))
    return term(*(Signals({}, attention=(one,), mask=mask) for one in (student, teacher)), {})


@pytest.mark.parametrize("kind", TERMS)
@pytest.mark.parametrize(("heads", "joined"), [
    (2, lambda t: t), (6, lambda t: torch.stack([t[:, :3].mean(1), t[:, 3:].mean(1)], 1)),
])  # fmt: skip
def test_values_and_gradients_agree_with_float64(kind, heads, joined):
    student, teacher = maps(2).requires_grad_(), maps(heads, seed=1)
    total, count = compared(kind, student, teacher)
    wanted = reference.attention(student.double(), joined(teacher.double()), MASK, kind)
    assert count == 5
    assert total.item() == pytest.approx(wanted.item(), rel=1e-5)
    ours, theirs = (torch.autograd.grad(value, student)[0] for value in (total, wanted))
    assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", TERMS)
@pytest.mark.parametrize("options", [{}, {"heads": "mean"}])
def test_head_counts_that_do_not_fit_are_averaged(kind, options):
    student, teacher = maps(2), maps(3 if not options else 2, seed=1)
    means = [one.double().mean(1, keepdim=True) for one in (student, teacher)]
    wanted = reference.attention(*means, MASK, kind)
    assert compared(kind, student, teacher, **options).total.item() == pytest.approx(wanted.item(), rel=1e-5)


@pytest.mark.parametrize("kind", TERMS)
def test_what_dropout_took_away_is_no_difference(kind):
    """A student equal to its teacher costs nothing, whatever its dropout leaves out: the gradient stays finite."""
    teacher = maps(2)
    dropped = torch.nn.functional.dropout(teacher, 0.5).requires_grad_()
    total, _ = compared(kind, dropped, teacher)
    total.backward()
    assert (dropped == 0).any(-1).any()
    assert total.abs() < 1e-6
    assert dropped.grad.isfinite().all()
    nothing = torch.zeros(2, 2, 4, 4, requires_grad=True)  # all keys of a query gone
    total, _ = compared(kind, nothing, teacher)
    total.backward()
    assert total == 0
    assert nothing.grad.isfinite().all()


@pytest.mark.parametrize("kind", TERMS)
def test_padding_that_is_not_a_number_does_not_matter(kind):
    student, teacher = maps(2), maps(2, seed=1)
    clean = compared(kind, student, teacher).total
    for one in (student, teacher):
        one.masked_fill_(~MASK[:, None, :, None], float("nan"))
    assert compared(kind, student.requires_grad_(), teacher).total == clean
    compared(kind, student, teacher).total.backward()
    assert (student.grad.nan_to_num(9.0)[~MASK[:, None, :, None].expand_as(student)] == 0).all()


def test_the_key_that_only_the_teacher_leaves_out_costs_what_the_student_gives_it():
    student, teacher = torch.full((1, 1, 2, 2), 0.5), torch.eye(2).expand(1, 1, 2, 2)
    mask = torch.ones(1, 2).bool()
    assert compared("kl", student, teacher, mask).total.item() == pytest.approx(
        2 * torch.log(torch.tensor(2.0)).item()
    )


def test_bfloat16_maps_are_compared_in_float32():
    student, teacher = maps(2).bfloat16(), maps(2, seed=1).bfloat16()
    wanted = reference.attention(student.double(), teacher.double(), MASK, "kl")
    assert compared("kl", student, teacher).total.item() == pytest.approx(wanted.item(), rel=1e-5)


def test_layers_begin_at_one():
    term = AttentionMSE()
    term.build(Facts(num_layers=2), Facts(num_layers=4))
    assert term.pairs == [(1, 2), (2, 4)]
    with pytest.raises(
        ValueError, match="layer 0 of the student s was asked for by attention_mse, it has the layers 1"
    ):
        AttentionMSE({0: 1}).build(Facts(name="s", num_layers=2), Facts(num_layers=4))


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match="heads='all' was given to attention_kl: use auto or mean"):
        AttentionKL(heads="all")
    with pytest.raises(
        ValueError, match=r"the student shows attention maps of .*4, 4.* tokens, the teacher of .*3, 3"
    ):
        compared("kl", maps(2), torch.ones(2, 2, 3, 3))
    term = AttentionKL({1: 1})
    term.build(Facts(num_layers=1), Facts(num_layers=1))
    with pytest.raises(ValueError, match="the attention maps of layer 1 of the teacher were asked for, it showed 0"):
        term(Signals({}, attention=(maps(2),)), Signals({}), {})
