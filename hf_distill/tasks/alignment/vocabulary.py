"""Which columns of two heads are the same tokens, and logits of which only those are seen.

Knows: token strings and their ids, the three forms of logits. Does not know: tokenizers, batches, tasks, models.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from hf_distill.models.topk_logits import TopKLogits
from hf_distill.signals import Logits

Vocabulary = Mapping[str | bytes, int]
"""Token string -> id, as ``tokenizer.get_vocab()`` gives it; or the bytes of its text, see ``spelling``."""


class Columns:
    """Logits of which some columns are seen: as if the others were not there, so a softmax is over those alone.

    Whatever form the logits have, only their chunks are touched. The first n columns are a view, any others a copy.
    A column that is not seen has a gradient of exactly 0, and a constant added to all logits of a row changes nothing
    that a softmax makes of them.

    Args:
        logits: [..., V], of any form that has chunks.
        columns: int64 [n], which are seen, in this order.

    Example:
        >>> from hf_distill.signals import DenseLogits
        >>> logits = Columns(DenseLogits(torch.tensor([[1.0, 2.0, 9.0], [3.0, 4.0, 9.0]])), torch.tensor([1, 0]))
        >>> logits.shape, logits.select(torch.tensor([False, True])).chunk(0, 1)
        (torch.Size([2, 2]), tensor([[4., 3.]]))
    """

    def __init__(self, logits: Logits, columns: Tensor) -> None:
        self.logits, self.columns = logits, columns
        self._first = is_prefix(columns)

    @property
    def shape(self) -> torch.Size:
        """The leading shape, then how many columns are seen."""
        return torch.Size((*self.logits.shape[:-1], len(self.columns)))

    def select(self, rows: Tensor) -> Columns:
        """Keep the rows where ``rows`` (bool, the leading shape) is true: [m, n]."""
        return Columns(self.logits.select(rows), self.columns)

    def chunk(self, start: int, stop: int) -> Tensor:
        """Return rows ``start:stop`` of the flattened leading shape as float32 [stop - start, n]."""
        return self.seen(self.logits.chunk(start, stop))

    def seen(self, rows: Tensor) -> Tensor:
        """Return of some rows [n, V] the columns that are seen."""
        if self._first:
            return rows[:, : len(self.columns)]
        return rows.index_select(-1, self.columns.to(rows.device))

    def finite(self) -> Tensor:
        """Return for each row (bool, the leading shape) whether it holds neither infinity nor NaN, in any column."""
        return self.logits.finite()


class Shared(NamedTuple):
    """The tokens that two vocabularies have in common, in the order of the student's ids.

    Args:
        ours: int64 [n], their columns in the student's head.
        theirs: int64 [n], their columns in the teacher's head.
    """

    ours: Tensor
    theirs: Tensor

    @classmethod
    def of(cls, ours: Vocabulary, theirs: Vocabulary, our_size: int, their_size: int) -> Shared:
        """Find the tokens that both vocabularies have, and both heads have a column for.

        Args:
            ours: the student's token strings and their ids.
            theirs: the teacher's.
            our_size: how many columns the student's head has; those beyond its tokens are padding.
            their_size: how many the teacher's has.

        Example:
            >>> Shared.of({"a": 0, "b": 1, "c": 2}, {"b": 0, "a": 1}, our_size=8, their_size=4)
            Shared(ours=tensor([0, 1]), theirs=tensor([1, 0]))
        """
        both = sorted(
            (index, theirs[token])
            for token, index in ours.items()
            if index < our_size and theirs.get(token, their_size) < their_size
        )
        columns = torch.tensor(both, dtype=torch.int64).view(-1, 2)
        return cls(columns[:, 0].contiguous(), columns[:, 1].contiguous())

    def translation(self, size: int) -> Tensor:
        """Return the teacher's id of each of the student's, int64 [size]; -1 where it has none.

        Args:
            size: how many ids the student has.
        """
        return torch.full((size,), -1, device=self.ours.device).scatter(0, self.ours, self.theirs)


def is_prefix(columns: Tensor) -> bool:
    """Say whether these are the first columns, in their order.

    Args:
        columns: int64 [n].
    """
    return bool((columns.cpu() == torch.arange(len(columns))).all())


def places(columns: Tensor, size: int) -> Tensor:
    """Return where each column stands among the chosen ones, int64 [size]; -1 where it is none of them.

    Args:
        columns: int64 [n], without repetition.
        size: how many columns there are.

    Example:
        >>> places(torch.tensor([3, 0]), size=4)
        tensor([ 1, -1, -1,  0])
    """
    return torch.full((size,), -1).scatter(0, columns.cpu(), torch.arange(len(columns)))


def looked_up(table: Tensor, ids: Tensor) -> Tensor:
    """Return what a table has for each id, and -1 for an id that is negative or beyond its end.

    Args:
        table: int64 [size].
        ids: int64, of any shape.

    Example:
        >>> looked_up(torch.tensor([5, 6]), torch.tensor([1, -100, 0, 9]))
        tensor([ 6, -1,  5, -1])
    """
    known = (ids >= 0) & (ids < len(table))
    return torch.where(known, table.to(ids.device)[ids.where(known, 0)], -1)


def renamed(logits: TopKLogits, columns: Tensor, rows: Tensor) -> TopKLogits:
    """Give the few ids of each distribution the numbers that their columns have among the chosen ones.

    What lies outside of the chosen columns is told apart only where it is one of the few ids, so nothing honest can
    be made of a row that keeps such an id: how much of its rest lies outside is not known. Where all ids that were
    kept, the drawn ones among them, are inside, the rest is taken to be inside too.

    Args:
        logits: of the teacher, [..., V].
        columns: int64 [n], which of its columns are seen.
        rows: bool, the leading shape: which rows count; the others are given any numbers.

    Returns:
        The same probabilities, of n classes.

    Raises:
        ValueError: in one sentence, a row that counts keeps an id that is none of the columns.

    Example:
        >>> ids, log_p, half = torch.tensor([[3]]), torch.tensor([[0.5]]).log(), torch.tensor([0.5])
        >>> kept = TopKLogits(ids, log_p, torch.tensor([[1]]), half, half, temperature=1.0, classes=5)
        >>> mapped = renamed(kept, torch.tensor([3, 1]), torch.tensor([True]))
        >>> mapped.ids, mapped.tail_ids, mapped.classes
        (tensor([[0]]), tensor([[1]]), 2)
    """
    place = places(columns, logits.classes).to(logits.ids.device)
    ids, tail_ids = place[logits.ids], place[logits.tail_ids]
    outside = (ids < 0).any(dim=-1) | (tail_ids < 0).any(dim=-1)
    if lost := int((outside & rows.to(outside.device)).sum()):
        raise ValueError(
            f"the teacher keeps a few ids of each row, and {lost} rows keep one that is no token of the student, "
            "without which the others' probabilities are not known: keep whole logits (top=0)."
        )
    return TopKLogits(
        ids.clamp(min=0), logits.log_p, tail_ids.clamp(min=0), logits.tail, logits.entropy, logits.temperature,
        len(columns),
    )  # fmt: skip
