"""A collator around the user's own, for columns that hold a teacher's logits: it lays them where the tokens are.

Knows: rows as a data set gives them, where a collator put a row's tokens. Does not know: what the numbers mean,
models, trainers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hf_distill.signals import ABSENT
from hf_distill.tasks import Task
from hf_distill.tasks.alignment.tokenizers import PREFIX
from hf_distill.tasks.batches import spans_of


class ColumnCollator:
    """Takes the columns out of the rows, lets another collator make the batch, and puts them back, padded as that is.

    Args:
        collator: the user's own; it makes one row of each, in their order.
        names: one column of logits, or two: ids, and their log-probabilities.
        task: says whether there is an entry for each token, and where in a batch the tokens are.

    Example:
        >>> from hf_distill.tasks import TokenClassification
        >>> def pad(rows):
        ...     ids = [[0] * (3 - len(row["input_ids"])) + row["input_ids"] for row in rows]  # on the left
        ...     return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(ids) > 0}
        >>> collate = ColumnCollator(pad, ["scores"], TokenClassification(num_labels=1))
        >>> rows = [{"input_ids": [5], "scores": [[0.5]]}, {"input_ids": [6, 7, 8], "scores": [[1.0], [2.0], [3.0]]}]
        >>> collate(rows)["scores"].squeeze(-1).tolist()
        [[0.0, 0.0, 0.5], [1.0, 2.0, 3.0]]
    """

    def __init__(self, collator: Callable[[list[Any]], Any], names: Sequence[str], task: Task) -> None:
        self.collator, self.names, self.task = collator, list(names), task

    @property
    def columns(self) -> frozenset[str]:
        """The columns that it, or the other collator, reads."""
        return frozenset(self.names) | getattr(self.collator, "columns", frozenset())

    def __call__(self, rows: list[Any]) -> Any:
        """Collate; a batch in which no row has the columns is left without them.

        Args:
            rows: of a data set.

        Returns:
            The other collator's batch, with the columns as tensors: logits float32 [B, ..., C]; or ids int64
            [B, ..., k] and log-probabilities float32 [B, ..., k], ``ABSENT`` where a row has fewer.

        Raises:
            ValueError: in one sentence, a row lacks a column, or has it for other tokens.
        """
        if not all(isinstance(row, Mapping) for row in rows):
            return self.collator(rows)
        there = [[row.get(name) is not None for name in self.names] for row in rows]
        for number, found in enumerate(there if any(map(any, there)) else ()):
            if not all(found):
                raise ValueError(
                    f"row {number} of a batch has no {self.names[found.index(False)]!r}, which others have: give each "
                    "row its teacher's answer."
                )
        try:
            batch = self.collator([{n: value for n, value in row.items() if n not in self.names} for row in rows])
        except KeyError as error:
            if not error.args or error.args[0] not in self.names:
                raise
            return self.collator(rows)  # it lays them itself
        if any(map(any, there)):
            made = len(self.task.rows(self.task.teacher_batch(batch)))
            if made != len(rows) and self.task.label_names:  # groups of texts have scores of their own
                raise ValueError(
                    f"the collator made {made} rows of {len(rows)}, among which the teacher's answers have no place: "
                    "use one that makes a row of each."
                )
            laid = self._dense(rows, batch) if len(self.names) == 1 else self._few(rows, batch)
            for name, tensor in zip(self.names, laid, strict=True):
                batch[name] = tensor
        return batch

    def _dense(self, rows: Sequence[Mapping[str, Any]], batch: Mapping[str, Any]) -> list[Tensor]:
        name, deep = self.names[0], 2 if self.task.positions else 1
        values = [_numbers(row[name], np.float32) for row in rows]
        classes = None if values[0] is None else values[0].shape[deep - 1 :]
        for number, value in enumerate(values):
            if value is None or value.ndim > deep or value.shape[deep - 1 :] != classes:
                found = "lists of different lengths" if value is None else f"the shape {list(value.shape)}"
                what = "as many logits as there are classes" + ", for each of its tokens" * self.task.positions
                raise ValueError(f"row {number} of a batch has {name!r} of {found}: give it {what}.")
        if not self.task.positions:
            return [torch.from_numpy(np.stack(values))]
        starts, width = self._starts(rows, batch, [len(value) for value in values])
        laid = np.zeros((len(rows), width, *classes), np.float32)
        for row, start, value in zip(laid, starts, values, strict=True):
            row[start : start + len(value)] = value
        return [torch.from_numpy(laid)]

    def _few(self, rows: Sequence[Mapping[str, Any]], batch: Mapping[str, Any]) -> list[Tensor]:
        entries = [[_entries(row[name], self.task.positions) for name in self.names] for row in rows]
        for number, (ids, logs) in enumerate(entries):
            if [len(few) for few in ids] != [len(few) for few in logs]:
                raise ValueError(
                    f"row {number} of a batch has other lists of {self.names[0]!r} than of {self.names[1]!r}: give "
                    "each id its log-probability, at the same place."
                )
        if self.task.positions:
            starts, width = self._starts(rows, batch, [len(ids) for ids, _ in entries])
        else:
            starts, width = [0] * len(rows), 1
        most = max((len(few) for ids, _ in entries for few in ids), default=0) or 1
        laid = np.zeros((len(rows), width, most), np.int64)
        logs = np.full((len(rows), width, most), ABSENT, np.float32)
        for number, ((ids, own), start) in enumerate(zip(entries, starts, strict=True)):
            for place, (few, log_p) in enumerate(zip(ids, own, strict=True), start):
                laid[number, place, : len(few)], logs[number, place, : len(few)] = few, log_p
        np.maximum(logs, ABSENT, out=logs)  # of an id without any probability servers say -inf
        first = np.argmax(logs > ABSENT, axis=-1)[..., None]
        laid = np.where(logs > ABSENT, laid, np.take_along_axis(laid, first, axis=-1))
        both = (torch.from_numpy(one) for one in (laid, logs))
        return [one if self.task.positions else one[:, 0] for one in both]

    def _starts(
        self, rows: Sequence[Mapping[str, Any]], batch: Mapping[str, Any], lengths: Sequence[int]
    ) -> tuple[list[int], int]:
        """Where each row's first entry belongs, and how wide the batch is.

        The mask says where a row's tokens are; a row that was padded before has its own padding around them.
        """
        read = self.task.teacher_batch(batch)
        width, mask = self.task.rows(read).shape[1], self.task.mask(read)
        names = tuple(name if read is batch else PREFIX + name for name in self.task.sized_by)
        spans = [(0, 0)] * len(rows) if mask is None else spans_of(mask).tolist()
        starts = []
        for number, (row, length, (start, stop)) in enumerate(zip(rows, lengths, spans, strict=True)):
            name = next((one for one in names if row.get(one) is not None), None)
            empty = -100 if name is not None and name.endswith("labels") else 0
            own = [] if name is None else [int(one) != empty for one in row[name]]
            before = own.index(True) if any(own) else 0
            if length == width:
                starts.append(0)
            elif length == stop - start > 0:
                starts.append(start)
            elif length == len(own) and 0 <= start - before <= width - length:
                starts.append(start - before)
            else:
                there = f"{stop - start} tokens" if mask is not None else "no mask to say where they are"
                raise ValueError(
                    f"row {number} of a batch has {self.names[0]!r} for {length} tokens, and, in a batch that is "
                    f"{width} wide, {there}: give one entry for each of its tokens."
                )
        return starts, width


def _numbers(value: Any, kind: type) -> np.ndarray | None:
    """An array; None of lists of different lengths, or of what is no number."""
    if isinstance(value, Tensor):
        value = value.detach().cpu().float() if value.is_floating_point() else value.detach().cpu()
    try:
        return np.asarray(value, dtype=kind)
    except (ValueError, TypeError):
        return None


def _entries(value: Any, positions: bool) -> list[Any]:
    """Lists of few numbers, one for each place; a place without any, which may be None, has an empty one."""
    lists = value if positions else [value]
    return [[] if few is None else few.tolist() if hasattr(few, "tolist") else list(few) for few in lists]
