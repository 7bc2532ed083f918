"""Tasks: how to read a model's outputs for one kind of problem. ``Task.of(model)`` finds the one that fits."""

from hf_distill.tasks.candidates import CandidateCollator
from hf_distill.tasks.choice import MultipleChoice
from hf_distill.tasks.embedding import SentenceEmbedding
from hf_distill.tasks.language import CausalLM, Seq2SeqLM
from hf_distill.tasks.masked import MaskedLM
from hf_distill.tasks.spans import QuestionAnswering
from hf_distill.tasks.task import Task
from hf_distill.tasks.text import SequenceClassification
from hf_distill.tasks.tokens import TokenClassification

TASKS: tuple[type[Task], ...] = (
    SequenceClassification, TokenClassification, QuestionAnswering, MultipleChoice, MaskedLM, CausalLM, Seq2SeqLM,
    SentenceEmbedding,
)  # fmt: skip
"""In the order in which they are tried: some classes are in several mappings of transformers."""

__all__ = [
    "TASKS",
    "CandidateCollator",
    "CausalLM",
    "MaskedLM",
    "MultipleChoice",
    "QuestionAnswering",
    "Seq2SeqLM",
    "SentenceEmbedding",
    "SequenceClassification",
    "Task",
    "TokenClassification",
]
