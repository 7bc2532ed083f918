"""Which grid the positions of an image model are, laid out row by row.

Knows: sizes of images and of patches, what stands before a grid. Does not know: what stands at a position, terms.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor, nn

from hf_distill.models.outputs import core_of
from hf_distill.signals import Grid

PREFIXES = (0, 1, 2, 5)
"""How many positions before a grid stand for the whole image: none, a class token, and a distillation token or four
registers beside it. Any other number says that the grid is another one."""


def grids_of(model: nn.Module | None, states: Iterable[Tensor], size: Grid | None) -> tuple[Grid | None, ...]:
    """Say which grid each hidden state of an image model is.

    Args:
        model: whose they are; None: nobody knows.
        states: feature maps [B, C, H, W], whose grid they show; or positions [B, T, C], whose grid is that of the
            model's patches or, where it makes other ones on its way, has the sides of the image.
        size: height and width of the image; None: not known.

    Returns:
        For each its rows and columns, None where they are not known.

    Example:
        >>> import torch
        >>> grids_of(None, [torch.zeros(1, 8, 3, 5), torch.zeros(1, 1 + 9, 6), torch.zeros(1, 12, 6)], (32, 32))
        ((3, 5), (3, 3), None)
    """
    patch = None if model is None else _patch(core_of(model))
    return tuple(_grid(state, patch, size) for state in states)


def _grid(state: Tensor, patch: Grid | None, size: Grid | None) -> Grid | None:
    if state.ndim == 4:
        return state.shape[2], state.shape[3]
    if size is None or state.ndim != 3:
        return None
    positions = state.shape[1]
    if patch is not None:
        rows, columns = (side // own for side, own in zip(size, patch, strict=True))
        if rows * columns > 0 and positions - rows * columns in PREFIXES:
            return rows, columns
    return grid_of(positions, size)


@functools.lru_cache(maxsize=1024)
def grid_of(positions: int, size: Grid) -> Grid | None:
    """Find the grid that has the sides of an image.

    Args:
        positions: how many there are, those before the grid too.
        size: height and width of the image.

    Returns:
        Rows and columns, whose relation is that of the sides or, where none is, that of the sides cut into squares of
        which the last ones are not whole. None: there is no such grid, or more than one; a grid of one position has
        nothing before it.

    Example:
        >>> grid_of(1 + 32, (16, 32)), grid_of(12, (36, 52)), grid_of(3 * 5, (32, 32))
        ((4, 8), (3, 4), None)
    """
    height, width = size
    whole = {(rows, columns) for rows, columns in _grids(positions) if rows * width == columns * height}
    cut = {
        (rows, columns)
        for rows, columns in _grids(positions)
        # There is a square of which so many fit into the height, and so many into the width.
        if height * columns < width * (rows + 1) and width * rows < height * (columns + 1)
    }
    found = whole or cut
    return next(iter(found)) if len(found) == 1 else None


def _grids(positions: int) -> Iterator[Grid]:
    """Go through all grids of so many positions."""
    for before in PREFIXES:
        count = positions - before
        for rows in range(1, max(0, count) + 1):
            if count % rows == 0 and not (count == 1 and before):
                yield rows, count // rows


def _patch(core: Any) -> Grid | None:
    """The height and width of a model's patches, as its configuration says."""
    config = getattr(core, "config", None)
    parts = [config, *(getattr(config, name, None) for name in ("vision_config", "backbone_config"))]
    found = next((one for part in parts if (one := getattr(part, "patch_size", None)) is not None), None)
    if isinstance(found, int):
        return found, found
    pair = tuple(found) if isinstance(found, (list, tuple)) else ()
    return pair if len(pair) == 2 and all(isinstance(one, int) for one in pair) else None
