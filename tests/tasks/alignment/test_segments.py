"""Spans of text that both models predict, and the classes that both can speak of."""

import pytest
import reference
import torch

from hf_distill.objectives.functional import forward_kl
from hf_distill.signals import DenseLogits
from hf_distill.tasks.alignment import merged
from hf_distill.tasks.alignment.merged import SpanLogits
from hf_distill.tasks.alignment.segments import Tokens, spans


def row(*offsets, predicted=None, real=None, shift=1):
    ids = torch.arange(len(offsets))[None] + 10
    yes = torch.ones_like(ids, dtype=torch.bool)
    told = torch.tensor([offsets])
    real = yes if real is None else torch.tensor([real]).bool()
    predicted = torch.tensor([predicted]).bool() if predicted else real & (torch.arange(len(offsets)) >= shift)
    return Tokens(ids, told, real, predicted, shift)


def cut(ours, theirs):
    return [[side.rows.nonzero()[:, 1].tolist(), side.lengths.tolist()] for side in spans(ours, theirs)]


def test_a_text_is_cut_where_a_token_of_both_ends():
    words = row((0, 0), (0, 5), (6, 8), (9, 12))
    pieces = row((0, 0), (0, 2), (2, 5), (6, 8), (9, 10), (10, 11), (11, 12))
    assert cut(words, pieces) == [[[0, 1, 2], [1, 1, 1]], [[0, 1, 2, 3, 4, 5], [2, 1, 3]]]
    assert spans(words, pieces)[0].tokens.tolist() == [11, 12, 13]
    assert spans(words, pieces)[1].firsts.tolist() == [11, 13, 14]
    assert cut(row((0, 0), (0, 3), (3, 6)), row((0, 0), (0, 2), (2, 6))) == [[[0, 1], [2]], [[0, 1], [2]]]


def test_the_first_token_of_a_decoder_is_predicted_by_nobody():
    assert cut(row((0, 2), (2, 4), (4, 5)), row((0, 1), (1, 2), (2, 4), (4, 5))) == [
        [[0, 1], [1, 1]],
        [[1, 2], [1, 1]],
    ]


def test_the_end_of_the_text_is_a_span_of_its_own():
    ours = row((0, 0), (0, 2), (0, 0))  # <s> ab </s>
    theirs = row((0, 0), (0, 1), (1, 2), (2, 3), (0, 0), (0, 0))  # <s> a b and a space, </s> and one more
    assert cut(ours, theirs) == [[[0, 1], [1, 1]], [[0, 1, 2, 3], [2, 2]]]


def test_the_bytes_of_one_character_end_together():
    ours, theirs = row((0, 0), (0, 1), (0, 1), (1, 2)), row((0, 0), (0, 1), (1, 2))
    assert cut(ours, theirs) == [[[0, 1, 2], [2, 1]], [[0, 1], [1, 1]]]


@pytest.mark.parametrize("left", [False, True])
def test_padding_and_what_is_not_supervised_are_left_out(left):
    texts = [[(0, 0), (0, 2), (2, 4), (4, 6)], [(0, 0), (0, 1), (1, 2), (2, 4), (4, 6)]]
    padded = []
    for offsets in texts:
        pads = [(0, 0)] * (7 - len(offsets))
        real = [0] * len(pads) + [1] * len(offsets) if left else [1] * len(offsets) + [0] * len(pads)
        told = [*pads, *offsets] if left else [*offsets, *pads]
        predicted = [r and b >= 4 for r, (_, b) in zip(real, told, strict=True)]  # the first two characters are not
        padded.append(row(*told, real=real, predicted=predicted))
    (ours, lengths), (theirs, others) = cut(*padded)
    shift = 3 if left else 0
    assert ours == [1 + shift, 2 + shift]
    assert theirs == [2 + shift - left, 3 + shift - left]
    assert lengths == others == [1, 1]


def test_each_row_of_a_batch_is_cut_by_itself():
    ours, theirs = row((0, 0), (0, 2), (2, 3)), row((0, 0), (0, 1), (1, 3))
    one = spans(ours, theirs)
    both = spans(*(Tokens(*(torch.cat((t, t)) for t in side[:4]), side.shift) for side in (ours, theirs)))
    assert both[0].lengths.tolist() == one[0].lengths.tolist() * 2
    assert torch.equal(both[1].rows, torch.cat((one[1].rows, one[1].rows)))


def test_no_span_at_all_is_no_rows():
    ours, theirs = spans(row((0, 0), (0, 2)), row((0, 0), (0, 1)))
    assert len(ours.lengths) == len(theirs.lengths) == 0
    logits = SpanLogits(DenseLogits(torch.randn(1, 2, 4)).select(ours.rows), ours.tokens, ours.lengths,
                        torch.arange(4), torch.arange(2), torch.tensor([2, 3]), None)  # fmt: skip
    assert logits.chunk(0, 5).shape == logits.shape == (0, 4)


# ---- The classes: the student has a, b, ab, x, the teacher a, b, c, y ----

ROWS = torch.tensor([[0.4, 0.1, 0.3, 0.2], [0.2, 0.5, 0.2, 0.1]])


def classes(tokens, place=None, rest=True, logits=None):
    rows = ROWS.log() if logits is None else logits
    where = None if place is None else torch.tensor([place])
    columns = torch.tensor([2, 3]) if rest else None
    made = SpanLogits(
        DenseLogits(rows[: len(tokens)]), torch.tensor(tokens), torch.tensor([len(tokens)]), torch.arange(4),
        torch.tensor([0, 1]), columns, where,
    )  # fmt: skip
    return made.chunk(0, 1)


def test_merged_probabilities_by_hand():
    # a b is 0.4 * 0.5 = 0.2, which leaves 0.4 - 0.2 to a; ab and x are the rest.
    assert torch.allclose(classes([0, 1]).exp(), torch.tensor([[0.2, 0.1, 0.2, 0.5]]))
    # The token ab alone is the span, and the rest is x.
    assert torch.allclose(classes([2]).exp(), torch.tensor([[0.4, 0.1, 0.3, 0.2]]))
    # The text is the shared token b, which this model wrote as ab b for once: 0.3 * 0.5 moves to b.
    assert torch.allclose(classes([2, 1], place=1).exp(), torch.tensor([[0.4, 0.25, 0.35]]))
    assert torch.allclose(classes([0], place=0).exp(), torch.tensor([[0.4, 0.1, 0.5]]))
    assert torch.allclose(classes([0, 1], rest=False).exp(), torch.tensor([[0.2, 0.1, 0.2]]))


@pytest.mark.parametrize("place", [None, 1])
@pytest.mark.parametrize("tokens", [[0, 1, 3], [2, 3], [3]])
def test_they_are_the_formula_and_add_up_to_one(tokens, place):
    logits = torch.randn(3, 4) * 3
    found = classes(tokens, place, logits=logits).exp()[0]
    assert torch.allclose(found.double(), reference.span_classes(logits, tokens, [0, 1], place), atol=1e-6)
    assert found.sum().item() == pytest.approx(1, abs=1e-6)


def test_the_kl_of_two_models_is_finite_where_a_span_takes_all_of_its_token():
    sure = torch.tensor([[0.0, 0, 60, 0], [0.0, 60, 0, 0]])
    for ours, theirs, place in (([2, 1], [2], None), ([2, 1], [1], 1), ([0], [0, 1], 0)):
        student = sure.clone().requires_grad_()
        one, other = classes(ours, place, logits=student), classes(theirs, place, logits=torch.randn(2, 4))
        for value in (forward_kl(one, other, 2.0), forward_kl(other, one, 2.0)):
            assert value.isfinite().all()
            (gradient,) = torch.autograd.grad(value.sum(), student, retain_graph=True)
            assert gradient.isfinite().all()


def test_padding_has_no_gradient_and_a_constant_changes_nothing():
    logits = torch.randn(3, 7, requires_grad=True)

    def made(rows):
        return SpanLogits(
            DenseLogits(rows), torch.tensor([2, 1, 3]), torch.tensor([1, 2]), torch.arange(5), torch.tensor([1, 0]),
            torch.tensor([2, 3, 4]), None,
        )  # fmt: skip

    found = made(logits).chunk(0, 2)
    assert torch.allclose(made(logits + torch.randn(3, 1) * 9).chunk(0, 2), found, atol=1e-5)
    forward_kl(found, torch.randn(2, 4)).sum().backward()
    assert (logits.grad[:, 5:] == 0).all()
    assert (logits.grad[:, :5] != 0).any(-1).all()


def test_chunks_and_chosen_spans_are_those_of_the_whole(monkeypatch):
    lengths, tokens = torch.tensor([1, 3, 2, 1]), torch.tensor([0, 1, 2, 3, 1, 0, 2])
    made = SpanLogits(
        DenseLogits(torch.randn(7, 4)), tokens, lengths, torch.arange(4), torch.tensor([0, 1]), None, None
    )
    whole = made.chunk(0, 9)
    assert torch.equal(made.chunk(1, 3), whole[1:3])
    kept = torch.tensor([True, False, True, True])
    assert torch.equal(made.select(kept).chunk(0, 3), whole[kept])
    monkeypatch.setattr(merged, "CHUNK_ELEMENTS", 4)
    assert torch.allclose(made.chunk(0, 4), whole)
    lost = made.logits.tensor.clone()
    lost[2, 0] = float("inf")
    made.logits = DenseLogits(lost)
    assert made.finite().tolist() == [True, False, True, True]
