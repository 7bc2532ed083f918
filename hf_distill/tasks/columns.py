"""The columns of what a model reads: which say where padding is, which are padded with it, whose each entry is.

Knows: the names under which transformers passes texts, masks and decoders. Does not know: models, keys, what is kept.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from hf_distill.models.texts import DECODER, IDS, MASK


@dataclass(frozen=True)
class Columns:
    """How the columns of what a model reads belong to its rows and positions.

    Args:
        mask: [B, T], 1 where a row is; None: no column says so.
        marks: the name of the column that says nothing but where padding is.
        padded: the columns [B, T, ...] with one entry for each position of the mask.
        decoder: those with one for each position of the decoder.
        cuttable: whether padding can be cut off without knowing the model. It cannot where a tensor has the mask's
            length along another axis, as features [B, 80, T] have: cut off the mask alone, it would no longer say
            which of them are padding.

    Example:
        >>> import torch
        >>> ids, features = torch.ones(2, 3), torch.ones(2, 80, 9)
        >>> columns = Columns.of({"input_ids": ids, "attention_mask": ids, "pixel_values": torch.ones(2, 3, 8, 8)})
        >>> sorted(columns.padded), columns.cuttable
        (['attention_mask', 'input_ids', 'pixel_values'], True)
        >>> Columns.of({"input_features": features, "attention_mask": torch.ones(2, 9)}).cuttable
        False
    """

    mask: Tensor | None
    marks: str
    padded: frozenset[str]
    decoder: frozenset[str]
    cuttable: bool

    @classmethod
    def of(cls, inputs: Mapping[str, Any], decoder: Tensor | None = None) -> Columns:
        """Look at the columns.

        Args:
            inputs: what a model is given.
            decoder: bool [B, D], the decoder's positions; None where it has none of its own. The two are never mixed
                up, even where they are equally long.
        """
        mask = inputs.get(MASK)
        mask = mask if isinstance(mask, Tensor) and mask.ndim == 2 else None
        padded = _along(inputs, mask, False)
        rest = (n for n, v in inputs.items() if isinstance(v, Tensor) and n not in padded and not _is_decoders(n))
        cuttable = mask is not None and not any(mask.shape[1] in inputs[name].shape[1:] for name in rest)
        return cls(mask, MASK, padded, _along(inputs, decoder, True), cuttable)


def _along(inputs: Mapping[str, Any], mask: Tensor | None, decoder: bool) -> frozenset[str]:
    if mask is None:
        return frozenset()
    fits = (n for n, v in inputs.items() if isinstance(v, Tensor) and v.shape[:2] == mask.shape)
    return frozenset(name for name in fits if _is_decoders(name) is decoder)


def _is_decoders(name: str) -> bool:
    return name.startswith(DECODER) or name == "labels"


def several_texts_a_row(inputs: Mapping[str, Any]) -> Tensor | None:
    """Return the mask of rows that are several texts [B, choices, T], as those of multiple choice; None: of others.

    Args:
        inputs: what a model is given.
    """
    mask = inputs.get(MASK)
    return mask if isinstance(mask, Tensor) and mask.ndim == 3 else None


def choices_in(batch: Mapping[str, Any]) -> int | None:
    """Count the texts of each row, where a row is several; None: it is not.

    Args:
        batch: the batch.

    Example:
        >>> import torch
        >>> choices_in({"input_ids": torch.ones(2, 4, 9)}), choices_in({"input_ids": torch.ones(2, 9)})
        (4, None)
    """
    ids = batch.get(IDS)
    return ids.shape[1] if isinstance(ids, Tensor) and ids.ndim == 3 else None


def rows_in(inputs: Mapping[str, Any], ragged: Collection[str] = ()) -> int:
    """Count the rows of a batch, and refuse one that cannot be told apart into rows.

    Args:
        inputs: name -> tensor [B, ...].
        ragged: columns with any number of entries a row, of which it is known whose each is.

    Raises:
        ValueError: in one sentence.

    Example:
        >>> import torch
        >>> rows_in({"input_ids": torch.ones(4, 3), "labels": torch.ones(4)})
        4
    """
    sizes = {}
    for name, value in inputs.items():
        if not isinstance(value, Tensor) or value.ndim == 0:
            raise ValueError(f"the column {name!r} is a {type(value).__name__} without rows")
        if name not in ragged:
            sizes[name] = len(value)
    if not sizes:
        raise ValueError("the batch has no column that the teacher reads")
    ids = inputs.get(IDS, next(iter(inputs.values())))
    if strangers := [name for name, size in sizes.items() if size != len(ids)]:
        raise ValueError(f"the column {strangers[0]!r} has {sizes[strangers[0]]} entries for {len(ids)} rows")
    starts = inputs.get("position_ids")
    if len(ids) == 1 and starts is not None and starts.ndim == 2 and int((starts == 0).sum()) > 1:
        raise ValueError("several texts are packed into one row, whose company changes with every shuffle")
    return len(ids)
