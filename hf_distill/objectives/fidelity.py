"""How close a student comes to its teacher, row by row, whatever it is trained on.

Knows: heads of two models that were made comparable. Does not know: the objective, evaluation loops, labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from hf_distill.objectives.chunked.one_pass import compared
from hf_distill.objectives.logits import ForwardKL, LogitTerm
from hf_distill.objectives.term import Term
from hf_distill.signals import Head, Signals, Sum


class Agreement(LogitTerm):
    """Whether both models find the same class most likely.

    Example:
        >>> import torch
        >>> Agreement().divergence(torch.tensor([[0.0, 1.0], [2.0, 1.0]]), torch.tensor([[0.0, 9.0], [0.0, 1.0]]))
        tensor([1., 0.])
    """

    def divergence(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return [n], 1 where it is so."""
        return (student.argmax(dim=-1) == teacher.argmax(dim=-1)).float()


def fidelity(
    student: Signals, teacher: Signals, beside: Mapping[str, tuple[Term, Signals]] | None = None
) -> dict[str, Sum]:
    """Compare two models in every row that counts.

    Args:
        student: what the student shows.
        teacher: what the teacher shows, comparable with it.
        beside: name -> a term that goes through the same chunks of logits, and what it sees of the student.

    Returns:
        ``agreement``, in how many rows both choose the same class, and ``kl``, KL(teacher, student) at temperature 1
        in nats, each with the number of rows; and what is beside them. Nothing where their classes are not the same,
        or a few ids are kept.

    Example:
        >>> import torch
        >>> from hf_distill.signals import DenseLogits, Head
        >>> shown = Signals({"logits": Head(DenseLogits(torch.eye(3)), torch.tensor([True, True, False]))})
        >>> {name: (one.total.item(), one.count.item()) for name, one in fidelity(shown, shown).items()}
        {'agreement': (2.0, 2), 'kl': (0.0, 2)}
    """
    for name, head in student.heads.items():
        theirs = teacher.heads.get(name)
        if theirs is None or hasattr(theirs.logits, "few") or theirs.logits.shape[-1] != head.logits.shape[-1]:
            return {}
    if not student.heads:
        return {}
    teacher = replace(teacher, heads={name: _mean(head) for name, head in teacher.heads.items()})
    asked = {"agreement": (Agreement(), student, teacher), "kl": (ForwardKL(1.0), student, teacher)}
    return compared(asked | {name: (term, seen, teacher) for name, (term, seen) in (beside or {}).items()})


def _mean(head: Head) -> Head:
    """A teacher's head with weights that are 1 on average in each sample, so that a share of rows stays one."""
    if head.weights is None:
        return head
    each, rows = head.weights.flatten(1), head.rows.flatten(1).to(head.weights.device)
    mean = (each * rows).sum(dim=1, keepdim=True) / rows.sum(dim=1, keepdim=True).clamp(min=1)
    # Of a sample in which nothing weighs anything, nothing is told: each row of it then counts as all others.
    each = torch.where(mean > 0, each / mean.clamp(min=1e-12), torch.ones_like(each))
    return head._replace(weights=each.view_as(head.weights))
