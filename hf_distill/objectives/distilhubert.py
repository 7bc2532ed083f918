"""DistilHuBERT: several layers of a teacher are predicted from one of the student.

Knows: pairs of hidden states. Does not know: recordings, frames, which layers there are.
"""

from __future__ import annotations

import math
from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from hf_distill.objectives.hidden import HiddenTerm
from hf_distill.objectives.layers import Layers
from hf_distill.objectives.unit_vectors import unit_vectors


class DistilHuBERT(HiddenTerm):
    """How far predicted hidden states are from the teacher's, and how far they point elsewhere.

    The mean over the pairs of layers (s, t) of ``|| W_st h_s - h_t ||_1 / width - cosine * log sigmoid(cos(W_st h_s,
    h_t))``, added over positions. The heads W_st are trained with the student, are matrices, and are in no published
    student.

    Args:
        layers: which layers learn from which; ``"thirds"`` by default: the student's last from a third, two thirds and
            all of the teacher's depth, the paper's 4, 8 and 12. See ``HiddenTerm``.
        cosine: the weight of the direction, lambda in the paper; at least 0.
        stream: which sequence of positions; see ``HiddenTerm``.

    Raises:
        ValueError: layers that cannot be read, or another weight.

    Reference:
        Chang, Yang, Lee: DistilHuBERT, arXiv:2110.01900, equation 1.

    Example:
        >>> from hf_distill.models.facts import Facts
        >>> term = DistilHuBERT()
        >>> term.build(Facts(hidden_size=4, num_layers=2), Facts(hidden_size=4, num_layers=12))
        >>> term.pairs, list(term.projections)
        ([(2, 4), (2, 8), (2, 12)], ['2_4', '2_8', '2_12'])
    """

    citation: ClassVar[str] = "Chang, Yang, Lee: DistilHuBERT, arXiv:2110.01900"
    name: ClassVar[str] = "distilhubert"
    usual: ClassVar[str | None] = "thirds"

    def __init__(self, layers: Layers | None = None, cosine: float = 1.0, stream: str | None = None) -> None:
        super().__init__(layers, stream)
        if not (cosine >= 0 and math.isfinite(cosine)):
            raise ValueError(
                f"cosine={cosine} was given to distilhubert: it weighs the direction, give a number of at least 0."
            )
        self.cosine = cosine

    def compare(self, student: Tensor, teacher: Tensor, counted: Tensor) -> Tensor:
        """Return the absolute difference and the direction; see ``HiddenTerm.compare``."""
        away = (student - teacher).abs().mean(dim=-1)
        alike = (unit_vectors(student) * unit_vectors(teacher)).sum(dim=-1)
        return ((away - self.cosine * F.logsigmoid(alike)) * counted).sum()
