"""The rows of a batch, each of which has an answer of its own: their keys, some of them alone, where they lie.

Knows: batches, what a teacher reads of them, layouts. Does not know: which model answers, where answers are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor

from hf_distill.cache.answers import one_a_row, unkeepable
from hf_distill.cache.cacheable import Ask, examine, inseparable, owners_in
from hf_distill.cache.keys import Padding, keys_of
from hf_distill.signals import Signals
from hf_distill.tasks import Task
from hf_distill.tasks.batches import spans_of, take
from hf_distill.tasks.columns import rows_in
from hf_distill.tasks.layout import Layout
from hf_distill.tasks.pairing import owners_of


class Rows:
    """A batch whose rows have an answer each; see ``Texts`` for packed ones, where a row has several.

    Args:
        batch: the batch, without keys.
        read: gives what the teacher reads of a batch.
        task: the teacher's.
        placeholders: the tokens that stand in a text for images and the like; see ``pairing``.
    """

    packed = False
    """Whether the batch says of each row where its texts begin."""
    several = False
    """Whether one of its rows holds several texts that are known apart."""

    def __init__(
        self,
        batch: Mapping[str, Any],
        read: Callable[[Mapping[str, Any]], dict[str, Tensor]],
        task: Task,
        placeholders: Mapping[str, int],
    ) -> None:
        self.batch, self.read, self.task, self.placeholders = batch, read, task, placeholders

    @cached_property
    def inputs(self) -> dict[str, Tensor]:
        """What the teacher reads of the batch."""
        return self.read(self.batch)

    @cached_property
    def layout(self) -> Layout:
        """What the batch holds, as the teacher reads it."""
        return self.task.layout(self.task.teacher_batch(self.batch))

    @cached_property
    def spans(self) -> np.ndarray | None:
        """Where the rows are in the batch, int64 [n, 3]; None: their answers say it. See ``Answers.signals``."""
        mask = None if self.task.frames else self.layout.mask
        return None if mask is None else one_a_row(spans_of(mask))

    def inseparable(self) -> str:
        """Say why the batch cannot be told apart into rows; empty where it can."""
        return inseparable(self.inputs, self.placeholders)

    def keys(self, padding: Padding) -> list[bytes]:
        """Name the rows; see ``keys_of``.

        Args:
            padding: on which sides the teacher ignores padding.
        """
        decoder = self.layout.mask if self.task.reads_labels else None
        return keys_of(self.inputs, padding, decoder, owners_of(self.inputs, self.placeholders))

    def cut(self, numbers: Sequence[int]) -> Rows:
        """Keep some rows.

        Args:
            numbers: which ones, in which order.
        """
        size = rows_in(self.inputs, owners_of(self.inputs, self.placeholders))
        owners = owners_in(self.batch, self.inputs, self.placeholders)
        return Rows(take(self.batch, numbers, size, owners), self.read, self.task, self.placeholders)

    def alone(self) -> Rows:
        """Return what is looked at, to find out how the teacher answers rows: the batch."""
        return self

    def examine(self, ask: Ask, tolerance: float, collective: bool) -> tuple[str, Padding | None]:
        """Find out whether answers can be kept row by row; see ``cacheable.examine``.

        Args:
            ask: the teacher.
            tolerance: as in ``answers_alone``.
            collective: whether all ranks ask together, as often.
        """
        known = (self.task.positions, self.placeholders, self.task.paired)
        return examine(ask, self.batch, self.inputs, tolerance, collective, *known)

    def spans_in(self, shown: Signals) -> np.ndarray | None:
        """Say where the rows are in their answer; None: everywhere.

        Args:
            shown: the answer.
        """
        return None if shown.mask is None else one_a_row(spans_of(shown.mask))

    def unkeepable(self, shown: Signals) -> str:
        """Say why an answer cannot be taken apart, which the first one does not say of a later one; empty if it can.

        Args:
            shown: the answer.
        """
        reason = unkeepable(shown, self.task.positions)
        if not reason and self.spans is not None and shown.mask is not None:
            if not np.array_equal(self.spans_in(shown), self.spans):
                reason = "its rows have other lengths than the batch's, and its task does not say so (Task.frames)"
        return reason

    def alike(self, ask: Ask, tolerance: float, collective: bool) -> str | None:
        """Say why a text is not the same packed and alone: nothing here, where none is packed. See ``Texts.alike``.

        Args:
            ask: the teacher.
            tolerance: as in ``answers_alone``.
            collective: whether all ranks ask together, as often.
        """
        for _ in range(2 if collective else 0):
            ask(self.batch)
        return ""
