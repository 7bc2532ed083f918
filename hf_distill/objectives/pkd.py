"""Patient knowledge distillation: the direction of one token's hidden state.

Knows: hidden states, which positions count. Does not know: tasks, heads, how a model is wrapped.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from hf_distill.objectives.hidden import HiddenTerm
from hf_distill.objectives.layers import Layers
from hf_distill.objectives.token_weights import POSITIONS, shares
from hf_distill.objectives.unit_vectors import unit_vectors
from hf_distill.signals import Sum


class PKD(HiddenTerm):
    """Squared distance of the normalised hidden states of one token: patient knowledge distillation.

    The mean over the pairs of layers of ``|| h_s / |h_s| - h_t / |h_t| ||**2``, added over samples.

    Args:
        layers: which layers learn from which; ``"skip"`` by default, as in the paper; see ``HiddenTerm``.
        token: ``"first"`` (a BERT's [CLS]), ``"last"`` (for decoders, whose first token has read nothing) or
            ``"all"``, the mean over the row's tokens. Padding is none of them.
        stream: which sequence of positions; see ``HiddenTerm``.

    Raises:
        ValueError: layers that cannot be read, or another token.

    Reference:
        Sun, Cheng, Gan, Liu: Patient Knowledge Distillation for BERT Model Compression, arXiv:1908.09355, equation 7.

    Example:
        >>> from hf_distill.models.facts import Facts
        >>> PKD(token="last").build(Facts(hidden_size=4, num_layers=1), Facts(hidden_size=4, num_layers=2))
    """

    unit: ClassVar[str] = "samples"
    citation: ClassVar[str] = "Sun, Cheng, Gan, Liu: Patient Knowledge Distillation, arXiv:1908.09355"
    name: ClassVar[str] = "pkd"

    def __init__(self, layers: Layers | None = None, token: str = "first", stream: str | None = None) -> None:
        super().__init__("skip" if layers is None else layers, stream)
        if token not in POSITIONS:
            raise ValueError(f"token={token!r} was given to pkd: use {', '.join(POSITIONS)}.")
        self.token = token

    def compare(self, student: Tensor, teacher: Tensor, counted: Tensor) -> Tensor:
        """Return the squared distance of the directions; see ``HiddenTerm.compare``."""
        gap = (unit_vectors(student) - unit_vectors(teacher)).square().sum(dim=-1)
        return (gap * shares(counted, self.token)).sum()

    def added(self, total: Tensor, counted: Tensor, mask: Tensor | None) -> Sum:
        """Count the rows; see ``HiddenTerm.added``."""
        return Sum(total, torch.tensor(len(counted), device=counted.device))
