"""Two models that cut an image into other numbers of positions, brought to one grid.

Knows: how many positions there are, and on which grid if that is known. Does not know: models, images, what stands at
a position.
"""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn import functional as F

from hf_distill.models.grids import PREFIXES
from hf_distill.signals import Grid, Stream


def on_one_grid(
    student: Tensor, teacher: Tensor, name: str, grids: tuple[Grid | None, Grid | None] = (None, None)
) -> tuple[Tensor, Tensor]:
    """Bring two layers to the smaller of their grids, where they are not on one already.

    What stands before a grid (a class token, register tokens) is left out, and the larger grid is averaged, along
    each side to the smaller number of positions. Grids that are not known are taken for squares.

    Args:
        student: [B, T, H].
        teacher: [B, S, G].
        name: who compares them, for a message.
        grids: the student's and the teacher's, see ``Stream.grids``.

    Returns:
        [B, N, H] and [B, N, G]; as they are where both have as many positions, on one grid.

    Raises:
        ValueError: positions that are not known to be a grid, and no square one.

    Example:
        >>> import torch
        >>> small, large = on_one_grid(torch.zeros(1, 1 + 4, 6), torch.zeros(1, 2 + 16, 8), "hidden_mse")
        >>> small.shape, large.shape
        (torch.Size([1, 4, 6]), torch.Size([1, 4, 8]))
        >>> small, large = on_one_grid(torch.zeros(1, 8, 6), torch.zeros(1, 18, 8), "hidden_mse", ((2, 4), (3, 6)))
        >>> small.shape, large.shape
        (torch.Size([1, 8, 6]), torch.Size([1, 8, 8]))
    """
    known = None not in grids
    if student.shape[1] == teacher.shape[1] and not (known and grids[0] != grids[1]):
        return student, teacher
    if not known:
        grids = _squares(student, teacher, name)
    common = tuple(map(min, *grids))
    pooled = (_averaged(state, grid, common) for state, grid in zip((student, teacher), grids, strict=True))
    return tuple(pooled)


def grid_at(stream: Stream, layer: int) -> Grid | None:
    """Return the grid of a layer; None: not known.

    Args:
        stream: what a model shows.
        layer: its number; 0 is the embedding output.

    Example:
        >>> grid_at(Stream(grids=((4, 8), None)), 0), grid_at(Stream(), 0)
        ((4, 8), None)
    """
    return stream.grids[layer] if layer < len(stream.grids) else None


def _squares(student: Tensor, teacher: Tensor, name: str) -> tuple[Grid, Grid]:
    """Take both for square grids, with as few positions before them as there can be."""
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
    return tuple((side, side) for side in sides)


def _averaged(state: Tensor, grid: Grid, common: Grid) -> Tensor:
    """[B, before + R * C, H] -> [B, r * c, H]."""
    state = state[:, state.shape[1] - math.prod(grid) :]
    if grid == common:
        return state
    grid = state.unflatten(1, grid).permute(0, 3, 1, 2)
    return F.adaptive_avg_pool2d(grid, common).permute(0, 2, 3, 1).flatten(1, 2)
