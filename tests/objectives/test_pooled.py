"""Sentence vectors: how a row becomes one, the formulas, padding, layers."""

import pytest
import reference
import torch
from vectors import MASK, built, compared, of_rows, same_gradient, states

from hf_distill.models.facts import Facts
from hf_distill.objectives import TERMS, build
from hf_distill.objectives.pooled import POOLS, PooledCosine, PooledMSE, PooledTerm
from hf_distill.objectives.scores import ScoreTerm

# A score term compares vectors with the vectors of its candidates: tests/objectives/test_scores.py.
POOLED = pytest.mark.parametrize(
    "cls", [cls for cls in TERMS.values() if issubclass(cls, PooledTerm) and not issubclass(cls, ScoreTerm)]
)


def naive(cls, student, teacher):
    if cls is PooledMSE:
        return sum(((s - t) ** 2).sum() / len(t) for s, t in zip(student, teacher, strict=True))
    return sum(1 - s @ t / (s.norm() * t.norm()) for s, t in zip(student, teacher, strict=True))


@pytest.mark.parametrize("cls", [PooledMSE, PooledCosine])
@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("width", [3, 6])
def test_values_and_gradients_agree_with_float64(cls, pool, width):
    term, student, teacher = built(cls, (3, width), pool=pool), states(3).requires_grad_(), states(width, seed=1)
    total, count = compared(term, student, teacher)
    weights = [projection.weight for projection in term.projections.values()]
    assert [tuple(weight.shape) for weight in weights] == ([(6, 3)] if width == 6 else [])
    vectors = reference.pooled(student.double(), MASK, pool)
    vectors = vectors @ weights[0].double().T if weights else vectors
    wanted = naive(cls, vectors, reference.pooled(teacher.double(), MASK, pool))
    assert count == 4
    assert total.item() == pytest.approx(wanted.item(), rel=1e-5)
    assert same_gradient(total, wanted, [student, *weights])


@POOLED
@pytest.mark.parametrize("pool", POOLS)
def test_padding_that_is_not_a_number_does_not_matter(cls, pool):
    term, student, teacher = built(cls, pool=pool), states(3), states(6, seed=1)
    clean = compared(term, student, teacher).total
    student[~MASK] = teacher[~MASK] = float("nan")
    student.requires_grad_()
    total, count = compared(term, student, teacher)
    total.backward()
    assert (total, count) == (clean, 4)
    assert total > 0
    assert (student.grad[~MASK] == 0).all()
    assert (student.grad[MASK] != 0).any()
    assert all(p.grad.isfinite().all() for p in term.parameters())


@POOLED
@pytest.mark.parametrize("rows", [
    torch.zeros(4, 3), torch.ones(4, 3), torch.tensor([[1.0, 2.0, 3.0]] * 3 + [[0.0] * 3]), torch.randn(1, 3),
    torch.randn(2, 3), 1e-13 * torch.ones(4, 3), 1e-25 * torch.randn(4, 3),
])  # fmt: skip
@pytest.mark.parametrize("taught", ["alike", "apart"])
def test_rows_that_are_zero_equal_or_alone_have_finite_gradients(cls, rows, taught):
    student = rows.clone().requires_grad_()
    teacher = torch.ones(len(rows), 6) if taught == "alike" else states(6, seed=1)[: len(rows), 0]
    term = built(cls)
    total, count = of_rows(term, student, teacher)
    total.backward()
    assert count == len(rows)
    assert total.isfinite()
    assert student.grad.isfinite().all()
    assert student.grad.abs().max() < 1e6 or rows.abs().max() < 1e-6  # nothing blows up that is not itself next to 0
    assert all(p.grad is None or p.grad.isfinite().all() for p in term.parameters())


@POOLED
def test_bfloat16_states_are_pooled_in_float32(cls):
    """Under autocast, and in a student of bfloat16, which what is trained follows."""
    term, student, teacher = built(cls), states(3).bfloat16(), states(6, seed=1).bfloat16()
    exact = compared(term, student.float(), teacher.float()).total
    with torch.autocast("cpu", torch.bfloat16):
        mixed = compared(term, student, teacher).total
    half = compared(term.bfloat16(), student, teacher).total
    trained = bool(list(term.parameters()))
    for found in (mixed, half):
        assert found.dtype is torch.float32
        assert found.item() == pytest.approx(exact.item(), rel=0.1 if trained else 1e-6)


def test_a_row_of_padding_alone_is_a_zero_vector():
    student = states(3).requires_grad_()
    total, count = compared(built(PooledCosine), student, states(6), mask=torch.zeros(4, 4).bool())
    total.backward()
    assert total == count == 4
    assert (student.grad == 0).all()


@POOLED
def test_the_last_layers_are_compared_unless_others_are_named(cls):
    deep, deeper = Facts(hidden_size=4, num_layers=3), Facts(hidden_size=6, num_layers=12)
    for layers, pairs in [(None, [(3, 12)]), ("skip", [(1, 4), (2, 8), (3, 12)]), ({"0": 0, "2": [7, 8]}, 3)]:
        term = cls(layers)
        term.build(deep, deeper)
        assert term.pairs == (pairs if pairs != 3 else [(0, 0), (2, 7), (2, 8)])
        trained = {key.split(".")[1] for key in term.state_dict()}
        assert trained in (set(), {f"{ours}_{theirs}" for ours, theirs in term.pairs})


@POOLED
def test_what_cannot_be_compared_is_refused(cls):
    with pytest.raises(ValueError, match=f"pool='max' was given to {cls.name}: use mean, first, last"):
        build({cls.name: {"pool": "max"}})
    with pytest.raises(ValueError, match=f"layer 4 of the teacher m was asked for by {cls.name}"):
        built(cls, layers={1: 4})
    with pytest.raises(ValueError, match=f"{cls.name} compares hidden states, the teacher look_up has no config"):
        cls().build(Facts(hidden_size=4, num_layers=1), Facts(name="look_up"))
    assert TERMS[cls.name] is cls
    assert "arXiv:" in cls.citation
