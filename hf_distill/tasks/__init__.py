"""Tasks: how to read a model's outputs for one kind of problem. ``Task.of(model)`` finds the one that fits."""

from hf_distill.tasks.language import CausalLM, Seq2SeqLM
from hf_distill.tasks.task import Task
from hf_distill.tasks.text import SequenceClassification

TASKS: tuple[type[Task], ...] = (SequenceClassification, CausalLM, Seq2SeqLM)

__all__ = ["TASKS", "CausalLM", "Seq2SeqLM", "SequenceClassification", "Task"]
