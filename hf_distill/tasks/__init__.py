"""Tasks: how to read a model's outputs for one kind of problem. ``Task.of(model)`` finds the one that fits."""

from hf_distill.tasks.task import Task
from hf_distill.tasks.text import SequenceClassification

TASKS: tuple[type[Task], ...] = (SequenceClassification,)

__all__ = ["TASKS", "SequenceClassification", "Task"]
