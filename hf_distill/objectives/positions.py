"""Which tokens of a row are compared, where one stands for all of them.

Knows: which positions are not padding. Does not know: what stands there.
"""

from __future__ import annotations

from torch import Tensor

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
