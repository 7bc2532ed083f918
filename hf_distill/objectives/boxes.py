"""A term that compares boxes of objects.

Knows: boxes of two models whose objects were matched, and what each is worth. Does not know: classes, images, how
objects were matched.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch

from hf_distill.models.boxes import corners, generalized_iou
from hf_distill.objectives.term import Term
from hf_distill.objectives.values import counted_in_both
from hf_distill.signals import Signals, Sum


class Boxes(Term):
    """Distance and overlap of the two models' boxes: ``l1 * |b - b'| + giou * (1 - GIoU(b, b'))`` for each object.

    What an object weighs in its image is the teacher's confidence in it, so a box in which nothing is seen teaches
    nothing; the confidences of an image are divided by their sum, and by 1 where that is less. All images weigh the
    same, and samples are counted.

    Args:
        l1: weight of the distance of centers, widths and heights, which are parts of the image; at least 0.
        giou: weight of the generalized intersection over union; at least 0.
        of: the value that holds the boxes.

    Raises:
        ValueError: a weight that is negative or not finite, or both 0.

    Reference:
        Carion et al.: DETR, arXiv:2005.12872, section 3.1 and appendix A.2, for the two parts and their weights; Chang
        et al.: DETRDistill, arXiv:2211.10156, section 3.1, between two models.

    Example:
        >>> from hf_distill.signals import Value
        >>> boxes, rows = torch.tensor([[[0.5, 0.5, 0.2, 0.2]]]), torch.ones(1, 1, dtype=torch.bool)
        >>> ours, theirs = (Signals({}, values={"boxes": Value(boxes + by, rows)}) for by in (0.0, 0.1))
        >>> found = Boxes(l1=1.0, giou=0.0)(ours, theirs, {})
        >>> round(found.total.item(), 4), found.count.item()
        (0.4, 1)
    """

    needs: ClassVar[frozenset[str]] = frozenset({"heads", "values"})
    unit: ClassVar[str] = "samples"
    by_position: ClassVar[bool] = False
    citation: ClassVar[str] = "Chang, Wang, Xu, Chen, Luo: DETRDistill, arXiv:2211.10156"

    def __init__(self, l1: float = 5.0, giou: float = 2.0, of: str = "boxes") -> None:
        super().__init__()
        if not all(math.isfinite(weight) and weight >= 0 for weight in (l1, giou)) or l1 == giou == 0:
            raise ValueError(f"l1={l1} and giou={giou} were given to boxes: give numbers of at least 0, not both 0.")
        self.l1, self.giou, self.of = l1, giou, of

    def forward(self, student: Signals, teacher: Signals, batch: Mapping[str, Any]) -> Sum:
        """Add over the images; see ``Term.forward``."""
        taught = teacher.values.get(self.of)
        ours, theirs, rows = counted_in_both("boxes", self.of, student.values[self.of], taught)
        if ours.shape[-1] != 4:
            raise ValueError(
                f"boxes was asked to compare {self.of}, of {ours.shape[-1]} numbers each, a box has 4: name the value "
                "that holds boxes (of=)."
            )
        over = 1 - generalized_iou(corners(ours), corners(theirs))
        each = (self.l1 * (ours - theirs).abs().sum(dim=-1) + self.giou * over).masked_fill(~rows, 0.0)
        if (weights := taught.weights) is None:
            weights = rows / rows.sum(dim=1, keepdim=True).clamp(min=1)
        return Sum((weights.to(each.device) * each).sum(), torch.tensor(len(each), device=each.device))

    def extra_repr(self) -> str:
        """Show the weights in ``print(term)``."""
        return f"l1={self.l1}, giou={self.giou}"
