"""How the student carries what an objective trains, so that no optimizer and no strategy needs to know of it.

Knows: the student's modules. Does not know: losses, batches, how an objective is built or a checkpoint written.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from hf_distill.objectives.objective import CHILD, Objective


def attach_to_student(student: nn.Module, objective: Objective | None) -> None:
    """Make an objective's parameters the student's, so that what happens to these happens to those.

    As a child of the student they are optimised, clipped, zeroed, synchronised and sharded with it, on every
    strategy. ``save_pretrained`` leaves them out.

    Args:
        student: the unwrapped student.
        objective: the objective; None, or one without parameters, only takes an earlier one away.

    Raises:
        ValueError: the student has something else under that name.

    Example:
        >>> from hf_distill.objectives.hidden import HiddenMSE
        >>> from hf_distill.models.facts import Facts
        >>> objective, student = Objective({"hidden_mse": HiddenMSE()}), nn.Linear(2, 2)
        >>> objective.build(Facts(hidden_size=2, num_layers=1), Facts(hidden_size=3, num_layers=1))
        >>> attach_to_student(student, objective)
        >>> sum(p.numel() for p in student.parameters())  # 2 x 2 + 2, and two projections of 3 x 2
        18
    """
    there = getattr(student, CHILD, None)
    objective = objective if objective is not None and objective.state_dict() else None
    if there is objective:
        return
    if there is not None and not isinstance(there, Objective):
        raise ValueError(
            f"the student {type(student).__name__} has an attribute {CHILD!r} of its own, under which the objective's "
            "parameters would be kept: rename it."
        )
    if there is not None:
        delattr(student, CHILD)
        _ignore_on_save(student, {})
    if objective is not None:
        like = next((p for p in student.parameters() if p.is_floating_point()), torch.zeros(()))
        objective.to(device="cpu" if like.device.type == "meta" else like.device, dtype=like.dtype)
        setattr(student, CHILD, objective)
        _ignore_on_save(student, objective.state_dict())


def _ignore_on_save(student: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Let the student's own ``save_pretrained`` skip these exact keys; only transformers models read the list."""
    if hasattr(type(student), "_keys_to_ignore_on_save"):
        theirs = type(student)._keys_to_ignore_on_save or ()
        student._keys_to_ignore_on_save = [*theirs, *(f"{CHILD}.{name}" for name in state)] or None
