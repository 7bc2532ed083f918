"""The two numbers of a blend, as a run's arguments give them.

Knows: the arguments, what stands in where nobody sets them. Does not know: losses, teachers, how a number is used.
"""

from __future__ import annotations

from transformers import TrainingArguments

from hf_distill.tasks import Task

TEMPERATURE = 2.0
"""The run's temperature where nobody sets one."""


def alpha_of(args: TrainingArguments, task: Task, taught: bool) -> float:
    """Return the teacher's share of the loss: ``args.alpha``, or 0 without a teacher, 0.5 with one, 1 without labels.

    Args:
        args: the run's arguments.
        task: how the models are read.
        taught: whether there is a teacher.
    """
    usual = 0.0 if not taught else 0.5 if task.supervises() else 1.0
    asked = getattr(args, "alpha", None)
    return usual if asked is None else asked
