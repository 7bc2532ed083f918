"""A term that compares the geometry of hidden states, whatever their bases and widths.

Knows: hidden states, which positions count. Does not know: tasks, heads, projections.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from hf_distill.objectives.hidden import HiddenTerm
from hf_distill.objectives.unit_vectors import unit_vectors


class CKA(HiddenTerm):
    """One minus the centred kernel alignment of hidden states: the same geometry, in whatever basis and width.

    For X [n, H_s] and Y [n, H_t], the centred states of the n tokens of a micro-batch that count:
    ``1 - || Y' X ||**2 / (|| X' X || || Y' Y ||)`` (Frobenius norms), times n. There is no projection. Tokens are seen
    together, so micro-batches are groups of their own: equal groups give equal results however they are spread over
    accumulation steps and ranks, other groups do not.

    Args:
        layers: which layers learn from which, ``"uniform"`` by default; see ``HiddenTerm``.
        stream: which sequence of positions; see ``HiddenTerm``.

    Raises:
        ValueError: layers that cannot be read.

    Reference:
        Kornblith et al.: Similarity of Neural Network Representations Revisited, arXiv:1905.00414, equation 4 with a
        linear kernel (section 3).

    Example:
        >>> from hf_distill.models.facts import Facts
        >>> from hf_distill.signals import Signals
        >>> term, states = CKA({1: 1}), torch.randn(1, 5, 4, generator=torch.Generator().manual_seed(0))
        >>> term.build(Facts(hidden_size=4, num_layers=1), Facts(hidden_size=4, num_layers=1))
        >>> ours, theirs = Signals({}, hidden=(states, states)), Signals({}, hidden=(states, -3.0 * states))
        >>> round(abs(float(term(ours, theirs, {}).total)), 4)
        0.0
    """

    citation: ClassVar[str] = "Kornblith, Norouzi, Lee, Hinton: Similarity of Neural Networks, arXiv:1905.00414"
    name: ClassVar[str] = "cka"
    projects: ClassVar[bool] = False

    def compare(self, student: Tensor, teacher: Tensor, counted: Tensor) -> Tensor:
        """Return one minus the alignment, times the tokens; see ``HiddenTerm.compare``."""
        number = counted.sum()
        with torch.autocast(student.device.type, enabled=False):  # sums over all tokens, too long for 8 bits
            x, y = (_centred(states, counted, number) for states in (student, teacher))
            cross, ours, theirs = ((a.T @ b).square().sum() for a, b in ((y, x), (x, x), (y, y)))
            # A state that is the same for all tokens has no geometry: it aligns with nothing, and moves nothing.
            aligned = cross / (ours * theirs).clamp(min=torch.finfo(torch.float32).tiny).sqrt()
        return (1.0 - aligned) * number


def _centred(states: Tensor, counted: Tensor, number: Tensor) -> Tensor:
    """Take the mean over the tokens away, and divide by the size of what is left: alignment does not see it."""
    centred = (states - states.sum(dim=(0, 1)) / number.clamp(min=1)) * counted.unsqueeze(-1)
    return unit_vectors(centred.flatten(), states.flatten()).view_as(centred).flatten(0, 1)
