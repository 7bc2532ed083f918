"""A small convolutional network that judges images or waves, patch by patch.

Knows: channels, one or two axes. Does not know: whose samples these are, losses.
"""

from __future__ import annotations

import itertools
from typing import Any

from torch import Tensor, nn

CONVOLUTIONS: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d}
"""How many axes a sample has beside its channels -> what goes over it."""


class PatchDiscriminator(nn.Module):
    """Three convolutions that halve a sample, and one judgement for each patch that is left.

    There is no norm: no row sees another, and none of a patch is taken off.

    Args:
        channels: of a sample.
        axes: 2 of an image, 1 of a wave.
        hidden: channels of the last convolution; those before have a half and a quarter.

    Reference:
        Isola et al.: Image-to-Image Translation with Conditional Adversarial Networks, arXiv:1611.07004, section
        3.2.2.

    Example:
        >>> import torch
        >>> PatchDiscriminator(3, 2, 8)(torch.zeros(4, 3, 8, 8)).shape
        torch.Size([4, 4])
    """

    def __init__(self, channels: int, axes: int, hidden: int) -> None:
        super().__init__()
        kind, widths = CONVOLUTIONS[axes], [channels, *(max(1, hidden // share) for share in (4, 2, 1))]
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            layers += [kind(before, after, 4, stride=2, padding=2), nn.LeakyReLU(0.2)]
        self.body = nn.Sequential(*layers, kind(widths[-1], 1, 1))

    def forward(self, samples: Tensor) -> Tensor:
        """Judge each patch.

        Args:
            samples: [B, channels, ...].

        Returns:
            Logits [B, patches].
        """
        return self.body(samples.to(self.body[0].weight.dtype)).flatten(1)
