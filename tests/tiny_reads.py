"""A tiny student that reads what its teacher showed, and the task that gives it."""

from typing import ClassVar

import tiny
import torch
from torch import nn

from hf_distill import SequenceClassification

READS = {"hidden": 24, "heads": 3}
"""What a student reads, and how wide that is of the tiny teacher."""


class Reader(nn.Module):
    """A bag of words beside what the teacher showed: ``Student(Input, TeacherOutput)``."""

    def __init__(self, width, dropout=0.0, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.words, self.teacher, self.head = nn.Embedding(32, 8), nn.Linear(width, 8), nn.Linear(8, 3)
        self.dropout = nn.Dropout(dropout)

    def forward(self, input_ids, told, attention_mask=None, labels=None):
        mask = attention_mask.unsqueeze(-1).float()
        text = (self.words(input_ids) * mask).sum(1) / mask.sum(1)
        return {"logits": self.head(torch.tanh(self.dropout(text) + self.teacher(told.float())))}


class Reading(SequenceClassification):
    """Gives the student its teacher's first state or its logits."""

    def __init__(self, reads):
        super().__init__(3, problem_type=tiny.SINGLE)
        self.reads, self.given = frozenset({reads}), []

    def inputs(self, model, fed, batch, teacher=None):
        self.given.append((type(model).__name__, teacher))
        if not isinstance(model, Reader):
            return fed
        shown = teacher.named.get("big", teacher)
        read = shown.hidden[-1][:, 0] if "hidden" in str(self.reads) else shown.heads["logits"].logits.tensor
        return {**fed, "told": read}


class States(nn.Module):
    """A bag of words beside its teacher's last states, which its forward names."""

    reads_teacher: ClassVar = {"teacher_hidden_states": "hidden[-1]"}

    def __init__(self, dropout=0.0, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.words, self.teacher, self.head = nn.Embedding(32, 8), nn.Linear(24, 8), nn.Linear(8, 3)
        self.dropout = nn.Dropout(dropout)

    def forward(self, input_ids, teacher_hidden_states, attention_mask=None, labels=None):
        states = torch.tanh(self.words(input_ids) + self.teacher(teacher_hidden_states))
        mask = attention_mask.unsqueeze(-1)
        return {"logits": self.head(self.dropout((states * mask).sum(1) / mask.sum(1)))}


class Optional(States):
    """Does without its teacher where there is none."""

    def forward(self, input_ids, attention_mask=None, labels=None, teacher_hidden_states=None):
        if teacher_hidden_states is None:
            teacher_hidden_states = torch.zeros(*input_ids.shape, 24)
        return super().forward(input_ids, teacher_hidden_states, attention_mask)


def named(folder, student=None, args=None, **parts):
    """A trainer whose student names what it reads."""
    given = {"task": SequenceClassification(3, problem_type=tiny.SINGLE), "teacher_model": tiny.teacher(), **parts}
    return tiny.trainer(folder, student or States(), args=args or {}, **given)


def made(folder, reads="hidden", args=None, dropout=0.0, **parts):
    given = {"task": Reading(reads), "teacher_model": tiny.teacher(), "args": args or {}, **parts}
    return tiny.trainer(folder, given.pop("student", None) or Reader(READS[reads], dropout), **given)
