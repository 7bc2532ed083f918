"""Columns that two vocabularies share: which they are, and logits of which only those are seen."""

import pytest
import torch

from hf_distill.models.facts import Facts
from hf_distill.models.topk_logits import TopKLogits
from hf_distill.objectives.logits import ForwardKL
from hf_distill.signals import DenseLogits, Head, Signals
from hf_distill.tasks import CausalLM
from hf_distill.tasks.alignment.spelling import BYTES, spelled
from hf_distill.tasks.alignment.vocabulary import Columns, Shared, is_prefix, renamed

WORDS = {word: index for index, word in enumerate("abcdefg")}


class Pieces:
    """Logits that are never a whole tensor."""

    def __init__(self, tensor):
        self.kept, self.shape = tensor, tensor.shape

    def select(self, rows):
        return Pieces(self.kept[rows])

    def chunk(self, start, stop):
        return self.kept.flatten(0, -2)[start:stop].float()

    def finite(self):
        return self.kept.isfinite().all(-1)


def test_padded_heads_share_their_tokens_as_a_view():
    shared = Shared.of(WORDS, WORDS, our_size=10, their_size=8)
    assert is_prefix(shared.ours)
    assert torch.equal(shared.ours, torch.arange(7))
    tensor = torch.randn(2, 3, 10)
    chunk = Columns(DenseLogits(tensor), shared.ours).chunk(0, 6)
    assert chunk.data_ptr() == tensor.data_ptr()
    assert torch.equal(chunk, tensor[..., :7].reshape(6, 7))


def test_permuted_ids_and_tokens_of_one_side_only():
    theirs = {"only": 0, **{word: 7 - index for word, index in WORDS.items()}}
    shared = Shared.of(WORDS, theirs, 7, 8)
    assert shared.theirs.tolist() == [7, 6, 5, 4, 3, 2, 1]
    assert shared.translation(9).tolist() == [7, 6, 5, 4, 3, 2, 1, -1, -1]
    assert Shared.of(WORDS, theirs, 7, 4).ours.tolist() == [4, 5, 6]  # the others have no column in the teacher's head


@pytest.mark.parametrize("form", [DenseLogits, Pieces])
def test_columns_are_logits_of_any_form(form):
    tensor, columns = torch.randn(2, 3, 6), torch.tensor([4, 0])
    tensor[1, 2, 5] = float("nan")
    rows = torch.tensor([[True, False, True], [False, True, False]])
    logits = Columns(form(tensor), columns)
    assert logits.shape == (2, 3, 2)
    assert torch.equal(logits.select(rows).chunk(1, 3), tensor[rows][1:3][:, columns])
    assert logits.finite().tolist() == [[True, True, True], [True, True, False]]


def test_a_few_ids_are_renamed_and_a_row_that_keeps_a_stranger_is_refused():
    ids, log_p = torch.tensor([[[3, 1], [4, 0]]]), torch.tensor([[[0.5, 0.3], [0.5, 0.3]]]).log()
    tail_ids, tail = torch.tensor([[[2], [2]]]), torch.full((1, 2), 0.2)
    kept = TopKLogits(ids, log_p, tail_ids, tail, tail, temperature=1.0, classes=6)
    columns = torch.tensor([1, 2, 3])
    found = renamed(kept, columns, torch.tensor([[True, False]]))
    assert found.shape == (1, 2, 3)
    assert found.ids[0, 0].tolist() == [2, 0]
    assert found.tail_ids[0, 0].tolist() == [1]
    assert torch.equal(found.log_p, log_p)
    assert found.ids.min() >= 0  # a row that does not count still has ids that can be looked up
    with pytest.raises(ValueError, match=r"1 rows keep one that is no token of the student.*keep whole logits"):
        renamed(kept, columns, torch.tensor([[True, True]]))


def test_a_few_ids_under_other_numbers_teach_the_same():
    theirs, order = {word: 6 - index for word, index in WORDS.items()}, torch.arange(6, -1, -1)
    logits, student = torch.randn(1, 3, 7), torch.randn(1, 3, 9)
    top = logits.log_softmax(-1).topk(4)
    tail = 1 - top.values.exp().sum(-1)
    drawn = (logits.argsort(-1)[..., :2], logits[..., 0].abs())
    fed, task, found = {"input_ids": torch.ones(1, 3, dtype=torch.int64)}, CausalLM(), []
    for name, vocabulary, ids in (("plain", WORDS, torch.arange(7)), ("moved", theirs, order)):
        task.alignment.meet(Facts(), WORDS, Facts(), vocabulary, own=True, name=name)
        kept = TopKLogits(ids[top.indices], top.values, ids[drawn[0]], tail, drawn[1], temperature=1.0, classes=7)
        teacher = Signals({"logits": Head(kept, torch.ones(1, 3, dtype=torch.bool))})
        sides = task.alignment.pair(task, task.signals(None, fed, student), teacher, fed, name)
        found.append(ForwardKL(temperature=1.0)(*sides, fed).total)
    assert torch.allclose(*found)


def test_tokens_are_compared_by_their_text():
    by_byte = spelled({**{c: n for n, c in enumerate(BYTES)}, "ĠcafÃ©": 256, "<|end|>": 257})
    pieces = spelled({"▁café": 0, "<0x0A>": 1, "<|end|>": 2, "é": 3, "<0x41>": 4, "A": 5})
    assert by_byte[" café".encode()] == 256
    assert pieces[" café".encode()] == 0
    assert (by_byte[b"<|end|>"], pieces[b"<|end|>"]) == (257, 2)
    assert by_byte[b"\n"] == list(BYTES.values()).index(10)
    assert pieces[b"\n"] == 1
    assert (pieces[b"A"], pieces["A"]) == (4, 5)  # both are kept
    assert len(by_byte) == 258
