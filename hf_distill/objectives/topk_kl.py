"""Terms that look at a teacher's likely and unlikely classes differently.

Knows: logits. Does not know: tasks, models, how logits are held.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from hf_distill.objectives.functional import forward_kl, kl_of_log_probs, reverse_kl
from hf_distill.objectives.logits import TemperedTerm


def topk_kl(student: Tensor, teacher: Tensor, k: int = 10, temperature: float = 1.0) -> Tensor:
    """KL(teacher || student) over the teacher's k most likely classes and one class for all others together.

    Args:
        student: logits [n, V].
        teacher: logits [n, V].
        k: how many classes stay apart; V or more gives the whole KL.
        temperature: both logits are divided by it, the value is multiplied by its square.

    Returns:
        [n], float32, at most the whole KL: the noise among unlikely classes is not learned.

    Example:
        >>> student, teacher = torch.tensor([[0.0, 0.0, 0.0, 0.0]]), torch.tensor([[3.0, 2.0, 1.0, 0.0]])
        >>> topk_kl(student, teacher, k=2) < topk_kl(student, teacher, k=3)
        tensor([True])
    """
    if k >= teacher.shape[-1]:
        return forward_kl(student, teacher, temperature)
    ids = teacher.topk(k, dim=-1).indices
    parts = []
    for logits in (teacher, student):
        logs = (logits.float() / temperature).log_softmax(dim=-1)
        rest = logs.scatter(-1, ids, float("-inf")).logsumexp(dim=-1, keepdim=True)
        parts.append(torch.cat((logs.gather(-1, ids), rest), dim=-1))
    return temperature**2 * kl_of_log_probs(*parts)


def adaptive_kl(student: Tensor, teacher: Tensor, mu: float = 0.5, temperature: float = 1.0) -> Tensor:
    """Forward KL where the student misses the teacher's likely classes, reverse KL where it misses the unlikely.

    Args:
        student: logits [n, V].
        teacher: logits [n, V].
        mu: the likely classes are the fewest that have this much of the teacher's probability together.
        temperature: both logits are divided by it, the value is multiplied by its square.

    Returns:
        [n], float32, (g_head * KL(p || q) + g_tail * KL(q || p)) / (g_head + g_tail), with g the sum of |p - q| over
        the likely and over the other classes. The two weights have no gradient.

    Reference:
        Wu et al.: Rethinking Kullback-Leibler Divergence in Knowledge Distillation for LLMs, arXiv:2404.02657,
        section 4, equations 13 to 15.

    Example:
        >>> adaptive_kl(torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, 1.0]]))
        tensor([0.1155])
    """
    with torch.no_grad():
        p, q = ((logits.float() / temperature).softmax(dim=-1) for logits in (teacher, student))
        ordered, order = p.sort(dim=-1, descending=True)
        likely = torch.zeros_like(p, dtype=torch.bool)
        likely.scatter_(-1, order, ordered.cumsum(dim=-1) - ordered < mu)
        gap = (p - q).abs()
        head, tail = ((gap * side).sum(dim=-1) for side in (likely, ~likely))
        share = torch.where(head + tail > 0, head / (head + tail).clamp(min=torch.finfo(p.dtype).tiny), 0.5)
    forward, reverse = (compare(student, teacher, temperature) for compare in (forward_kl, reverse_kl))
    return share * forward + (1.0 - share) * reverse


class TopKKL(TemperedTerm):
    """KL over the teacher's k most likely classes and one for all others. See ``topk_kl``.

    Args:
        k: how many classes stay apart; at least 1.
        temperature: greater than 0; None takes the run's.

    Raises:
        ValueError: k is less than 1.

    Example:
        >>> TopKKL(k=20)
        TopKKL(k=20, temperature=1.0)
    """

    few: ClassVar[bool] = False
    citation: ClassVar[str] = "Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network, arXiv:1503.02531"

    def __init__(self, k: int = 10, temperature: float | None = None) -> None:
        super().__init__(temperature)
        if isinstance(k, bool) or not isinstance(k, int) or k < 1:
            raise ValueError(f"k={k!r} was given to topk_kl: give how many classes stay apart, at least 1.")
        self.k = k

    def divergence(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return [n]; see ``topk_kl``."""
        return topk_kl(student, teacher, self.k, self.temperature)

    def extra_repr(self) -> str:
        """Show k and the temperature in ``print(term)``."""
        return f"k={self.k}, {super().extra_repr()}"


class AdaptiveKL(TemperedTerm):
    """Forward and reverse KL, weighed row by row. See ``adaptive_kl``.

    Args:
        mu: how much of the teacher's probability its likely classes have; strictly between 0 and 1.
        temperature: greater than 0; None takes the run's.

    Raises:
        ValueError: mu is not strictly between 0 and 1.

    Example:
        >>> AdaptiveKL()
        AdaptiveKL(mu=0.5, temperature=1.0)
    """

    few: ClassVar[bool] = False
    citation: ClassVar[str] = "Wu et al.: Rethinking Kullback-Leibler Divergence for LLMs, arXiv:2404.02657"

    def __init__(self, mu: float = 0.5, temperature: float | None = None) -> None:
        super().__init__(temperature)
        if not 0 < mu < 1:
            raise ValueError(f"mu={mu} was given to adaptive_kl: give a share strictly between 0 and 1.")
        self.mu = mu

    def divergence(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return [n]; see ``adaptive_kl``."""
        return adaptive_kl(student, teacher, self.mu, self.temperature)

    def extra_repr(self) -> str:
        """Show mu and the temperature in ``print(term)``."""
        return f"mu={self.mu}, {super().extra_repr()}"
