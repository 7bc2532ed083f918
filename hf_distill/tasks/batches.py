"""Batches cut into rows, put behind each other, and freed of what travels with them.

Knows: tensors, arrays and lists with one entry a row. Does not know: models, what a row is answered with.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hf_distill.tasks.layout import without_layout

KEYS = "cached_rows_"
"""What the columns begin with under which keys travel in a batch."""


def take(
    batch: Mapping[str, Any],
    rows: Sequence[int] | np.ndarray,
    size: int | None = None,
    owners: Mapping[str, Tensor] = MappingProxyType({}),
) -> dict[str, Any]:
    """Keep some rows of a batch, as they came.

    Args:
        batch: tensors, arrays and lists with one entry a row are cut; anything else is left as it is.
        rows: which ones, in which order.
        size: how many rows the batch has; None: as many as its ``input_ids``, or its first tensor.
        owners: column -> whose each entry is, of those with any number a row; such a column is left out where the
            rows have none. See ``pairing.owners_of``.

    Returns:
        The batch of these rows.

    Example:
        >>> take({"input_ids": torch.tensor([[1], [2], [3]]), "texts": ["a", "b", "c"], "scale": 2.0}, [2, 0])
        {'input_ids': tensor([[3],
                [1]]), 'texts': ['c', 'a'], 'scale': 2.0}
    """
    if size is None:
        first = batch.get("input_ids", next((v for v in batch.values() if isinstance(v, Tensor) and v.ndim), ()))
        size = len(first)

    def kept(value: Any) -> Any:
        if isinstance(value, Tensor) and value.ndim and len(value) == size:
            return value[torch.as_tensor(rows, device=value.device)]
        if isinstance(value, np.ndarray) and value.ndim and len(value) == size:
            return value[rows]
        return [value[row] for row in rows] if isinstance(value, list) and len(value) == size else value

    ragged = {name: entries_of(batch[name], owners[name], rows) for name in owners if name in batch}
    taken = {name: kept(value) for name, value in without_layout(batch).items() if name not in ragged}
    return {**taken, **{name: value for name, value in ragged.items() if value.numel()}}


def entries_of(value: Tensor, owners: Tensor, rows: Sequence[int] | np.ndarray) -> Tensor:
    """Take from a column with any number of entries a row those of some rows.

    Args:
        value: [entries, ...], or [B, places, ...].
        owners: int64 [entries], the row of each, or bool [B, places], which hold an entry.
        rows: which ones, in which order; one that is named twice brings its entries twice.

    Returns:
        [entries, ...]; or [rows, places, ...], as many places as the fullest of these rows needs.

    Example:
        >>> entries_of(torch.tensor([10, 11, 12]), torch.tensor([0, 0, 2]), [2, 1, 0])
        tensor([12, 10, 11])
    """
    if owners.ndim == 2:
        which = torch.as_tensor(rows)
        width = int((owners.cpu()[which].any(dim=0) * torch.arange(1, owners.shape[1] + 1)).max())
        return value[which.to(value.device), :width]
    chosen = torch.cat([(owners == int(row)).nonzero()[:, 0] for row in rows])
    return value[chosen.to(value.device)]


def plain(batch: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out the columns that hold keys.

    Args:
        batch: the batch.

    Example:
        >>> plain({"input_ids": 1, KEYS + "0": 2})
        {'input_ids': 1}
    """
    return {name: value for name, value in batch.items() if not name.startswith(KEYS)}


def join(batches: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Put batches behind each other, padded on the right to the longest; for models that ignore that padding.

    Args:
        batches: batches with the same columns.

    Returns:
        One batch.

    Example:
        >>> short, long = {"input_ids": torch.tensor([[7]])}, {"input_ids": torch.tensor([[8, 9]])}
        >>> join([short, long])["input_ids"].tolist()
        [[7, 0], [8, 9]]
    """
    joined, names = {}, dict.fromkeys(name for batch in batches for name in batch)
    for name in names:  # of images a batch may have none
        parts = [batch[name] for batch in batches if name in batch]
        if isinstance(parts[0], Tensor) and parts[0].ndim:
            joined[name] = torch.cat(list(_equally_wide(parts, name)))
    return joined


def _equally_wide(tensors: list[Tensor], name: str) -> Iterator[Tensor]:
    width = max((t.shape[1] for t in tensors if t.ndim > 1), default=0)
    for tensor in tensors:
        if tensor.ndim > 1 and tensor.shape[1] < width:
            more = (len(tensor), width - tensor.shape[1], *tensor.shape[2:])
            tensor = torch.cat((tensor, tensor.new_full(more, -100 if name == "labels" else 0)), dim=1)
        yield tensor


def spans_of(mask: Tensor) -> np.ndarray:
    """Find where each row begins and ends.

    Args:
        mask: bool or integer [B, T], true or 1 where the row is.

    Returns:
        int64 [B, 2], the first position and one past the last; 0, 0 for a row that is nowhere.

    Example:
        >>> spans_of(torch.tensor([[0, 1, 1, 0], [1, 0, 1, 1]])).tolist()
        [[1, 3], [0, 4]]
    """
    there = mask.bool().cpu().numpy()
    if there.shape[1] == 0:
        return np.zeros((len(there), 2), dtype=np.int64)
    first, last = there.argmax(axis=1), there.shape[1] - there[:, ::-1].argmax(axis=1)
    return np.stack((first, last), axis=1) * there.any(axis=1, keepdims=True)
