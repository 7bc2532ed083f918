"""The identity of a row: a hash of what a model is given for it.

Knows: tensors, attention masks, padding. Does not know: models, what a row is answered with, where that is kept.

The content is the key, not an index: a row that was augmented, truncated or tokenised in another way is another row, a
row that occurs twice is one. The labels are no part of it, unless the model reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
import xxhash
from torch import Tensor

from hf_distill.tasks.batches import spans_of

DECODER = "decoder_"
"""Columns under this prefix have the decoder's positions, not those of ``attention_mask``."""


class Padding(NamedTuple):
    """On which sides a model ignores padding, so that the same row is the same row under any width of it.

    Args:
        right: behind the row.
        left: before it; absolute positions, given by no ``position_ids``, would move.
    """

    right: bool = False
    left: bool = False


NEITHER = Padding()
"""Nothing is known of the model: padding is a part of the row."""


def along(inputs: Mapping[str, Any], mask: Tensor | None, decoder: bool = False) -> set[str]:
    """Name the columns that have one entry for each position of a mask.

    Args:
        inputs: what a model is given.
        mask: [B, T].
        decoder: whether it is the decoder's; the two are never mixed up, even where they are equally long.

    Returns:
        Names of tensors [B, T, ...].

    Example:
        >>> ids = torch.ones(2, 3)
        >>> sorted(along({"input_ids": ids, "decoder_input_ids": ids, "pixel_values": torch.ones(2, 3, 8, 8)}, ids))
        ['input_ids', 'pixel_values']
    """
    if mask is None:
        return set()
    return {
        name
        for name, value in inputs.items()
        if isinstance(value, Tensor)
        and value.shape[:2] == mask.shape
        and (name.startswith(DECODER) or name == "labels") is decoder
    }


def trimmable(inputs: Mapping[str, Any], mask: Tensor | None) -> bool:
    """Say whether padding can be cut off a batch without knowing the model.

    It cannot where a tensor has the mask's length along another axis, as features [B, 80, T] have: cut off the mask
    alone, it would no longer say which of them are padding.

    Args:
        inputs: what a model is given.
        mask: [B, T]; None: there is no padding to be known of.

    Example:
        >>> trimmable({"input_features": torch.ones(2, 80, 9)}, torch.ones(2, 9))
        False
    """
    if mask is None or mask.ndim != 2:
        return False
    cut, length = along(inputs, mask), mask.shape[1]
    return not any(length in value.shape[1:] for name, value in inputs.items() if _rest(name, value, cut))


def keys_of(inputs: Mapping[str, Any], padding: Padding = NEITHER, decoder: Tensor | None = None) -> list[bytes]:
    """Hash what a model is given, row by row.

    Integers are widened, so their type does not matter; floats count by their bytes and type. A mask without a hole
    is dropped with the padding. Without a mask, padding is content: the model attends to it.

    Args:
        inputs: name -> tensor [B, ...]; exactly what the model is given, labels only if it reads them.
        padding: on which sides the model ignores padding.
        decoder: bool [B, D], the decoder's positions; None where it has none of its own.

    Returns:
        B keys of 16 bytes.

    Raises:
        ValueError: a column is no tensor, or its first size is not the number of rows.

    Example:
        >>> one = {"input_ids": torch.tensor([[5, 6, 0]]), "attention_mask": torch.tensor([[1, 1, 0]])}
        >>> keys_of(one, Padding(right=True)) == keys_of({"input_ids": torch.tensor([[5, 6]])})
        True
        >>> keys_of(one) == keys_of({"input_ids": torch.tensor([[5, 6]])})
        False
    """
    size, mask = rows_in(inputs), inputs.get("attention_mask")
    mask = mask if isinstance(mask, Tensor) and mask.ndim == 2 else None
    groups: dict[str, np.ndarray] = {}
    unpadded = np.zeros(size, dtype=bool)  # nothing but the row itself, so the mask says nothing
    for where, of_decoder in ((mask, False), (decoder, True)):
        if where is None:
            continue
        spans, length = spans_of(where), where.shape[1]
        full = (spans[:, 0] == 0) & (spans[:, 1] == length)
        if of_decoder or trimmable(inputs, mask):
            kept = ((spans[:, 0] > 0) & (not padding.left)) | ((spans[:, 1] < length) & (not padding.right))
            cut = np.where(kept[:, None], (0, length), spans)
            groups.update(dict.fromkeys(along(inputs, where, of_decoder), cut))
            full = full | ~kept
        if not of_decoder:
            unpadded = full & (where.bool().sum(dim=1).cpu().numpy() == spans[:, 1] - spans[:, 0])
    columns = [(name, *bytes_of(inputs[name]), groups.get(name)) for name in sorted(inputs)]

    keys = []
    for row in range(size):
        state = xxhash.xxh3_128()
        for name, array, kind, span in columns:
            if name == "attention_mask" and unpadded[row]:
                continue
            values = array[row] if span is None else array[row, span[row, 0] : span[row, 1]]
            state.update(f"{name}|{kind}|{values.shape}|".encode())
            state.update(values)
        keys.append(state.digest())
    return keys


def rows_in(inputs: Mapping[str, Any]) -> int:
    """Count the rows of a batch, and refuse one that cannot be told apart into rows.

    Args:
        inputs: name -> tensor [B, ...].

    Raises:
        ValueError: in one sentence.

    Example:
        >>> rows_in({"input_ids": torch.ones(4, 3), "labels": torch.ones(4)})
        4
    """
    sizes = {}
    for name, value in inputs.items():
        if not isinstance(value, Tensor) or value.ndim == 0:
            raise ValueError(f"the column {name!r} is a {type(value).__name__} without rows")
        sizes[name] = len(value)
    if not sizes:
        raise ValueError("the batch has no column that the teacher reads")
    ids = inputs.get("input_ids", next(iter(inputs.values())))
    if strangers := [name for name, size in sizes.items() if size != len(ids)]:
        raise ValueError(f"the column {strangers[0]!r} has {sizes[strangers[0]]} entries for {len(ids)} rows")
    starts = inputs.get("position_ids")
    if len(ids) == 1 and starts is not None and starts.ndim == 2 and int((starts == 0).sum()) > 1:
        raise ValueError("several texts are packed into one row, whose company changes with every shuffle")
    return len(ids)


def bytes_of(tensor: Tensor) -> tuple[np.ndarray, str]:
    """Return an array whose bytes are the content of a tensor, and the name of their type.

    Args:
        tensor: of any shape, dtype and device.

    Returns:
        Integers as int64, so that their type does not matter; floats as they are.

    Example:
        >>> bytes_of(torch.tensor([1, 2], dtype=torch.int32))
        (array([1, 2]), 'int')
    """
    if not tensor.is_floating_point() and not tensor.is_complex():
        return tensor.detach().cpu().to(torch.int64).contiguous().numpy(), "int"
    kind = str(tensor.dtype)
    tensor = tensor.detach().cpu().contiguous()
    return (tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor).numpy(), kind


def _rest(name: str, value: Any, cut: set[str]) -> bool:
    return name not in cut and not name.startswith(DECODER) and name != "labels" and isinstance(value, Tensor)
