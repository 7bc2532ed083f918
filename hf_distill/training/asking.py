"""Ask the teacher at a step, and refuse an answer that nobody could learn from.

Knows: when the objective takes its weights, what an answer must be. Does not know: losses, the student.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hf_distill.models.hooks import LINEAR
from hf_distill.signals import Signals
from hf_distill.tasks import Task

if TYPE_CHECKING:
    from hf_distill.trainer import DistillationMixin


def taught_by(trainer: DistillationMixin, inputs: Mapping[str, Any], thin: bool) -> Signals:
    """Ask the teacher about a micro-batch.

    Args:
        trainer: the trainer, at its step.
        inputs: the micro-batch.
        thin: ask for what enters the teacher's head in place of its logits, if it can show that.

    Returns:
        What the teacher shows.

    Raises:
        ValueError: a logit that is not finite, or a step at which nothing is learned.
    """
    objective, teacher, state = trainer.distillation, trainer.teacher, trainer.state
    objective.follow(trainer.temperature)
    objective.at(state.global_step, state.max_steps)
    if trainer.alpha == 1 and (gap := objective.gap(state.max_steps)) is not None:
        raise ValueError(
            f"alpha=1 learns from the teacher alone, and from step {gap} of {state.max_steps} no term has a weight: "
            "let the schedules of the weights meet, or set alpha below 1."
        )
    linear = {LINEAR} if thin and teacher.linear else set()
    signals = teacher(inputs, objective.asks | linear)
    for name, head in signals.answers(teacher.facts.name):
        finite = head.logits.finite()
        lost = ~finite & head.rows.to(finite.device)
        if lost.any():
            rows = sorted({row[0] for row in lost.nonzero().tolist()})
            raise ValueError(
                f"the teacher {name} gave infinite or NaN logits for rows {rows} of the batch after step "
                f"{state.global_step}, nothing was trained on it: run the teacher in a wider dtype, or remove the "
                "rows."
            )
    return signals


def aligning(task: Task | None) -> frozenset[str]:
    """Return the columns that say how the two models' tokens belong together.

    Args:
        task: how the models are read.
    """
    return getattr(getattr(task, "alignment", None), "columns", frozenset())
