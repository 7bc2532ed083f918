"""What a teacher says of a batch, without gradients, and refused where it cannot be used.

Knows: teachers, which of their numbers are lost. Does not know: why they are asked, objectives, trainers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from hf_distill.signals import Signals
from hf_distill.teachers import Teacher


def answered(teacher: Teacher, batch: Mapping[str, Any], needs: frozenset[str], step: int) -> Signals:
    """Ask a teacher.

    Args:
        teacher: who is asked.
        batch: the batch, on the trainer's device.
        needs: what to show; see ``Teacher``.
        step: after how many optimizer steps, for a message.

    Raises:
        ValueError: a number that is not finite.
    """
    with torch.no_grad():  # also of a teacher that somebody else trains
        signals = teacher(batch, needs)
    for name, what, lost in signals.lost(teacher.facts.name):
        if lost.any():
            rows = sorted({row[0] for row in lost.nonzero().tolist()})
            raise ValueError(
                f"the teacher {name} gave infinite or NaN {what} for rows {rows} of the batch after step "
                f"{step}, nothing was trained on it: run the teacher in a wider dtype, or remove the rows."
            )
    return signals
