"""Rows of different lengths, taken out of a batch and put into one.

Knows: masks, sides, fill values. Does not know: prompts, models, which row was rewritten.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

Row = dict[str, Tensor]
"""Column -> the values of one row [n, ...], without padding."""


def is_left(mask: Tensor, default: bool) -> bool:
    """Say on which side a batch is padded.

    Args:
        mask: bool [B, T].
        default: what to say where nothing is padded.

    Example:
        >>> import torch
        >>> is_left(torch.tensor([[False, True], [True, True]]), default=False)
        True
    """
    left, right = bool((~mask[:, 0]).any()), bool((~mask[:, -1]).any())
    return left if left != right else default


def span(mask: Tensor) -> slice:
    """Return where a row is: from its first to its last position.

    Args:
        mask: bool [T].

    Example:
        >>> import torch
        >>> span(torch.tensor([False, True, False, True, False]))
        slice(1, 4, None)
    """
    there = mask.nonzero()
    return slice(int(there[0]), int(there[-1]) + 1) if len(there) else slice(0, 0)


def stacked(rows: Sequence[Row], fill: Mapping[str, int], left: bool) -> dict[str, Tensor]:
    """Pad rows to the longest and put them under each other.

    Args:
        rows: with the same columns.
        fill: column -> what padding is; 0 where it does not say.
        left: whether padding comes before a row.

    Returns:
        Column -> [B, T, ...].

    Example:
        >>> import torch
        >>> stacked([{"ids": torch.tensor([5])}, {"ids": torch.tensor([6, 7])}], {"ids": 0}, left=True)["ids"]
        tensor([[0, 5],
                [6, 7]])
    """
    batch = {}
    for name, first in rows[0].items():
        width = max(1, *(len(row[name]) for row in rows))
        batch[name] = first.new_full((len(rows), width, *first.shape[1:]), fill.get(name, 0))
        for number, row in enumerate(rows):
            where = slice(width - len(row[name]), None) if left else slice(len(row[name]))
            batch[name][number, where] = row[name]
    return batch
