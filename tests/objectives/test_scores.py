"""Terms of retrieval against float64, and what they refuse."""

import pytest
import reference
import torch
from vectors import MASK, built, compared, of_rows, same_gradient, states

from hf_distill.models.facts import Facts
from hf_distill.objectives import build
from hf_distill.objectives.scores import MarginMSE, ScoreKL, SimilarityKL
from hf_distill.signals import DenseLogits, Head, Signals


def rows(count, width, seed=0):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", ["dot", "cosine"])
@pytest.mark.parametrize("pool", ["mean", "last"])
def test_values_and_gradients_agree_with_float64(kind, pool):
    student, teacher = states(3).requires_grad_(), states(6, seed=1)
    ours, theirs = (reference.scores(reference.pooled(one, MASK, pool), 3, kind) for one in (student, teacher))
    wanted = {
        MarginMSE: reference.margin_mse(ours, theirs).sum(),
        ScoreKL: reference.kl(torch.softmax(theirs / 0.5, -1), torch.softmax(ours / 0.5, -1)).sum(),
    }
    for cls, value in wanted.items():
        more = {"temperature": 0.5} if cls is ScoreKL else {}
        total, count = compared(built(cls, candidates=3, similarity=kind, pool=pool, **more), student, teacher)
        assert count == 4
        assert (total / count).item() == pytest.approx(value.item(), rel=1e-5)  # of one group, the mean over groups
        assert same_gradient(total, 4 * value, [student])


def test_groups_weigh_alike_and_are_divided_by_all_rows():
    term, student, teacher = built(MarginMSE, candidates=2), rows(6, 3), rows(6, 6, seed=1)
    wanted = reference.margin_mse(reference.scores(student, 2), reference.scores(teacher, 2))
    total, count = of_rows(term, student, teacher)
    assert count == 6
    assert (total / count).item() == pytest.approx(wanted.mean().item(), rel=1e-5)
    halves = [of_rows(term, student[half], teacher[half]) for half in (slice(0, 3), slice(3, 6))]
    assert sum(one.total for one in halves).item() == pytest.approx(total.item(), rel=1e-6)


@pytest.mark.parametrize("shape", [(2, 2), (4, 1), (4,)])
@pytest.mark.parametrize("cls", [MarginMSE, ScoreKL])
def test_scores_that_the_teacher_gives_are_taken_as_they_are(cls, shape):
    """A column has a row for each group, a cross-encoder one for each pair."""
    term, student = cls(candidates=2, scores="logits"), rows(6, 3).requires_grad_()
    term.build(Facts(name="m", hidden_size=3, num_layers=1), Facts(name="scores"))
    assert (term.needs, term.teacher_needs) == ({"hidden"}, {"heads"})
    given = torch.tensor([4.0, -1.0, 0.5, 2.0])
    shown = Signals({}, hidden=(student[:, None],) * 2)
    logits = DenseLogits(given.view(shape))
    total, count = term(shown, Signals({"scores": Head(logits, torch.ones(len(given.view(shape))).bool())}), {})
    ours, theirs = reference.scores(student, 2), given.view(2, 2).double()
    wanted = (
        reference.margin_mse(ours, theirs) if cls is MarginMSE
        else reference.kl(torch.softmax(theirs, -1), torch.softmax(ours, -1))
    )  # fmt: skip
    assert (total / count).item() == pytest.approx(wanted.mean().item(), rel=1e-5)
    assert same_gradient(total / count, wanted.mean(), [student])


@pytest.mark.parametrize("temperature", [0.05, 1.0])
def test_neighbours_agree_with_float64(temperature):
    term = built(SimilarityKL, temperature=temperature)
    student, teacher = rows(5, 3).requires_grad_(), rows(5, 6, seed=1)
    total, count = of_rows(term, student, teacher)
    wanted = reference.similarity_kl(student, teacher, temperature)
    assert count == 5
    assert total.item() == pytest.approx(wanted.item(), rel=1e-4)
    assert same_gradient(total, wanted, [student])


@pytest.mark.parametrize("count", [1, 2])
def test_a_row_with_one_neighbour_or_none_has_no_choice(count):
    student = rows(count, 3).requires_grad_()
    total, _ = of_rows(built(SimilarityKL), student, rows(count, 6, seed=1))
    total.backward()
    assert total.item() == 0.0
    assert not student.grad.any()


@pytest.mark.parametrize(("spec", "told"), [
    ({"margin_mse": {"candidates": 1}}, "candidates=1 was given to margin_mse: give at least 2"),
    ({"score_kl": {"candidates": 1}}, "candidates=1 was given to score_kl: give at least 2"),
    ({"score_kl": {"candidates": 2, "scores": "column"}}, "scores='column' was given to score_kl: use vectors or"),
    ({"margin_mse": {"candidates": 2, "similarity": "l2"}}, "similarity='l2' was given to margin_mse: use dot or"),
    ({"margin_mse": {"candidates": 2, "scores": "logits", "layers": "last"}}, "leave layers out"),
    ({"score_kl": {"candidates": 2, "temperature": 0}}, "temperature=0 was given to score_kl: give a number greater"),
    ({"similarity_kl": {"temperature": -1}}, "temperature=-1 was given to similarity_kl: give a number"),
])  # fmt: skip
def test_options_that_cannot_be_used_are_refused(spec, told):
    with pytest.raises(ValueError, match=told):
        build(spec)


def test_rows_that_are_no_groups_are_named():
    with pytest.raises(ValueError, match="in groups of a query and 2 candidates, the batch has 4 rows: use Candidate"):
        of_rows(built(MarginMSE, candidates=2), rows(4, 3), rows(4, 6))


def test_a_teacher_without_the_right_scores_is_named():
    term = MarginMSE(candidates=2, scores="logits")
    term.build(Facts(name="m", hidden_size=3, num_layers=1), Facts(name="scores"))
    shown = Signals({}, hidden=(rows(6, 3)[:, None],) * 2)
    for heads, told in (({}, "none"), ({"scores": Head(DenseLogits(torch.ones(2, 3)), torch.ones(2))}, r"\[2, 3\]")):
        with pytest.raises(ValueError, match=f"wants a score of the teacher for each of 4 candidates.*{told}"):
            term(shown, Signals(heads), {})
