"""What a batch says before any forward: the half of a task that sees no model.

Knows: which rows, labels and positions of a batch count, and how many. Does not know: models, outputs, losses, a
second model.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from hf_distill.models.texts import MASK, text_positions
from hf_distill.tasks.documents import Documents, without_filling
from hf_distill.tasks.layout import LAYOUT, Layout
from hf_distill.tasks.samples import rows_of

UNITS = ("rows", "tokens", "samples", "labels")
"""What the batches of any task are counted by; see ``Task.units``."""


class Counting(ABC):
    """What every ``Task`` says of a batch alone; a unit that a loss is divided by can be counted before any forward.

    Attributes:
        sized_by: the columns of a row that say where its positions are, in a data set: the first that is there.
        packs: a row may hold several texts, of which each is a sample; see ``Documents``.
        streams: the sequences of positions that its models show, the main one first; see ``Signals.stream``.
    """

    sized_by: ClassVar[tuple[str, ...]] = (MASK,)
    packs: ClassVar[bool] = False
    streams: ClassVar[tuple[str, ...]] = ("text",)

    @property
    def units(self) -> tuple[str, ...]:
        """What ``counts`` counts; of several streams the tokens of each beside those of the main one."""
        return (*UNITS, *(f"tokens:{name}" for name in self.streams if len(self.streams) > 1))

    @abstractmethod
    def rows(self, batch: Mapping[str, Any]) -> Tensor:
        """Say which rows of the head count, from the batch alone, so that they can be counted before any forward.

        Args:
            batch: the batch.

        Returns:
            bool, the leading shape of the logits.
        """

    @abstractmethod
    def labels(self, batch: Mapping[str, Any]) -> Tensor | None:
        """Say which labels the hard loss counts.

        Args:
            batch: the batch.

        Returns:
            bool, the shape of the labels; None where the batch has none.
        """

    def mask(self, batch: Mapping[str, Any]) -> Tensor | None:
        """Say which positions of the hidden states are not padding, from the batch alone.

        Args:
            batch: the batch.

        Returns:
            bool [B, T]; None where a batch does not say how many positions a model makes of it, as of an image: terms
            on positions then take the mean inside of each sample, and count samples.
        """
        mask = text_positions(batch)
        return without_filling(batch, mask) if self.packs and mask is not None else mask

    def stream_mask(self, name: str, batch: Mapping[str, Any]) -> Tensor | None:
        """Say which positions of a stream are not padding, from the batch alone.

        Args:
            name: the stream's, one of ``streams``.
            batch: the batch.

        Returns:
            bool [B, T]; None where a batch does not say; see ``mask``, which is that of the main one.
        """
        return self.mask(batch) if name == self.streams[0] else None

    def documents(self, batch: Mapping[str, Any]) -> Documents | None:
        """Find the texts of a packed batch; None where each row is one.

        Args:
            batch: the batch.
        """
        return Documents.of(batch, self.mask(batch)) if self.packs else None

    def counts(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Count what losses are divided by: the units of the terms, and the labels of the hard loss.

        Args:
            batch: the batch.

        Returns:
            Unit -> scalar int64 tensor, of each of ``units``.
        """
        rows, labels, mask, texts = self.rows(batch).sum(), self.labels(batch), self.mask(batch), self.documents(batch)
        samples = rows.new_tensor(rows_of(batch) if texts is None else len(texts.index))

        def tokens(mask: Tensor | None) -> Tensor:
            return samples if mask is None else mask.sum().to(rows.dtype)

        return {
            "rows": rows,
            "tokens": tokens(mask),
            "samples": samples,
            "labels": rows.new_tensor(0) if labels is None else labels.sum(),
            **{unit: tokens(self.stream_mask(unit.partition(":")[2], batch)) for unit in self.units if ":" in unit},
        }

    def layout(self, batch: Mapping[str, Any]) -> Layout:
        """Say what a batch holds; once for a batch in which it travels.

        Args:
            batch: the batch.
        """
        made = batch.get(LAYOUT)
        return made if made is not None and made.task is self else Layout(self, batch)
