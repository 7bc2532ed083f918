"""What every task on images has: words for the card, positions that no batch tells, the size of the pixels.

Knows: pixels, those that a teacher reads instead. Does not know: models, grids, what is predicted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from hf_distill.models.meta import IMAGES
from hf_distill.signals import Grid
from hf_distill.tasks.alignment.tokens import PREFIX
from hf_distill.tasks.samples import rows_of


class OfImages:
    """What every ``Task`` on images has; put it before the class that it extends.

    How many positions an image becomes is known to its model alone, so terms on positions take the mean inside of each
    image, and count images.
    """

    processor_class: ClassVar[str] = "AutoImageProcessor"
    noun: ClassVar[str] = "images"
    example: ClassVar[str] = '"an image of yours.png"'
    of_text: ClassVar[bool] = False
    streams: ClassVar[tuple[str, ...]] = ("vision",)

    def mask(self, batch: Mapping[str, Any]) -> Tensor | None:
        """Say that positions are not known before a forward; see ``Task.mask``."""
        return None


def every_image(batch: Mapping[str, Any]) -> Tensor:
    """Say that every image counts, labelled or not: bool [B].

    Args:
        batch: the batch.

    Example:
        >>> every_image({"pixel_values": torch.zeros(2, 3, 8, 16)})
        tensor([True, True])
    """
    tensor = next((value for value in batch.values() if isinstance(value, Tensor)), None)
    return torch.ones(rows_of(batch), dtype=torch.bool, device=None if tensor is None else tensor.device)


def image_size(batch: Mapping[str, Any]) -> Grid | None:
    """Return height and width of the images; None where there are none, or the teacher reads some of another size.

    Args:
        batch: the batch.

    Example:
        >>> image_size({"pixel_values": torch.zeros(2, 3, 8, 16)}), image_size({})
        ((8, 16), None)
    """
    pixels = (batch.get(name) for name in (IMAGES, PREFIX + IMAGES))
    sizes = {tuple(one.shape[-2:]) for one in pixels if isinstance(one, Tensor)}
    return sizes.pop() if len(sizes) == 1 else None
