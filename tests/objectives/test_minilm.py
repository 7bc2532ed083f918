"""Relations of queries, keys and values: the formulas, any width and head count, padding."""

import pytest
import reference
import torch

from hf_distill.models.facts import Facts
from hf_distill.objectives.minilm import MiniLM, MiniLMv1
from hf_distill.signals import Signals

MASK = torch.tensor([[False, True, True, True], [True, True, False, False]])


def facts(width, layers=1, heads=2, name="m"):
    return Facts(name=name, hidden_size=width, num_layers=layers, num_heads=heads)


def qkv(width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(2, 4, width, generator=generator) for _ in range(3))


def compared(student, teacher, cls=MiniLM, mask=MASK, heads=2, **options):
    term = cls(**options)
    term.build(facts(student[0].shape[-1], heads=heads), facts(teacher[0].shape[-1], heads=heads))
    return term(*(Signals({}, qkv=(one,), mask=mask) for one in (student, teacher)), {})


@pytest.mark.parametrize("relations", [("qq", "kk", "vv"), ("qk", "vv"), ("vq",)])
@pytest.mark.parametrize(("widths", "heads"), [((8, 8), 2), ((4, 12), 4), ((6, 9), 3)])
def test_values_and_gradients_agree_with_float64(relations, widths, heads):
    student, teacher = qkv(widths[0]), qkv(widths[1], seed=1)
    for part in student:
        part.requires_grad_()
    total, count = compared(student, teacher, relations=relations, relation_heads=heads)
    doubles = [[part.double() for part in model] for model in (student, teacher)]
    wanted = reference.minilm(*doubles, MASK, relations, heads)
    assert count == 5
    assert total.item() == pytest.approx(wanted.item(), rel=1e-5)
    both = (torch.autograd.grad(value, student, allow_unused=True) for value in (total, wanted))
    for ours, theirs in zip(*both, strict=True):
        assert (ours is None) == (theirs is None)
        assert ours is None or torch.allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def test_version_one_is_attention_and_values_head_by_head():
    student, teacher = qkv(4), qkv(8, seed=1)
    doubles = [[part.double() for part in model] for model in (student, teacher)]
    wanted = reference.minilm(*doubles, MASK, ("qk", "vv"), 2)
    assert compared(student, teacher, MiniLMv1).total.item() == pytest.approx(wanted.item(), rel=1e-5)
    with pytest.raises(ValueError, match="the student small has 2 heads and the teacher big 3: use minilm"):
        MiniLMv1().build(facts(4, name="small"), facts(6, heads=3, name="big"))


@pytest.mark.parametrize(("widths", "heads", "expected"), [((8, 16), 4, 4), ((6, 9), 12, 3), ((7, 9), 3, 1)])
def test_the_number_of_relation_heads_divides_both_widths(widths, heads, expected):
    term = MiniLM()
    term.build(facts(widths[0]), facts(widths[1], heads=heads))
    assert term.relation_heads == expected
    assert term.pairs == [(1, 1)]


def test_the_last_layers_are_compared_unless_others_are_named():
    term = MiniLM()
    term.build(facts(4, layers=3), facts(4, layers=12))
    assert term.pairs == [(3, 12)]
    upper = MiniLM({3: 10})
    upper.build(facts(4, layers=3), facts(4, layers=12))
    assert upper.pairs == [(3, 10)]


def test_padding_that_is_not_a_number_does_not_matter():
    student, teacher = qkv(4), qkv(4, seed=1)
    clean = compared(student, teacher).total
    for part in (*student, *teacher):
        part[~MASK] = float("nan")
        part.requires_grad_()
    total, _ = compared(student, teacher)
    total.backward()
    assert total == clean
    assert all((part.grad[~MASK] == 0).all() and part.grad.isfinite().all() for part in student)


def test_a_row_of_padding_alone_is_a_zero_with_a_graph():
    student = qkv(4)
    for part in student:
        part.requires_grad_()
    total, count = compared(student, qkv(4, seed=1), mask=torch.zeros(2, 4).bool())
    total.backward()
    assert (total, count) == (0, 0)


def test_grouped_heads_have_narrower_keys_and_values():
    """The relations of queries, of keys and of values each stay within one width; queries with keys do not."""
    student, teacher = ((q, k[..., :4], v[..., :4]) for q, k, v in (qkv(8), qkv(8, seed=1)))
    assert compared(student, teacher).total > 0
    with pytest.raises(ValueError, match="qk was asked of minilm, the student has fewer heads for keys and values"):
        compared(student, teacher, relations=("qk",))
    with pytest.raises(ValueError, match="relation_heads=8 was given to minilm, which does not divide the width 4 of"):
        compared(student, teacher, relation_heads=8)


def test_bfloat16_is_compared_in_float32():
    student, teacher = (tuple(part.bfloat16() for part in one) for one in (qkv(4), qkv(4, seed=1)))
    with torch.autocast("cpu", torch.bfloat16):
        total, _ = compared(student, teacher)
    doubles = [[part.double() for part in model] for model in (student, teacher)]
    assert total.item() == pytest.approx(reference.minilm(*doubles, MASK, ("qq", "kk", "vv"), 2).item(), rel=1e-5)


@pytest.mark.parametrize(("options", "message"), [
    ({"relations": ("qq", "xx")}, r"relations=\['qq', 'xx'\] was given to minilm: name some of qq, qk, qv, kq"),
    ({"relations": ()}, r"relations=\[\] was given to minilm"),
    ({"relation_heads": 0}, "relation_heads=0 was given to minilm: give at least 1"),
    ({"layers": {0: 1}}, "layer 0 of the student m was asked for by minilm, it has the layers 1 to 1"),
    ({"relation_heads": 3}, "relation_heads=3 was given to minilm, which does not divide the width 8 of m: give"),
])  # fmt: skip
def test_what_cannot_be_compared_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        MiniLM(**options).build(facts(8), facts(8))
