"""Which rows of a batch are the same image or the same text: a number for each, equal on every rank.

Knows: tensors, padding. Does not know: what they are of, models, ranks.
"""

from __future__ import annotations

import torch
from torch import Tensor

GOLDEN, FIRST, SECOND = -7046029254386353131, -4658895280553007687, -7723592293110705685
"""The constants of SplitMix64, as signed numbers."""


def row_numbers(rows: Tensor, mask: Tensor | None = None) -> Tensor:
    """Make a number of the content of each row, without waiting for the device.

    Args:
        rows: [B, ...], integers or floats.
        mask: bool [B, T], the positions that are no padding; None: all are. A row is the same under any padding.

    Returns:
        int64 [B]; other rows have other numbers but for a chance of 2**-60.

    Example:
        >>> ids, mask = torch.tensor([[5, 6, 0], [5, 6, 7]]), torch.tensor([[1, 1, 0], [1, 1, 1]])
        >>> one, other = row_numbers(ids, mask)
        >>> bool(one == row_numbers(torch.tensor([[5, 6]]))[0]), bool(one == other)
        (True, False)
    """
    rows = rows.detach()
    if rows.is_floating_point():
        rows = rows.float().contiguous().view(torch.int32)
    flat = rows.reshape(len(rows), -1).long() + 1
    place = torch.arange(flat.shape[1], device=flat.device)
    if mask is not None and mask.shape == flat.shape:
        place, flat = (mask.long().cumsum(dim=1) - 1).clamp(min=0), flat * mask.long()
    return (flat * _mixed(place)).sum(dim=1)


def _mixed(place: Tensor) -> Tensor:
    """A weight of 64 bits for each place, always the same one."""
    bits = (place + 1) * GOLDEN
    bits = (bits ^ (bits >> 30)) * FIRST
    bits = (bits ^ (bits >> 27)) * SECOND
    return (bits ^ (bits >> 31)) | 1
