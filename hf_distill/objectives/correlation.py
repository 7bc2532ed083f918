"""Terms that compare how classes rank, not how probable they are.

Knows: logits, correlation over the classes of a row and over the rows of a class. Does not know: tasks, models.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from hf_distill.objectives.functional import forward_kl
from hf_distill.objectives.logits import TemperedTerm
from hf_distill.objectives.unit_vectors import unit_vectors
from hf_distill.signals import BINARY, CATEGORICAL, Signals, Sum


def standardised(logits: Tensor) -> Tensor:
    """Give each row mean 0 and standard deviation 1.

    The deviation is that of all V classes (divided by V, as in the paper). The paper's published program divides by
    V - 1: its z-scores are sqrt(1 - 1 / V) times these, as under a temperature that is 1.41 times as high for two
    classes and 1.005 times for a hundred.

    Args:
        logits: [n, V].

    Returns:
        [n, V], float32; a row of equal logits becomes zeros, without a gradient.

    Reference:
        Sun et al.: Logit Standardization in Knowledge Distillation, arXiv:2403.01427, equation 10, algorithm 1.

    Example:
        >>> standardised(torch.tensor([[1.0, 2.0, 3.0], [5.0, 5.0, 5.0]])).round(decimals=2)
        tensor([[-1.2200,  0.0000,  1.2200],
                [ 0.0000,  0.0000,  0.0000]])
    """
    return _centred_unit(logits) * math.sqrt(logits.shape[-1])


def pearson(one: Tensor, other: Tensor) -> Tensor:
    """Correlate the rows of two matrices.

    Args:
        one: [n, V].
        other: [n, V].

    Returns:
        [n], float32, from -1 to 1; 0, without a gradient, where a row is constant.

    Example:
        >>> pearson(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[5.0, 7.0, 9.0]])).round(decimals=4)
        tensor([1.])
    """
    return (_centred_unit(one) * _centred_unit(other)).sum(dim=-1)


def _centred_unit(rows: Tensor) -> Tensor:
    """Take each row's mean away and give it length 1; what is left of a constant row is rounding, and becomes zero."""
    rows = rows.float()
    shifted = rows - rows[..., :1].detach()  # of a constant row nothing is left, however its mean would be rounded
    return unit_vectors(shifted - shifted.mean(dim=-1, keepdim=True), rows)


class StandardisedKL(TemperedTerm):
    """KL of logits that were standardised first: the student need not have the teacher's range, only its order.

    ``T**2 * KL(softmax(z(teacher) / T) || softmax(z(student) / T))`` with z the z-score of each row.

    Args:
        temperature: the paper's base temperature, greater than 0; None takes the run's.

    Reference:
        Sun et al.: Logit Standardization in Knowledge Distillation, arXiv:2403.01427, section 3.3, algorithm 1.

    Example:
        >>> teacher = torch.tensor([[1.0, 2.0, 4.0]])
        >>> StandardisedKL().divergence(3.0 * teacher + 1.0, teacher).abs().item() < 1e-6
        True
    """

    few: ClassVar[bool] = False
    accepts: ClassVar[frozenset[str]] = frozenset({CATEGORICAL, BINARY})
    citation: ClassVar[str] = "Sun, Ren, Li, Wang, Cao: Logit Standardization, arXiv:2403.01427"

    def divergence(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return [n]; see the class."""
        return forward_kl(standardised(student), standardised(teacher), self.temperature)


class DIST(TemperedTerm):
    """One minus the correlation of probabilities, over the classes of a row and over the rows of a class.

    ``T**2 * (beta * (1 - mean over rows of r(p_row, q_row)) + gamma * (1 - mean over classes of r(p_col, q_col)))``,
    with Pearson's r. The second part sees all rows of a micro-batch together, so micro-batches are groups of their
    own: equal groups give equal results however they are spread over accumulation steps and ranks, other groups do
    not; with ``gamma=0`` all do. All rows are held in float32 at once.

    Args:
        beta: weight of the relations among classes; at least 0.
        gamma: weight of the relations among rows; at least 0.
        temperature: greater than 0; None takes the run's.

    Raises:
        ValueError: a weight that is negative or not finite, or both 0.

    Reference:
        Huang et al.: Knowledge Distillation from A Stronger Teacher, arXiv:2205.10536, equations 7 to 10.

    Example:
        >>> teacher = torch.tensor([[1.0, 2.0, 4.0], [2.0, 0.0, 1.0]])
        >>> DIST().together(teacher, teacher).abs().item() < 1e-6
        True
    """

    few: ClassVar[bool] = False
    accepts: ClassVar[frozenset[str]] = frozenset({CATEGORICAL, BINARY})
    citation: ClassVar[str] = (
        "Huang, You, Wang, Qian, Xu: Knowledge Distillation from A Stronger Teacher, arXiv:2205.10536"
    )

    def __init__(self, beta: float = 1.0, gamma: float = 1.0, temperature: float | None = None) -> None:
        super().__init__(temperature)
        if not all(math.isfinite(weight) and weight >= 0 for weight in (beta, gamma)) or beta == gamma == 0:
            raise ValueError(
                f"beta={beta} and gamma={gamma} were given to dist: give numbers of at least 0, not both 0."
            )
        self.beta, self.gamma = beta, gamma

    def together(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compare all rows of one head.

        Args:
            student: logits [n, V], with gradients.
            teacher: logits [n, V].

        Returns:
            A scalar, n times what the class says; of a single row the second part is 0.
        """
        ours, theirs = ((logits.float() / self.temperature).softmax(dim=-1) for logits in (student, teacher))
        value = self.beta * (1.0 - pearson(ours, theirs)).sum()
        if len(ours) > 1 and self.gamma:
            value = value + self.gamma * (1.0 - pearson(ours.T, theirs.T)).mean() * len(ours)
        return self.temperature**2 * value

    def forward(self, student: Signals, teacher: Signals, batch: Mapping[str, Any]) -> Sum:
        """Compare head by head; see ``Term.forward``."""
        totals, count = [], 0
        for name, head in student.heads.items():
            ours, theirs = (one.logits.select(head.rows) for one in (head, teacher.heads[name]))
            rows = ours.shape[0]
            shown = ours.chunk(0, rows)
            totals.append(head.share * self.together(shown, theirs.chunk(0, rows).to(shown.device)))
            count += rows * head.share
        return Sum(torch.stack(totals).sum(), torch.tensor(round(count), device=totals[0].device))

    def extra_repr(self) -> str:
        """Show the weights and the temperature in ``print(term)``."""
        return f"beta={self.beta}, gamma={self.gamma}, {super().extra_repr()}"
