"""A term that compares where the channels of two models look: channel by channel, a distribution over positions.

Knows: hidden states as maps, which positions count. Does not know: images, tasks, how a model is wrapped.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from hf_distill.objectives.hidden import HiddenTerm
from hf_distill.objectives.layers import Layers
from hf_distill.signals import Sum

NOWHERE = -1e30
"""What padding is before the softmax: finite, so that a row of nothing else has a gradient, which is zero."""


class ChannelKL(HiddenTerm):
    """KL between the softmax of each channel over all positions: channel-wise distillation (CWD).

    For the pairs of layers (s, t), the student projected to the teacher's C channels where it has another number:
    the mean over pairs of ``T**2 / C * sum over channels of KL(softmax_N(h_t / T) || softmax_N(W h_s / T))``, added
    over samples. Where a channel is high counts, not how high it is. Two grids are compared on the smaller one.

    Args:
        layers: which layers learn from which; the two last ones by default; see ``HiddenTerm``.
        temperature: greater than 0.
        stream: of a model that shows several sequences of positions the one that is compared; None: the main one.

    Raises:
        ValueError: layers that cannot be read, or a temperature that is none.

    Reference:
        Shu, Liu, Gao, Yan, Shen: Channel-wise Knowledge Distillation for Dense Prediction, arXiv:2011.13256,
        equations 4 and 5.

    Example:
        >>> from hf_distill.models.facts import Facts
        >>> from hf_distill.signals import Signals
        >>> term, facts = ChannelKL(layers={0: 0}), Facts(hidden_size=3, num_layers=1)
        >>> term.build(facts, facts)
        >>> states = torch.tensor([[[0.0, 1.0, 2.0], [4.0, 1.0, 0.0]]])
        >>> same, higher = (Signals({}, hidden=(one,)) for one in (states, states + 5.0))
        >>> [round(number.item(), 6) for number in term(higher, same, {})]
        [0.0, 1]
    """

    unit: ClassVar[str] = "samples"
    citation: ClassVar[str] = "Shu, Liu, Gao, Yan, Shen: Channel-wise Knowledge Distillation, arXiv:2011.13256"
    name: ClassVar[str] = "channel_kl"
    usual: ClassVar[str | None] = None

    def __init__(self, layers: Layers | None = None, temperature: float = 4.0, stream: str | None = None) -> None:
        super().__init__(layers, stream)
        if not (temperature > 0 and math.isfinite(temperature)):
            raise ValueError(f"temperature={temperature} was given to channel_kl: give one greater than 0.")
        self.over = temperature  # not the run's, which is that of predictions

    def compare(self, student: Tensor, teacher: Tensor, counted: Tensor) -> Tensor:
        """Add over samples; see ``HiddenTerm.compare``."""
        nowhere = ~counted.unsqueeze(-1)
        both = ((one / self.over).masked_fill(nowhere, NOWHERE) for one in (student, teacher))
        ours, theirs = (one.log_softmax(dim=1) for one in both)
        gap = theirs.exp() * (theirs - ours).masked_fill(nowhere, 0)
        return self.over**2 * gap.sum(dim=1).mean(dim=-1).sum()

    def added(self, total: Tensor, counted: Tensor, mask: Tensor | None) -> Sum:
        """Count the rows; see ``HiddenTerm.added``."""
        return Sum(total, torch.tensor(len(counted), device=counted.device))
