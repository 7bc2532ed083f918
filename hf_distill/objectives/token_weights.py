"""Which tokens of a row are compared, where one stands for all of them; and what is counted.

Knows: which positions are not padding. Does not know: what stands there.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hf_distill.signals import Sum

POSITIONS = ("first", "last", "all")
"""Which real tokens of a row can be asked for."""


def shares(counted: Tensor, token: str = "all") -> Tensor:
    """Say how much each position has of what its row is worth: one token has all of it, or all have as much.

    Args:
        counted: bool [B, T], the positions that are not padding, wherever that stands.
        token: one of ``POSITIONS``.

    Returns:
        float32 [B, T]; each row adds up to 1, and to 0 where nothing counts.

    Example:
        >>> import torch
        >>> shares(torch.tensor([[False, True, True]])), shares(torch.tensor([[False, True, True]]), "first")
        (tensor([[0.0000, 0.5000, 0.5000]]), tensor([[0., 1., 0.]]))
    """
    here = counted
    if token != "all":
        seen = counted.cumsum(dim=-1)
        here = counted & (seen == (1 if token == "first" else seen[:, -1:]))
    return here.float() / here.sum(dim=-1, keepdim=True).clamp(min=1)


def sum_over(counted: Tensor, total: Tensor, mask: Tensor | None) -> Sum:
    """Count what a total was added over: positions, or samples where no batch says how many positions there are.

    An image becomes as many positions as a model makes of it, which is not known before a forward, when everything is
    counted that a loss is divided by. Its positions are then worth one sample together.

    Args:
        counted: bool [B, T], the positions that were added.
        total: scalar, the sum over them.
        mask: as in ``Signals``; None: positions are not known before a forward.

    Returns:
        The total and its count.

    Example:
        >>> four = torch.ones(2, 2, dtype=torch.bool)
        >>> sum_over(four, torch.tensor(8.0), four), sum_over(four, torch.tensor(8.0), None)
        (Sum(total=tensor(8.), count=tensor(4)), Sum(total=tensor(4.), count=tensor(2)))
    """
    positions = counted.sum()
    if mask is not None:
        return Sum(total, positions)
    samples = torch.full_like(positions, len(counted))
    return Sum(total * samples / positions.clamp(min=1), samples)
