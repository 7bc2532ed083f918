"""Images of one micro-batch put into each other: mixup blends two, cutmix pastes a part of one into the other.

Knows: pixels, a source of random numbers for each row. Does not know: labels, processors, models, epochs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

import torch
from torch import Tensor


class Mixed(NamedTuple):
    """What becomes of one image.

    Args:
        partner: the row of the image that it is mixed with.
        share: of itself that stays.
        box: the part that the partner gives, as shares of height and width (top, bottom, left, right); None: the two
            are blended, each by its share.
    """

    partner: int
    share: float
    box: tuple[float, float, float, float] | None = None


@dataclass(frozen=True)
class Mixing:
    """Mixes each image of a micro-batch with another one; where both ways are asked for, a coin decides.

    Args:
        mixup: blends two images, by a share drawn from Beta(mixup, mixup). 0: none is blended.
        cutmix: pastes a rectangle of another image, which has a share of the area drawn from Beta(cutmix, cutmix).
            0: none is pasted.

    Raises:
        ValueError: a number below 0, or none.

    Reference:
        Zhang et al.: mixup, arXiv:1710.09412; Yun et al.: CutMix, arXiv:1905.04899, section 3.2; Beyer et al.,
        arXiv:2106.05237, for a teacher that is asked about mixed images.

    Example:
        >>> bool(Mixing()), bool(Mixing(cutmix=1.0))
        (False, True)
        >>> plan = Mixing(cutmix=1.0).plan([Random(0), Random(1)])
        >>> mixed(torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).repeat(1, 1, 8, 8), plan).mean((1, 2, 3))
        tensor([0.2500, 0.7500])
    """

    mixup: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self) -> None:
        for name, usual in (("mixup", 0.2), ("cutmix", 1.0)):
            value = getattr(self, name)
            number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
            if not number or value < 0:
                raise ValueError(f"{name}={value!r} was given: give 0, or a number above it, such as {usual}.")

    def __bool__(self) -> bool:
        """Whether anything is mixed."""
        return bool(self.mixup or self.cutmix)

    def plan(self, draws: Sequence[Random]) -> list[Mixed]:
        """Say what becomes of each image.

        Args:
            draws: what each row draws from; at least two.
        """
        return [self._one(row, draw, len(draws)) for row, draw in enumerate(draws)]

    def _one(self, row: int, draw: Random, size: int) -> Mixed:
        partner = (row + draw.randrange(1, size)) % size
        pastes = bool(self.cutmix) and (not self.mixup or draw.random() < 0.5)
        if not pastes:
            return Mixed(partner, draw.betavariate(self.mixup, self.mixup))
        side = math.sqrt(1 - draw.betavariate(self.cutmix, self.cutmix))
        box = []
        for _ in ("height", "width"):  # its middle lies anywhere, so a part of it may lie outside
            middle = draw.random()
            box += [max(0.0, middle - side / 2), min(1.0, middle + side / 2)]
        return Mixed(partner, 1 - (box[1] - box[0]) * (box[3] - box[2]), tuple(box))


def mixed(pixels: Tensor, plan: Sequence[Mixed]) -> Tensor:
    """Mix the images of a batch.

    Args:
        pixels: [B, C, height, width], of any size: the same plan is for the teacher's pixels.
        plan: what becomes of each.

    Returns:
        As many images of the same size.
    """
    others = pixels[[one.partner for one in plan]]
    own = torch.ones(len(plan), 1, *pixels.shape[-2:], dtype=pixels.dtype)
    for row, one in enumerate(plan):
        if one.box is None:
            own[row] = one.share
        else:
            edges = [round(share * size) for share, size in zip(one.box, _sides(pixels), strict=True)]
            own[row, :, edges[0] : edges[1], edges[2] : edges[3]] = 0
    return own * pixels + (1 - own) * others


def _sides(pixels: Tensor) -> tuple[int, int, int, int]:
    height, width = pixels.shape[-2:]
    return height, height, width, width
