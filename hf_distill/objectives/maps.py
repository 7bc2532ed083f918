"""Two models that cut an image into other numbers of positions, brought to one grid.

Knows: how many positions there are. Does not know: models, images, what stands at a position.
"""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn import functional as F

PREFIXES = (0, 1, 2, 5)
"""How many positions before a grid stand for the whole image: none, a class token, and a distillation token or four
registers beside it. Any other number is a grid that is not square."""


def on_one_grid(student: Tensor, teacher: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """Bring two layers to the smaller of their grids, where they are not on one already.

    What stands before a square grid (a class token, register tokens) is left out, and the larger grid is averaged.

    Args:
        student: [B, T, H].
        teacher: [B, S, G].
        name: who compares them, for a message.

    Returns:
        [B, N, H] and [B, N, G]; as they are where both have as many positions.

    Raises:
        ValueError: positions that are no square grid.

    Example:
        >>> import torch
        >>> small, large = on_one_grid(torch.zeros(1, 1 + 4, 6), torch.zeros(1, 2 + 16, 8), "hidden_mse")
        >>> small.shape, large.shape
        (torch.Size([1, 4, 6]), torch.Size([1, 4, 8]))
    """
    if student.shape[1] == teacher.shape[1]:
        return student, teacher
    sides = [math.isqrt(state.shape[1]) for state in (student, teacher)]
    before = [state.shape[1] - side**2 for state, side in zip((student, teacher), sides, strict=True)]
    # Three tokens are no grid of one with two before it.
    alone = any(side == 1 and gone for side, gone in zip(sides, before, strict=True))
    if alone or not set(before) <= set(PREFIXES):
        raise ValueError(
            f"{name} compares position with position, the student shows {student.shape[1]} and the teacher "
            f"{teacher.shape[1]}, which are no square grids: use models that cut images alike, or a term on logits or "
            "pooled vectors."
        )
    maps = [
        state[:, gone:].unflatten(1, (side, side))
        for state, gone, side in zip((student, teacher), before, sides, strict=True)
    ]
    side = min(sides)
    pooled = [one if one.shape[1] == side else _averaged(one, side) for one in maps]
    return pooled[0].flatten(1, 2), pooled[1].flatten(1, 2)


def _averaged(grid: Tensor, side: int) -> Tensor:
    """[B, S, S, H] -> [B, side, side, H]."""
    return F.adaptive_avg_pool2d(grid.permute(0, 3, 1, 2), side).permute(0, 2, 3, 1)
