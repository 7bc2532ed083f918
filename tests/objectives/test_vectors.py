"""One vector a sample: the formulas, widths that differ, which of several, what is refused."""

import pytest
import torch
from vectors import same_gradient

from hf_distill.models.facts import Facts
from hf_distill.objectives.vectors import VectorCosine, VectorMSE
from hf_distill.signals import Signals

EACH = pytest.mark.parametrize("cls", [VectorMSE, VectorCosine])


def drawn(width, seed=0, rows=4):
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


def built(cls, **options):
    torch.manual_seed(0)
    term = cls(**options)
    term.build(Facts(), Facts())
    return term


def compared(term, student, teacher):
    return term(*(Signals({}, vectors={"text": one}) for one in (student, teacher)), {})


def naive(cls, student, teacher):
    if cls is VectorMSE:
        return sum(((s - t) ** 2).sum() / len(t) for s, t in zip(student, teacher, strict=True))
    return sum(1 - s @ t / (s.norm() * t.norm()) for s, t in zip(student, teacher, strict=True))


@EACH
@pytest.mark.parametrize("widths", [None, (3, 6)])
def test_values_and_gradients_agree_with_float64(cls, widths):
    term, student, teacher = built(cls, widths=widths), drawn(3).requires_grad_(), drawn(6 if widths else 3, 1)
    total, count = compared(term, student, teacher)
    weights = list(term.parameters())
    ours = student.double() @ weights[0].double().T if widths else student.double()
    wanted = naive(cls, ours, teacher.double())
    assert count == 4
    assert total.item() == pytest.approx(wanted.item(), rel=1e-5)
    assert same_gradient(total, wanted, [student, *weights])


@EACH
def test_narrow_vectors_are_compared_in_float32(cls):
    student, teacher = drawn(3).bfloat16(), drawn(6, 1).bfloat16()
    term = built(cls, widths=[3, 6])
    assert compared(term, student, teacher).total == compared(term, student.float(), teacher.float()).total
    assert compared(term, student, teacher).total.dtype == torch.float32


@EACH
def test_a_vector_of_nothing_has_a_finite_gradient(cls):
    student = torch.zeros(2, 3, requires_grad=True)
    total, count = compared(built(cls), student, drawn(3, 1, rows=2))
    total.backward()
    assert count == 2
    assert student.grad.isfinite().all()


@EACH
def test_several_vectors_are_added_up_and_one_is_named(cls):
    both = [Signals({}, vectors={"a": drawn(3, s), "b": drawn(5, s + 2)}) for s in (0, 1)]
    each = [built(cls, of=name)(*both, {}).total.item() for name in "ab"]
    total, count = built(cls)(*both, {})
    assert total.item() == pytest.approx(sum(each), rel=1e-6)
    assert each[0] != each[1]
    assert count == 4


@EACH
def test_widths_that_differ_are_refused_unless_they_are_given(cls):
    told = r"compare the vectors text, of shape \[4, 3\], with the teacher's, of shape \[4, 6\]"
    with pytest.raises(ValueError, match=f"{cls.name} was asked to {told}: give widths"):
        compared(built(cls), drawn(3), drawn(6))
    with pytest.raises(ValueError, match=rf"{told}, by widths=\(3, 5\): give widths"):
        compared(built(cls, widths=(3, 5)), drawn(3), drawn(6))
    with pytest.raises(ValueError, match=r"with the teacher's, of shape None"):
        built(cls)(Signals({}, vectors={"text": drawn(3)}), Signals({}), {})
    with pytest.raises(ValueError, match=rf"widths=\[4\] was given to {cls.name}: give two numbers"):
        cls(widths=[4])
