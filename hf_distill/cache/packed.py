"""The texts of packed rows, each of which has an answer of its own, whatever stands beside it.

Knows: where texts begin in a row, how to pack some of them anew, what one is alone. Does not know: models, folders.

A text is named as if it stood alone in an unpacked row. So another packing in the next epoch finds it, and answers
that were made of unpacked rows serve packed ones. This holds for a teacher none of whose texts looks at another, which
is tried once, with the first row that holds several.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hf_distill.cache.answers import parts_of, unkeepable
from hf_distill.cache.cacheable import Ask, agree, finite, scales_of
from hf_distill.cache.keys import NEITHER, Padding, keys_of
from hf_distill.cache.rows import Rows
from hf_distill.models.texts import MASK
from hf_distill.signals import Signals
from hf_distill.tasks import Task
from hf_distill.tasks.batches import spans_of, take
from hf_distill.tasks.documents import Documents, beginnings
from hf_distill.tasks.layout import without_layout

PLACES, NUMBERS = "position_ids", "seq_idx"
ENDS, LONGEST = ("cu_seq_lens_q", "cu_seq_lens_k"), ("max_length_q", "max_length_k")
SAYING = frozenset({PLACES, NUMBERS, *ENDS, *LONGEST})
"""The columns that say where texts begin, and nothing of what they are."""
BOTH = Padding(right=True, left=True)
"""A packed text has no padding, so none is a part of it."""

ALONE = "it cannot read a text alone that is packed into a row ({})"
UNREADABLE = (RuntimeError, TypeError, ValueError, LookupError)
"""What a teacher raises at a text without its places, if it needs them."""


class Texts(Rows):
    """A batch that says where the texts of its rows begin; see ``Texts.of``.

    Args:
        batch: the batch, without keys.
        read: gives what the teacher reads of a batch.
        task: the teacher's.
        placeholders: the tokens that stand in a text for images and the like; see ``pairing``.
        spans: int64 [n, 3], the texts that are meant: in which row each is, from which position to before which.
        placed: whether positions are a part of what is remembered.
    """

    packed = True

    def __init__(
        self,
        batch: Mapping[str, Any],
        read: Callable[[Mapping[str, Any]], dict[str, Tensor]],
        task: Task,
        placeholders: Mapping[str, int],
        spans: np.ndarray,
        placed: bool,
    ) -> None:
        super().__init__(batch, read, task, placeholders)
        self.spans, self._placed = spans, placed

    @classmethod
    def of(cls, rows: Rows, placed: bool = False) -> Rows:
        """Look at the texts of a batch, where it says where they begin and each column is one of their positions.

        A mask beside them is left alone: a model that is given one does not look at where texts begin.

        Args:
            rows: the batch.
            placed: whether positions are a part of what is remembered, though they only count.

        Returns:
            The texts, or the rows as they came.
        """
        batch, task = rows.batch, rows.task
        if not task.packs or MASK in batch or SAYING.isdisjoint(batch) or task.teacher_batch(batch) is not batch:
            return rows
        real = rows.layout.mask
        begins = None if real is None else beginnings(batch, real)
        others = (value for name, value in rows.inputs.items() if name not in SAYING)
        if begins is None or any(not isinstance(one, Tensor) or one.shape[:2] != real.shape for one in others):
            return rows
        row, start = begins.cpu().numpy().nonzero()
        ends = spans_of(real)[row, 1]
        stop = np.where(np.append(row[1:] == row[:-1], False), np.append(start[1:], 0), ends)
        return cls(batch, rows.read, task, rows.placeholders, np.column_stack((row, start, stop)), placed)

    @property
    def several(self) -> bool:
        """Whether one of the rows holds several texts."""
        return len(np.unique(self.spans[:, 0])) < len(self.spans)

    @cached_property
    def _documents(self) -> Documents:
        real = self.layout.mask
        lengths = torch.from_numpy(self.spans[:, 2] - self.spans[:, 1])
        begins = torch.from_numpy(self.spans[:, 0] * real.shape[1] + self.spans[:, 1])
        place = torch.arange(int(lengths.max()))
        mask = place < lengths.unsqueeze(-1)
        return Documents((begins.unsqueeze(-1) + place) * mask, mask, real.shape)

    @cached_property
    def placed(self) -> bool:
        """Whether positions are a part of each text: those that only count from 0 on say nothing."""
        places, texts = self.inputs.get(PLACES), self._documents
        if not isinstance(places, Tensor) or places.shape != texts.shape:
            return False
        counted = torch.arange(texts.mask.shape[1])
        return self._placed or bool(((texts.split(places).cpu() != counted) & texts.mask).any())

    def _apart(self, columns: Mapping[str, Any], texts: Documents) -> dict[str, Any]:
        """The columns with a text a row, padded on the right."""
        left_out = SAYING - {PLACES} if self.placed else SAYING
        made: dict[str, Any] = {}
        for name, value in columns.items():
            if name not in left_out and isinstance(value, Tensor) and value.shape[:2] == texts.shape:
                cut = texts.split(value)
                behind = ~texts.mask.to(cut.device).view(*texts.mask.shape, *[1] * (cut.ndim - 2))
                made[name] = cut.masked_fill(behind, -100 if name == "labels" else 0)
        return made

    # ---- As rows ----

    def inseparable(self) -> str:
        """Nothing: it is known where each text is."""
        return ""

    def keys(self, padding: Padding) -> list[bytes]:
        """Name the texts, each as it would be named alone; see ``Rows.keys``."""
        texts = self._documents
        return keys_of({**self._apart(self.inputs, texts), MASK: texts.mask}, BOTH)

    def cut(self, numbers: Sequence[int]) -> Texts:
        """Keep some texts: of a single row these alone, otherwise the rows that hold one of them.

        So nothing grows longer than it was, and a packed row is made of texts as it was.
        """
        spans, shape = self.spans[list(numbers)], self.layout.mask.shape
        if shape[0] > 1:
            lines = np.unique(spans[:, 0])
            batch = take(self.batch, lines, shape[0])
            spans = np.column_stack((np.searchsorted(lines, spans[:, 0]), spans[:, 1:]))
        else:
            places = torch.from_numpy(np.concatenate([np.arange(start, stop) for _, start, stop in spans]))
            lengths = spans[:, 2] - spans[:, 1]
            ends = np.cumsum(lengths)
            columns, sizes = without_layout(self.batch), torch.from_numpy(lengths)
            batch = {name: _repacked(name, value, shape, places, sizes) for name, value in columns.items()}
            spans = np.column_stack((np.zeros_like(ends), ends - lengths, ends))
        return Texts(batch, self.read, self.task, self.placeholders, spans, self._placed)

    def alone(self, number: int | None = None) -> Rows:
        """One text in an unpacked row of its own.

        Args:
            number: of the text; None: the longest.
        """
        number = int((self.spans[:, 2] - self.spans[:, 1]).argmax()) if number is None else number
        _, start, stop = self.spans[number]
        index, mask, shape = self._documents
        one = Documents(*(part[number : number + 1, : stop - start] for part in (index, mask)), shape)
        mask = one.mask.long().to(self.layout.mask.device)
        return Rows({**self._apart(self.batch, one), MASK: mask}, self.read, self.task, self.placeholders)

    def examine(self, ask: Ask, tolerance: float, collective: bool) -> tuple[str, Padding | None]:
        """Find out whether answers can be kept text by text, of one alone; see ``Rows.examine``."""
        try:
            return self.alone().examine(ask, tolerance, collective)
        except UNREADABLE as error:
            if collective:
                raise
            return ALONE.format(type(error).__name__), NEITHER

    def spans_in(self, shown: Signals) -> np.ndarray:
        """Where the texts are in their answer, as in the batch."""
        return self.spans

    def unkeepable(self, shown: Signals) -> str:
        """Say why an answer cannot be taken apart into texts; see ``Rows.unkeepable``."""
        if reason := unkeepable(shown, self.task.positions):
            return reason
        others = [name for name, part in parts_of(shown).items() if part.shape[:2] != self.layout.mask.shape]
        return f"{others[0]} has no entry for each position of a row into which texts are packed" if others else ""

    def alike(self, ask: Ask, tolerance: float, collective: bool) -> str | None:
        """Ask for a text alone, without its places; for one that has another one before it, where one has.

        Args:
            ask: the teacher.
            tolerance: as in ``answers_alone``.
            collective: whether all ranks ask together.

        Returns:
            Why the two are not the same, empty if they are; None where this batch does not tell.
        """
        behind = (self.spans[1:, 0] == self.spans[:-1, 0]).nonzero()[0] + 1
        number = int(behind[-1]) if len(behind) else 0
        row, start, stop = self.spans[number].tolist()
        shown = ask(self.batch)
        try:
            alone = ask(self.alone(number).batch)
        except UNREADABLE as error:
            if collective:
                raise
            return ALONE.format(type(error).__name__)
        if reason := self.unkeepable(shown):
            return reason
        if not finite(shown):
            return "it gives values that are not finite" if collective else None
        same = agree(shown, row, alone, 0, tolerance, scales_of(shown), slice(start, stop))
        return "" if same else "it answers a text otherwise alone than among those that are packed into its row"


def _repacked(name: str, value: Any, shape: torch.Size, places: Tensor, lengths: Tensor) -> Any:
    """A column of a single packed row, of fewer texts."""
    if name in ENDS:
        return torch.cat((lengths.new_zeros(1), lengths.cumsum(0))).to(value)
    if name in LONGEST:
        longest = lengths.max()
        return longest.to(value) if isinstance(value, Tensor) else int(longest)
    if name == NUMBERS:
        return torch.arange(len(lengths)).repeat_interleave(lengths).unsqueeze(0).to(value)
    if isinstance(value, Tensor) and value.shape[:2] == shape:
        return value[:, places.to(value.device)]
    return value
