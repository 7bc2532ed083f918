"""How right two models are, row by row, in the one pass in which they are compared with each other.

Knows: heads of two models that were made comparable, what is right in each row. Does not know: the objective,
evaluation loops, what is made of the rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from hf_distill.models.topk_logits import TopKLogits
from hf_distill.objectives.chunked.one_pass import compared
from hf_distill.objectives.logits import LogitTerm
from hf_distill.signals import ABSENT, Signals

ACCURACY, NATS, SQUARES = "accuracy", "nats", "squares"
"""How right a row is: 1 or 0; minus the log-probability of its class; the squared errors of its numbers."""


@dataclass(frozen=True)
class Heard:
    """What two models made of the rows whose label is known.

    Args:
        samples: int64 [n], whose row each is, its place in the batch.
        labels: [n] classes, or [n, C] numbers, NaN where one is not known.
        student: float32 [n], how right the student is; see the kinds above.
        teacher: float32 [n], how right the teacher is.
        chance: float32 [n], the share of one class among those that the row has.
    """

    samples: Tensor
    labels: Tensor
    student: Tensor
    teacher: Tensor
    chance: Tensor

    def of(self, own: Tensor) -> Heard:
        """Return the rows of some samples.

        Args:
            own: bool [B], which.
        """
        kept = own.to(self.samples.device)[self.samples]
        return Heard(*(getattr(self, one.name)[kept] for one in fields(self)))


class Rightness(LogitTerm):
    """Writes down how right both models are in each row; as a term it costs nothing.

    Args:
        kind: ``ACCURACY``, ``NATS`` or ``SQUARES``.

    Example:
        >>> from hf_distill.signals import DenseLogits, Head
        >>> def shown(*rows):
        ...     return Signals({"logits": Head(DenseLogits(torch.tensor(rows)), torch.ones(2, dtype=torch.bool))})
        >>> student, teacher = shown([1.0, 0.0], [1.0, 0.0]), shown([0.0, 2.0], [0.0, 1.0])
        >>> heard = Rightness(ACCURACY).hear(student, teacher, {"logits": torch.tensor([0, -100])})
        >>> heard.samples.tolist(), heard.student.tolist(), heard.teacher.tolist()
        ([0], [1.0], [0.0])
    """

    labelled: ClassVar[bool] = True

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self._found: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []

    def check_few(self, temperature: float) -> None:
        """Accept any temperature: the first choice is the same; see ``Term.check_few``."""

    def divergence(self, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        """Write down the rows of a chunk; return zeros [n]."""
        chance = (teacher > ABSENT / 2).sum(dim=-1).clamp(min=1).reciprocal()
        self._found.append((labels, self._right(student, labels), self._right(teacher, labels), chance))
        return student.new_zeros(len(student))

    def divergence_from_few(self, student: Tensor, teacher: TopKLogits, labels: Tensor) -> Tensor:
        """The same, of the highest id."""
        first = teacher.ids.gather(-1, teacher.log_p.argmax(dim=-1, keepdim=True)).squeeze(-1)
        chance = torch.full_like(labels, 1 / teacher.classes, dtype=torch.float32)
        self._found.append((labels, self._right(student, labels), (first == labels).float(), chance))
        return student.new_zeros(len(student))

    def _right(self, logits: Tensor, labels: Tensor) -> Tensor:
        if self.kind == ACCURACY:
            return (logits.argmax(dim=-1) == labels).float()
        if self.kind == NATS:
            return F.cross_entropy(logits.float(), labels.long(), reduction="none", ignore_index=-100)
        return (logits.float() - labels).square().nansum(dim=-1)

    def reading(self, student: Signals, truths: Mapping[str, Tensor]) -> Signals:
        """Return the student's signals with what is right in the place of their labels, as this term reads them.

        Args:
            student: what the student shows.
            truths: head -> classes, the leading shape, negative where there is none; or numbers [B, C].
        """
        self._found, self._rows = [], [student.heads[name].rows for name in student.heads]
        heads = {name: head._replace(labels=truths[name]) for name, head in student.heads.items()}
        return replace(student, heads=heads)

    def written(self) -> Heard:
        """Return what was written down of the rows with a label, since ``reading``."""
        labels, *scores = (torch.cat(parts) for parts in zip(*self._found, strict=True))
        samples = torch.cat([rows.nonzero()[:, 0] for rows in self._rows]).to(labels.device)
        known = ~labels.isnan().all(dim=-1) if self.kind == SQUARES else labels >= 0
        self._found, self._rows = [], []
        return Heard(samples[known], labels[known], *(one[known] for one in scores))

    def hear(self, student: Signals, teacher: Signals, truths: Mapping[str, Tensor]) -> Heard:
        """Go through the rows for this alone; see ``fidelity`` for the same beside other figures.

        Args:
            student: what the student shows.
            teacher: what the teacher shows, comparable with it.
            truths: as in ``reading``.
        """
        compared({"": (self, self.reading(student, truths), teacher)})
        return self.written()


def can_be_right(kind: str, student: Signals, teacher: Signals, truths: Mapping[str, Tensor]) -> bool:
    """Say whether both models' rows can be held against what is right.

    Args:
        kind: of ``Rightness``.
        student: what the student shows.
        teacher: what the teacher shows, comparable with it.
        truths: as in ``Rightness.reading``.
    """
    for name, head in student.heads.items():
        theirs = teacher.heads.get(name)
        if theirs is None or name not in truths or theirs.logits.shape[-1] != head.logits.shape[-1]:
            return False
        if kind != ACCURACY and hasattr(theirs.logits, "few"):
            return False
    return bool(student.heads)
