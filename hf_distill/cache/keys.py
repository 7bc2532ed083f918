"""The identity of a row: a hash of what a model is given for it.

Knows: tensors, attention masks, padding. Does not know: models, what a row is answered with, where that is kept.

The content is the key, not an index: a row that was augmented, truncated or tokenised in another way is another row, a
row that occurs twice is one. The labels are no part of it, unless the model reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
import xxhash
from torch import Tensor

from hf_distill.tasks.batches import spans_of
from hf_distill.tasks.columns import Columns, rows_in


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


def keys_of(
    inputs: Mapping[str, Any],
    padding: Padding = NEITHER,
    decoder: Tensor | None = None,
    owners: Mapping[str, Tensor] = MappingProxyType({}),
) -> list[bytes]:
    """Hash what a model is given, row by row.

    Integers are widened, so their type does not matter; floats count by their bytes and type. A mask without a hole
    is dropped with the padding. Without a mask, padding is content: the model attends to it.

    Args:
        inputs: name -> tensor [B, ...]; exactly what the model is given, labels only if it reads them.
        padding: on which sides the model ignores padding.
        decoder: bool [B, D], the decoder's positions; None where it has none of its own.
        owners: column -> whose each entry is, of those with any number a row; a row is named by its own, and one
            without any as if the column were not there. See ``pairing.owners_of``.

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
    size = rows_in(inputs, owners)
    laid = Columns.of({name: value for name, value in inputs.items() if name not in owners}, decoder)
    groups: dict[str, np.ndarray] = {}
    unpadded = np.zeros(size, dtype=bool)  # nothing but the row itself, so the mask says nothing
    for where, along, of_decoder in ((laid.mask, laid.padded, False), (decoder, laid.decoder, True)):
        if where is None:
            continue
        spans, length = spans_of(where), where.shape[1]
        full = (spans[:, 0] == 0) & (spans[:, 1] == length)
        if of_decoder or laid.cuttable:
            kept = ((spans[:, 0] > 0) & (not padding.left)) | ((spans[:, 1] < length) & (not padding.right))
            cut = np.where(kept[:, None], (0, length), spans)
            groups.update(dict.fromkeys(along, cut))
            full = full | ~kept
        if not of_decoder:
            unpadded = full & (where.bool().sum(dim=1).cpu().numpy() == spans[:, 1] - spans[:, 0])
    columns = [(name, *bytes_of(inputs[name]), groups.get(name)) for name in sorted(inputs)]

    keys = []
    for row in range(size):
        state = xxhash.xxh3_128()
        for name, array, kind, span in columns:
            if name == laid.marks and unpadded[row]:
                continue
            if name in owners:
                values = _own(array, owners[name].cpu().numpy(), row)
                if not len(values):
                    continue
            else:
                values = array[row] if span is None else array[row, span[row, 0] : span[row, 1]]
            state.update(f"{name}|{kind}|{values.shape}|".encode())
            state.update(values)
        keys.append(state.digest())
    return keys


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


def _own(array: np.ndarray, owners: np.ndarray, row: int) -> np.ndarray:
    """The entries of one row; of places that hold an image or none those up to the last image."""
    if owners.ndim == 2:
        return array[row, : int((owners[row] * np.arange(1, owners.shape[1] + 1)).max())]
    return array[owners == row]
