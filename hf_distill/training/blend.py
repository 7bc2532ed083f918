"""The blend: what one micro-batch adds to the loss of its step.

Knows: sums of the two halves, what the whole step counts, the teacher's share. Does not know: how a sum was computed,
tasks, trainers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from hf_distill.tasks.layout import LAYOUT
from hf_distill.training.compared import Compared
from hf_distill.training.distillation import Distillation
from hf_distill.training.supervised_loss import SupervisedLoss
from hf_distill.training.window import Window


def blend(
    student: nn.Module,
    found: Compared,
    batch: Mapping[str, Any],
    window: Window,
    supervised: SupervisedLoss,
    distillation: Distillation | None,
    num_items: Tensor | int | None = None,
) -> tuple[dict[str, Tensor], Tensor]:
    """Divide each part by what the whole step counts: ``(1 - alpha) * hard + alpha * sum of weight * soft``.

    Args:
        student: the unwrapped student.
        found: what came of its forward.
        batch: the micro-batch, with its layout.
        window: what the whole optimizer step counts.
        supervised: the supervised half, with the teacher's share.
        distillation: the other half; None: there is no teacher.
        num_items: Trainer's own count of labels, for a user's function.

    Returns:
        name -> each part, before alpha and weights; and the loss.
    """
    parts, loss, alpha = {}, 0.0, supervised.alpha
    if alpha < 1:
        parts["hard"] = supervised(student, found.outputs, batch, window, num_items, found.sums.pop("hard", None))
        loss = (1 - alpha) * parts["hard"]
    if alpha > 0:
        soft, weights = distillation.parts(found.sums, window, batch[LAYOUT]), distillation.objective.weights
        loss = sum((alpha * weights[name] * part for name, part in soft.items()), loss)
        parts.update(soft)
    loss = loss + found.unused
    if (balance := supervised.router(student, found.outputs, batch, window)) is not None:  # of neither half
        parts["router"], loss = balance, loss + balance
    return parts, loss
