"""Layout: what one micro-batch holds, said by its task from the batch alone, and each thing once.

Knows: which rows, labels and positions count, and how many. Does not know: how a task finds out, models, terms.

Everything that a loss is divided by can be counted before any forward, so a step is counted as a whole. The layout of
a batch travels in it, down to whoever reads a model's outputs; other rows, or the columns that a teacher reads
instead, have a layout of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from hf_distill.tasks.documents import Documents

LAYOUT = "distillation_layout"
"""The column under which it travels; no model and no function is given it."""
STEP = "distillation_step"
"""The column under which travels what is known of all micro-batches of a step; see ``company.Step``."""


class Layout:
    """What one micro-batch holds; each answer is worked out when it is first asked for, and kept.

    Args:
        task: who says it; another task of the same batch has another layout.
        batch: the batch.

    Example:
        >>> import torch
        >>> from hf_distill.tasks import SequenceClassification
        >>> batch = {"input_ids": torch.ones(2, 5), "labels": torch.tensor([1, -100])}
        >>> layout = SequenceClassification(num_labels=3).layout(batch)
        >>> layout.rows.tolist(), layout.labels.tolist(), layout.counts["tokens"].item()
        ([True, True], [True, False], 10)
    """

    def __init__(self, task: Any, batch: Mapping[str, Any]) -> None:
        self.task, self._columns = task, without_layout(batch)  # not the batch itself, which will hold this

    @cached_property
    def rows(self) -> Tensor:
        """Which distributions count: bool, the leading shape of the logits."""
        return self.task.rows(self._columns)

    @cached_property
    def labels(self) -> Tensor | None:
        """Which labels the supervised loss counts: bool, their shape; None: there are none."""
        return self.task.labels(self._columns)

    @cached_property
    def mask(self) -> Tensor | None:
        """Which positions of the hidden states are no padding: bool [B, T]; None: the batch does not say."""
        return self.task.mask(self._columns)

    @cached_property
    def documents(self) -> Documents | None:
        """The texts of packed rows; None: each row is one."""
        return self.task.documents(self._columns)

    @cached_property
    def counts(self) -> dict[str, Tensor]:
        """What losses are divided by: unit -> int64 scalar."""
        return self.task.counts(self._columns)

    def units(self, names: Iterable[str]) -> Tensor:
        """Return counts side by side, as ranks add them up.

        Args:
            names: of the units.

        Returns:
            int64 [number of names].
        """
        found = [self.counts[name] for name in names]
        away = next((one.device for one in found if one.device.type != "cpu"), None)  # a task may count a size there
        return torch.stack(found if away is None else [one.to(away) for one in found])


def without_layout(batch: Mapping[str, Any]) -> dict[str, Any]:
    """Return the batch as it came from the data: for a function or a model, for some of its rows, for a message.

    What is known of the whole step is left out as well.

    Args:
        batch: the batch.

    Example:
        >>> without_layout({"pixel_values": 1, LAYOUT: 2})
        {'pixel_values': 1}
    """
    return {name: value for name, value in batch.items() if name not in (LAYOUT, STEP)}
