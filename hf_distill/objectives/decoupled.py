"""Decoupled distillation: what the teacher says of the target class, and what it says of all others.

Knows: logits, and the target class of each row. Does not know: where a target comes from, tasks, models.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from hf_distill.objectives.functional import kl_of_log_probs
from hf_distill.objectives.logits import TemperedTerm


def decoupled_kl(
    student: Tensor, teacher: Tensor, target: Tensor, alpha: float = 1.0, beta: float = 8.0, temperature: float = 1.0
) -> Tensor:
    """Weigh apart the KL of (target, everything else) and the KL among the other classes.

    Args:
        student: logits [n, V], V at least 2.
        teacher: logits [n, V].
        target: int64 [n], the target class of each row.
        alpha: weight of the first part; at least 0.
        beta: weight of the second; at least 0. In plain KL it is the teacher's probability of everything else.
        temperature: both logits are divided by it, the value is multiplied by its square.

    Returns:
        [n], float32, T**2 * (alpha * TCKD + beta * NCKD).

    Reference:
        Zhao et al.: Decoupled Knowledge Distillation, arXiv:2203.08679, equation 7.

    Example:
        >>> teacher = torch.tensor([[2.0, 1.0, 0.0]])
        >>> decoupled_kl(torch.zeros(1, 3), teacher, torch.tensor([0]), alpha=1.0, beta=0.0)
        tensor([0.2291])
        >>> decoupled_kl(torch.zeros(1, 3), teacher, torch.tensor([0]), alpha=0.0, beta=1.0)
        tensor([0.1109])
    """
    parts = []
    others = torch.ones_like(student, dtype=torch.bool).scatter_(-1, target.unsqueeze(-1), value=False)
    for logits in (teacher, student):
        logits = logits.float() / temperature
        # Others are summed among themselves: one minus the target's probability loses them where that is near one.
        rest = logits[others].view(len(logits), logits.shape[-1] - 1)
        of_rest = rest.logsumexp(dim=-1)
        pair = torch.stack((logits.gather(-1, target.unsqueeze(-1)).squeeze(-1), of_rest), dim=-1)
        parts.append((pair.log_softmax(dim=-1), rest.log_softmax(dim=-1)))
    (teacher_pair, teacher_rest), (student_pair, student_rest) = parts
    target_part = kl_of_log_probs(teacher_pair, student_pair)
    return temperature**2 * (alpha * target_part + beta * kl_of_log_probs(teacher_rest, student_rest))


class DKD(TemperedTerm):
    """Decoupled knowledge distillation: the other classes weigh as much where the teacher is sure of the target.

    The target is the row's label; where there is none, the teacher's first choice. See ``decoupled_kl``.

    Args:
        alpha: weight of the target part; at least 0.
        beta: weight of the other classes; at least 0. The paper uses 1 to 8 for image classification.
        temperature: greater than 0; None takes the run's.

    Raises:
        ValueError: a weight that is negative or not finite, or both 0.

    Example:
        >>> DKD(beta=2.0)
        DKD(alpha=1.0, beta=2.0, temperature=1.0)
    """

    few: ClassVar[bool] = False
    labelled: ClassVar[bool] = True
    citation: ClassVar[str] = "Zhao, Cui, Song, Qiu, Liang: Decoupled Knowledge Distillation, arXiv:2203.08679"

    def __init__(self, alpha: float = 1.0, beta: float = 8.0, temperature: float | None = None) -> None:
        super().__init__(temperature)
        if not all(math.isfinite(weight) and weight >= 0 for weight in (alpha, beta)) or alpha == beta == 0:
            raise ValueError(
                f"alpha={alpha} and beta={beta} were given to dkd: give numbers of at least 0, not both 0."
            )
        self.alpha, self.beta = alpha, beta

    def divergence(self, student: Tensor, teacher: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return [n]; see ``decoupled_kl``.

        Args:
            student: logits [n, V], with gradients.
            teacher: logits [n, V].
            labels: int64 [n], negative where a row has none; None: no row has one.
        """
        target = teacher.argmax(dim=-1)
        if labels is not None:
            target = torch.where(labels >= 0, labels, target)
        return decoupled_kl(student, teacher, target, self.alpha, self.beta, self.temperature)

    def extra_repr(self) -> str:
        """Show the weights and the temperature in ``print(term)``."""
        return f"alpha={self.alpha}, beta={self.beta}, {super().extra_repr()}"
