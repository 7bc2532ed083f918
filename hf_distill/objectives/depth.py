"""Terms that compare depth as models know it: up to a factor, or up to a factor and a shift.

Knows: values that are positive numbers, logarithms, medians. Does not know: models, images, labels' files.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from hf_distill.objectives.values import ValueTerm

LEAST = 1e-3
"""What a prediction that has no logarithm, or nearly none, is taken for: a millimetre, where depth is in metres."""


def scale_invariant(predicted: Tensor, wanted: Tensor, counted: Tensor, share: float = 0.5) -> Tensor:
    """Mean square of the differences of logarithms, without a share of the square of their mean.

    Args:
        predicted: float32 [B, N]; anything below ``LEAST`` is taken for that.
        wanted: float32 [B, N]; what is not a positive number does not count.
        counted: bool [B, N], which of them count beside.
        share: how much of a common factor is forgiven: 0 nothing, 1 all of it.

    Returns:
        [B], float32; 0 where nothing counts.

    Reference:
        Eigen, Puhrsch, Fergus: Depth Map Prediction from a Single Image using a Multi-Scale Deep Network,
        arXiv:1406.2283, equation 4.

    Example:
        >>> depth, every = torch.tensor([[1.0, 2.0, 4.0]]), torch.ones(1, 3, dtype=torch.bool)
        >>> [round(scale_invariant(2 * depth, depth, every, share).item(), 4) for share in (0.0, 0.5, 1.0)]
        [0.4805, 0.2402, 0.0]
    """
    counted = counted & (wanted > 0) & wanted.isfinite()
    number = counted.sum(dim=1).clamp(min=1)
    # Chosen before the logarithm, whose gradient at 0 is none, also times zero.
    ours, theirs = (one.masked_fill(~counted, 1.0).clamp(min=LEAST).log() for one in (predicted, wanted))
    difference = ours - theirs
    mean = difference.sum(dim=1) / number
    around = (difference - mean.unsqueeze(1)).masked_fill(~counted, 0.0).square().sum(dim=1) / number
    return around + (1 - share) * mean.square()  # the equation, in a form in which nothing cancels


def check_share(who: str, share: float) -> float:
    """Refuse a share of a common factor that is none, and return it.

    Args:
        who: it was given to.
        share: from 0 to 1.

    Raises:
        ValueError: in one sentence.
    """
    if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 <= share <= 1:
        raise ValueError(
            f"share={share!r} was given to {who}: give a number from 0, which forgives no common factor, to 1, which "
            "forgives any."
        )
    return share


class ScaleInvariant(ValueTerm):
    """Difference of the logarithms of two maps, of which a share of what is common to all their points is forgiven.

    A point at which the teacher's number is not positive does not count.

    Args:
        share: 0 forgives no common factor, 1 any, as between two models that know depth up to a scale.
        of: the value, one of ``Task.values``; None: all that the task shows, added up.

    Raises:
        ValueError: a share that is none.

    Reference:
        Eigen, Puhrsch, Fergus: arXiv:1406.2283, equation 4.

    Example:
        >>> from hf_distill.signals import Signals, Value
        >>> depth, rows = torch.tensor([[[1.0, 3.0]]]), torch.tensor([[True]])
        >>> ours, theirs = (Signals({}, values={"depth": Value(depth * by, rows)}) for by in (1.0, 3.0))
        >>> round(ScaleInvariant()(ours, theirs, {}).total.item(), 4), ScaleInvariant(share=1.0)(ours, theirs, {})
        (0.6035, Sum(total=tensor(0.), count=tensor(1)))
    """

    name: ClassVar[str] = "scale_invariant"
    citation: ClassVar[str] = (
        "Eigen et al.: Depth Map Prediction from a Single Image using a Multi-Scale Deep Network, arXiv:1406.2283"
    )

    def __init__(self, share: float = 0.5, of: str | None = None) -> None:
        super().__init__(of)
        self.share = check_share(self.name, share)

    def extra_repr(self) -> str:
        """Return what the card says of it."""
        return f"share={self.share:g}"

    def cost(self, student: Tensor, teacher: Tensor, rows: Tensor) -> Tensor:
        """Compare the logarithms; see ``ValueTerm.cost``."""
        counted = rows.unsqueeze(-1).expand_as(student)
        return scale_invariant(*(one.flatten(1) for one in (student, teacher, counted)), self.share)


class AffineInvariant(ValueTerm):
    """Mean absolute difference of two maps, each moved by its median and divided by its mean distance from that.

    So are models compared that know depth, or its inverse, up to a factor and a shift, as MiDaS, DPT and Depth
    Anything do; the teacher of the last one teaches its unlabelled images with it.

    Args:
        of: the value, one of ``Task.values``; None: all that the task shows, added up.

    Reference:
        Ranftl et al.: Towards Robust Monocular Depth Estimation, arXiv:1907.01341, equations 6 and 7; Yang et al.:
        Depth Anything, arXiv:2401.10891, equations 2 and 3.

    Example:
        >>> from hf_distill.signals import Signals, Value
        >>> depth, rows = torch.tensor([[[1.0, 3.0, 8.0]]]), torch.tensor([[True]])
        >>> ours, theirs = (Signals({}, values={"depth": Value(depth * by + by, rows)}) for by in (1.0, 3.0))
        >>> round(AffineInvariant()(ours, theirs, {}).total.item(), 4)
        0.0
    """

    name: ClassVar[str] = "affine_invariant"
    citation: ClassVar[str] = "Ranftl et al.: Towards Robust Monocular Depth Estimation, arXiv:1907.01341"

    def cost(self, student: Tensor, teacher: Tensor, rows: Tensor) -> Tensor:
        """Compare where shift and factor are gone; see ``ValueTerm.cost``."""
        counted = rows.unsqueeze(-1).expand_as(student).flatten(1)
        number = counted.sum(dim=1, keepdim=True).clamp(min=1)
        ours, theirs = (_standardised(one.flatten(1), counted, number) for one in (student, teacher))
        return (ours - theirs).abs().sum(dim=1) / number.squeeze(1)


def _standardised(values: Tensor, counted: Tensor, number: Tensor) -> Tensor:
    """Take a map's median from it and divide it by its spread: [B, N], 0 where it does not count."""
    middle = values.masked_fill(~counted, torch.nan).nanmedian(dim=1, keepdim=True).values
    centred = (values - middle).masked_fill(~counted, 0.0)
    return centred / (centred.abs().sum(dim=1, keepdim=True) / number).clamp(min=1e-6)
