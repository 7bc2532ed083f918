"""Boxes of objects in an image: corners, and how far two boxes lie over each other.

Knows: four numbers a box, as parts of the image's width and height. Does not know: models, classes, who is matched.
"""

from __future__ import annotations

import torch
from torch import Tensor

EPSILON = 1e-7
"""The area of nothing: a box without one lies over no other."""


def corners(boxes: Tensor) -> Tensor:
    """Return the corners of boxes.

    Args:
        boxes: [..., 4]: center x, center y, width and height.

    Returns:
        [..., 4]: left, top, right, bottom.

    Example:
        >>> corners(torch.tensor([0.5, 0.5, 0.5, 1.0]))
        tensor([0.2500, 0.0000, 0.7500, 1.0000])
    """
    center, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat((center - half, center + half), dim=-1)


def generalized_iou(one: Tensor, other: Tensor) -> Tensor:
    """Compare boxes that belong together: intersection over union, less what the hull of both has beside them.

    Args:
        one: corners [..., 4], float32.
        other: corners [..., 4], of a shape that broadcasts.

    Returns:
        [...], from -1 (far apart) to 1 (the same box).

    Reference:
        Rezatofighi et al.: Generalized Intersection over Union, arXiv:1902.09630, algorithm 1.

    Example:
        >>> box, half = torch.tensor([0.0, 0.0, 1.0, 1.0]), torch.tensor([0.0, 0.0, 0.5, 1.0])
        >>> generalized_iou(box, half), generalized_iou(half, half + torch.tensor([1.5, 0.0, 1.5, 0.0]))
        (tensor(0.5000), tensor(-0.5000))
    """
    areas = [_area(boxes[..., 2:] - boxes[..., :2]) for boxes in (one, other)]
    inner = torch.min(one[..., 2:], other[..., 2:]) - torch.max(one[..., :2], other[..., :2])
    hull = _area(torch.max(one[..., 2:], other[..., 2:]) - torch.min(one[..., :2], other[..., :2]))
    both = _area(inner)
    union = (areas[0] + areas[1] - both).clamp(min=EPSILON)
    return both / union - (hull - union) / hull.clamp(min=EPSILON)


def _area(sides: Tensor) -> Tensor:
    return sides.clamp(min=0).prod(dim=-1)
