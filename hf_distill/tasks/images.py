"""What a batch says of its images before any forward.

Knows: pixels, those that a teacher reads instead. Does not know: models, grids, what is predicted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from hf_distill.models.meta import IMAGES
from hf_distill.signals import Grid
from hf_distill.tasks.alignment.tokens import PREFIX


def image_size(batch: Mapping[str, Any]) -> Grid | None:
    """Return height and width of the images; None where there are none, or the teacher reads some of another size.

    Args:
        batch: the batch.

    Example:
        >>> import torch
        >>> image_size({"pixel_values": torch.zeros(2, 3, 8, 16)}), image_size({})
        ((8, 16), None)
    """
    pixels = (batch.get(name) for name in (IMAGES, PREFIX + IMAGES))
    sizes = {tuple(one.shape[-2:]) for one in pixels if isinstance(one, Tensor)}
    return sizes.pop() if len(sizes) == 1 else None
