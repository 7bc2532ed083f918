"""Which rows of a batch the supervised loss may learn from.

Knows: one column of a batch, and the columns that hold labels. Does not know: tasks, models, who wrote a row.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hf_distill.signals import STUDENT_WROTE

LABELS = ("labels", "shift_labels")


def supervised(batch: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a batch as the supervised loss reads it: what the student wrote is no label.

    Args:
        batch: the batch; labels [B, T], and ``student_wrote`` bool [B] if there are such rows.

    Returns:
        The same batch, or one with -100 for every label of these rows.

    Example:
        >>> import torch
        >>> batch = {"labels": torch.tensor([[5, 6], [7, 8]]), STUDENT_WROTE: torch.tensor([False, True])}
        >>> supervised(batch)["labels"].tolist()
        [[5, 6], [-100, -100]]
    """
    if (wrote := batch.get(STUDENT_WROTE)) is None:
        return batch
    masked = {n: batch[n].masked_fill(wrote.to(batch[n].device)[:, None], -100) for n in LABELS if n in batch}
    return {**batch, **masked}
