"""How the losses of transformers' detectors are divided, so that they can be made sums again.

Knows: the names of their loss functions. Does not know: what a loss is made of, models, terms.

A detector's loss is divided by the boxes of its micro-batch, so two micro-batches of one box and of nine would weigh
the same. Multiplied by that number it is a sum, which is divided once, by the boxes of the whole step.
"""

from __future__ import annotations

from typing import NamedTuple

from accelerate import PartialState
from accelerate.utils import reduce
from torch import Tensor


class Criterion(NamedTuple):
    """A loss function of a detector.

    Args:
        softmax: a query has one of C classes or none, and their cross-entropy is a weighted mean over all queries;
            otherwise each of C classes is there or not, and all is divided by boxes.
        ranks: over which boxes: ``"own"`` of this rank; ``"mean"`` or ``"sum"``: what ``accelerate.reduce`` or an
            all-reduce makes of the ranks' numbers, divided by their number.
    """

    softmax: bool = False
    ranks: str = "own"

    def boxes(self, own: Tensor, groups: int = 1) -> Tensor:
        """Return the number that a micro-batch's loss was divided by; every rank must ask equally often.

        Args:
            own: how many boxes this rank's micro-batch has, an integer scalar.
            groups: of queries, each of which finds all objects in training (LW-DETR, RF-DETR); their mean is the loss.

        Example:
            >>> import torch
            >>> Criterion().boxes(torch.tensor(3)), Criterion().boxes(torch.tensor(0))
            (tensor(3.), tensor(1.))
        """
        number = own.float() * groups
        if self.ranks != "own" and PartialState._shared_state != {}:
            # As transformers has it: a mean over ranks, divided by their number once more.
            number = reduce(number.reshape(1), reduction=self.ranks)[0] / PartialState().num_processes
        return number.clamp(min=1) / groups


CRITERIA = {
    "ForObjectDetectionLoss": Criterion(softmax=True, ranks="mean"),
    "DeformableDetrForObjectDetectionLoss": Criterion(ranks="mean"),
    "LwDetrForObjectDetectionLoss": Criterion(ranks="sum"),
    "RTDetrForObjectDetectionLoss": Criterion(),
    "DFineForObjectDetectionLoss": Criterion(),
    "Deimv2ForObjectDetectionLoss": Criterion(),
}
"""Loss function of transformers -> what it is divided by."""
