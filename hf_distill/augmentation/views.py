"""What chance may make of an image before both models see it: shifts, flips, crops.

Knows: images, a source of random numbers. Does not know: rows, batches, processors, models.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

try:
    from PIL import Image, ImageOps
except ImportError as error:
    raise ImportError('images need Pillow: pip install "hf_distill[vision]".') from error

View = Callable[[Image.Image, Random], Image.Image]
"""Makes another view of an image; what is random comes from the second argument, so that a view can be made again.
One that also has ``on_map(map, draw)`` moves a map of classes as it moves the image that it belongs to."""

NOTHING = 255
"""The class, in a map, of what comes in from beyond its border."""


class Shift:
    """Moves an image by a few pixels; what comes in at a border is black.

    Args:
        pixels: the farthest, in each direction.

    Raises:
        ValueError: less than one pixel.

    Example:
        >>> image = Image.new("L", (4, 4), 255)
        >>> sorted(set(Shift(1)(image, Random(3)).tobytes()))
        [0, 255]
    """

    def __init__(self, pixels: int) -> None:
        if isinstance(pixels, bool) or not isinstance(pixels, int) or pixels < 1:
            raise ValueError(f"shift={pixels!r} was given: give a number of pixels, at least 1.")
        self.pixels = pixels

    def __call__(self, image: Image.Image, draw: Random) -> Image.Image:
        """Return the image, moved."""
        return image.transform(image.size, Image.Transform.AFFINE, self._where(draw))

    def on_map(self, classes: Image.Image, draw: Random) -> Image.Image:
        """Return the map, moved as far; what comes in has no class."""
        return classes.transform(classes.size, Image.Transform.AFFINE, self._where(draw), fillcolor=NOTHING)

    def _where(self, draw: Random) -> tuple[int, ...]:
        """Where in the image a point comes from."""
        right, down = (draw.randint(-self.pixels, self.pixels) for _ in range(2))
        return 1, 0, -right, 0, 1, -down


class Flip:
    """Turns an image over, left to right, every other time.

    Example:
        >>> image = Image.frombytes("L", (2, 1), bytes([0, 255]))
        >>> list(Flip()(image, Random(1)).tobytes()), list(Flip()(image, Random(0)).tobytes())
        ([0, 255], [255, 0])
    """

    def __call__(self, image: Image.Image, draw: Random) -> Image.Image:
        """Return the image, or its mirror image."""
        return ImageOps.mirror(image) if draw.random() >= 0.5 else image

    def on_map(self, classes: Image.Image, draw: Random) -> Image.Image:
        """Return the map, or its mirror image."""
        return self(classes, draw)


class Crop:
    """Cuts a rectangle out of an image and makes it as large as the whole, as ImageNet is trained on.

    Args:
        least: the smallest share of the area that stays, above 0 and at most 1.

    Raises:
        ValueError: another share.

    Reference:
        Szegedy et al.: Going Deeper with Convolutions, arXiv:1409.4842, section 6.

    Example:
        >>> Crop(0.5)(Image.new("RGB", (32, 24)), Random(0)).size
        (32, 24)
    """

    def __init__(self, least: float = 0.25) -> None:
        if not 0 < least <= 1:
            raise ValueError(f"crop={least!r} was given: give the smallest share of the area, above 0 and at most 1.")
        self.least = least

    def __call__(self, image: Image.Image, draw: Random) -> Image.Image:
        """Return the part, enlarged."""
        return image.resize(image.size, Image.Resampling.BILINEAR, box=self._part(image, draw))

    def on_map(self, classes: Image.Image, draw: Random) -> Image.Image:
        """Return the same part of the map, enlarged without classes that lie between two others."""
        return classes.resize(classes.size, Image.Resampling.NEAREST, box=self._part(classes, draw))

    def _part(self, image: Image.Image, draw: Random) -> tuple[int, int, int, int]:
        """Left, top, right and bottom of what is cut out."""
        width, height = image.size
        area = width * height * draw.uniform(self.least, 1.0)
        ratio = math.exp(draw.uniform(math.log(3 / 4), math.log(4 / 3)))
        across, down = min(width, round(math.sqrt(area * ratio))), min(height, round(math.sqrt(area / ratio)))
        across, down = max(1, across), max(1, down)
        left, top = draw.randint(0, width - across), draw.randint(0, height - down)
        return left, top, left + across, top + down


def seen(image: Image.Image, views: Sequence[Any], draw: Random) -> Image.Image:
    """Let an image go through several of these, one after the other.

    Args:
        image: as it is.
        views: each a ``View``.
        draw: what all of them draw from.
    """
    for view in views:
        image = view(image, draw)
    return image


def seen_map(classes: Image.Image, views: Sequence[Any], draw: Random) -> Image.Image:
    """Let a map of classes go where its image went.

    Args:
        classes: as it is, as large as its image.
        views: those of the image, each with ``on_map``.
        draw: in the state in which that of the image was.

    Example:
        >>> picture, classes = (Image.frombytes("L", (2, 1), bytes(one)) for one in ([9, 200], [0, 1]))
        >>> [list(one(what, [Flip()], Random(0)).tobytes()) for one, what in ((seen, picture), (seen_map, classes))]
        [[200, 9], [1, 0]]
    """
    for view in views:
        classes = view.on_map(classes, draw)
    return classes
