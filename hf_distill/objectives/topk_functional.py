"""The mathematics of a teacher of whom a few ids are kept: its highest classes, and a sample of all others.

Knows: float32 tensors. Does not know: models, tasks, masks, batches, or how the ids were chosen.
p is the teacher, q the student, both at one temperature T; as in ``functional``, values carry the factor T**2.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hf_distill.signals import ABSENT


def sampled_forward_kl(
    student: Tensor,
    ids: Tensor,
    log_p: Tensor,
    tail_ids: Tensor,
    tail: Tensor,
    entropy: Tensor,
    temperature: float = 1.0,
) -> Tensor:
    """KL(teacher || student) of a teacher's highest classes and m draws from all others: unbiased, also its gradient.

    Args:
        student: logits [n, V].
        ids: int64 [n, h], the teacher's highest classes.
        log_p: float32 [n, h], their log-probabilities at ``temperature``.
        tail_ids: int64 [n, m], drawn from the other classes in proportion to p; m = 0 leaves these out.
        tail: float32 [n], tau, the probability of the other classes together; a draw stands for tau / m.
        entropy: float32 [n], H, of the teacher's whole distribution; it only shifts the value.
        temperature: the student's logits are divided by it, the value is multiplied by its square.

    Returns:
        [n], float32, T**2 * (-H - sum_head p log q - tau / m * sum_draws log q); a single row may be negative.

    Example:
        >>> ids, p, draws = torch.tensor([[0]]), torch.tensor([[0.5]]), torch.tensor([[1, 2]])
        >>> entropy = torch.tensor([1.5 * math.log(2.0)])  # of 1/2, 1/4, 1/4
        >>> sampled_forward_kl(torch.zeros(1, 3), ids, p.log(), draws, torch.tensor([0.5]), entropy)
        tensor([0.0589])
    """
    drawn = (tail / max(1, tail_ids.shape[-1])).unsqueeze(-1).expand(tail_ids.shape)
    log_q = torch.log_softmax(student.float() / temperature, dim=-1).gather(-1, torch.cat((ids, tail_ids), dim=-1))
    return temperature**2 * (-entropy - (torch.cat((log_p.exp(), drawn), dim=-1) * log_q).sum(dim=-1))


def coarsened(
    student: Tensor, ids: Tensor, log_p: Tensor, tail: Tensor, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Both models over h + 1 classes: the teacher's highest, and one for all others together.

    Joining classes can only lower a divergence: what is computed from these logits is a lower bound.

    Args:
        student: logits [n, V].
        ids: int64 [n, h], the teacher's highest classes.
        log_p: float32 [n, h], their log-probabilities at ``temperature``; ``ABSENT`` where a row keeps fewer, whose
            ids there are ones that it keeps.
        tail: float32 [n], the probability of the other classes; less than 2**-25, which float16 rounds to 0, is that.
        temperature: at which both results must be read: the sum of many classes holds for one temperature only.

    Returns:
        The student's and the teacher's logits [n, h + 1]; [n, V] where the highest classes are all.

    Example:
        >>> ids, half = torch.tensor([[2]]), torch.tensor([0.5])
        >>> ours, theirs = coarsened(torch.zeros(1, 4), ids, half.log()[:, None], half)
        >>> ours.softmax(-1), theirs.softmax(-1)
        (tensor([[0.2500, 0.7500]]), tensor([[0.5000, 0.5000]]))
    """
    scaled, absent = student.float() / temperature, log_p <= ABSENT
    ours, theirs = scaled.gather(-1, ids).masked_fill(absent, ABSENT), log_p
    if ids.shape[-1] < student.shape[-1] or bool(absent.any()):
        # Summed where they are, not as log(1 - head): where the head holds nearly all, that leaves rounding errors.
        low = -math.inf if ids.shape[-1] < student.shape[-1] else ABSENT  # a row may keep all: of nothing is no sum
        rest = scaled.scatter(-1, ids, low).logsumexp(dim=-1, keepdim=True)
        other = tail.clamp(min=2**-25).log().unsqueeze(-1)
        if low == ABSENT:
            other = torch.where(absent.any(dim=-1, keepdim=True), other, ABSENT)
        ours, theirs = torch.cat((ours, rest), dim=-1), torch.cat((log_p, other), dim=-1)
    return temperature * ours, temperature * theirs
