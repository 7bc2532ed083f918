"""How many samples a batch has, and which positions of its texts are no padding: from its columns alone.

Knows: the names of columns that have one entry a sample. Does not know: tasks, models, labels' meaning.

The first tensor of a batch says neither: an image model's may hold patches of several images, a detector's the boxes
of one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from accelerate.utils import find_batch_size
from torch import Tensor

ONE_A_SAMPLE = (
    "input_ids", "inputs_embeds", "attention_mask", "decoder_input_ids", "labels", "input_values", "input_features",
    "pixel_mask",
)  # fmt: skip
"""Columns with one entry a sample, in the order in which they are asked; ``pixel_values`` may hold patches."""


def rows_of(batch: Mapping[str, Any]) -> int:
    """Count the samples of a batch.

    Args:
        batch: the batch; labels may be a list with an entry a sample, as those of a detector.

    Example:
        >>> import torch
        >>> rows_of({"pixel_values": torch.ones(96, 12), "input_ids": torch.ones(2, 7)})
        2
        >>> rows_of({"labels": [{"boxes": torch.ones(1, 4)}] * 8, "pixel_values": torch.ones(8, 3, 32, 32)})
        8
    """
    for name in ONE_A_SAMPLE:
        value = batch.get(name)
        if isinstance(value, (list, tuple)) or (isinstance(value, Tensor) and value.ndim):
            return len(value)
    return find_batch_size(batch)
