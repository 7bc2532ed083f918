"""The mathematics: pure functions from two stacks of logits [n, V] to a value per row [n].

Knows: float32 tensors. Does not know: models, tasks, masks, batches, reductions, or anything else of this package.
Every divergence carries the factor T**2 of Hinton et al. (2015), section 2: gradients then keep their size when the
temperature changes. The teacher comes second; nothing here stops its gradient, the caller runs it without one.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

MANY = 2**14
"""From so many classes on the rounding of a normaliser shows in a divergence."""


class _KL(torch.autograd.Function):
    """KL(a || b) from log-probabilities, accurate to float32 rounding however close the two are.

    The textbook sum of a * (log a - log b) adds terms of both signs that cancel: at KL = 1e-3 it is off by 1e-3
    relative in float32. Both distributions sum to one, so sum(b - a) may be added; each term is then
    a * (exp(d) - 1 - d) with d = log b - log a: never negative, nothing cancels, and an error in either
    normaliser drops out of d to first order. It does not drop out of a: PyTorch's log_softmax adds 150,000 numbers
    to a normaliser that is 1e-5 too small on some processors, so the sum is divided by that of a, which is 1 but for
    this. The gradients below are those of this quotient.
    """

    @staticmethod
    def forward(ctx, log_a: Tensor, log_b: Tensor) -> Tensor:
        d, a = log_b - log_a, log_a.exp()
        whole = a.sum(dim=-1) if a.shape[-1] > MANY else torch.ones_like(a[..., 0])
        near = d.clamp(max=60.0)  # beyond that a < exp(-60): the term is b, and exp(d) may overflow
        terms = near.expm1().sub_(near).mul_(a)
        ctx.save_for_backward(log_a, log_b, whole)
        return torch.where(d < 60.0, terms, log_b.exp()).sum(dim=-1) / whole

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        log_a, log_b, whole = ctx.saved_tensors
        a, grad = log_a.exp(), (grad / whole).unsqueeze(-1)
        to_a = grad * a * (log_a - log_b) if ctx.needs_input_grad[0] else None
        to_b = grad * (log_b.exp() - a) if ctx.needs_input_grad[1] else None
        return to_a, to_b


def kl_of_log_probs(log_a: Tensor, log_b: Tensor) -> Tensor:
    """KL(a || b) of distributions that are given by their logarithms, accurate where both are close.

    Args:
        log_a: [..., V], float32; of each row the exponentials sum to one, or to zero as those of ``log_b`` then do.
        log_b: [..., V], float32.

    Returns:
        [...], float32, sum_v a_v (log a_v - log b_v).

    Example:
        >>> kl_of_log_probs(torch.tensor([0.5, 0.5]).log(), torch.tensor([0.25, 0.75]).log())
        tensor(0.1438)
    """
    return _KL.apply(log_a, log_b)


def _log_probs(logits: Tensor, temperature: float) -> Tensor:
    return torch.log_softmax(logits.float() / temperature, dim=-1)


def _log_mix(log_a: Tensor, log_b: Tensor, weight: float) -> Tensor:
    """Return log(weight * a + (1 - weight) * b) for a weight strictly between 0 and 1."""
    return torch.logaddexp(log_a + math.log(weight), log_b + math.log1p(-weight))


def forward_kl(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(teacher || student): the student covers everything the teacher finds likely.

    Args:
        student: logits [n, V].
        teacher: logits [n, V].
        temperature: both logits are divided by it, the value is multiplied by its square.

    Returns:
        [n], float32, T**2 * sum_v p_v log(p_v / q_v).

    Reference:
        Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network, 2015, section 2.

    Example:
        >>> forward_kl(torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, math.log(3.0)]]))
        tensor([0.1308])
    """
    p, q = _log_probs(teacher, temperature), _log_probs(student, temperature)
    return temperature**2 * _KL.apply(p, q)


def reverse_kl(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(student || teacher): the student avoids what the teacher finds unlikely.

    Args:
        student: logits [n, V].
        teacher: logits [n, V].
        temperature: both logits are divided by it, the value is multiplied by its square.

    Returns:
        [n], float32, T**2 * sum_v q_v log(q_v / p_v).

    Reference:
        Gu et al.: MiniLLM, 2023, section 2.1.

    Example:
        >>> reverse_kl(torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, math.log(3.0)]]))
        tensor([0.1438])
    """
    return forward_kl(teacher, student, temperature)


def jsd(student: Tensor, teacher: Tensor, beta: float = 0.5, temperature: float = 1.0) -> Tensor:
    """Generalised Jensen-Shannon divergence: beta KL(p || m) + (1 - beta) KL(q || m), m = beta p + (1 - beta) q.

    Args:
        student: logits [n, V], the distribution q.
        teacher: logits [n, V], the distribution p.
        beta: strictly between 0 and 1; divided by beta it tends to the forward KL for beta -> 0.
        temperature: both logits are divided by it, the value is multiplied by its square.

    Returns:
        [n], float32, between 0 and T**2 log 2.

    Reference:
        Agarwal et al.: On-Policy Distillation of Language Models (GKD), 2023, section 2.

    Example:
        >>> jsd(torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, math.log(3.0)]]))
        tensor([0.0338])
    """
    p, q = _log_probs(teacher, temperature), _log_probs(student, temperature)
    m = _log_mix(p, q, beta)
    return temperature**2 * (beta * _KL.apply(p, m) + (1.0 - beta) * _KL.apply(q, m))


def skew_forward_kl(student: Tensor, teacher: Tensor, skew: float = 0.1, temperature: float = 1.0) -> Tensor:
    """KL(p || skew p + (1 - skew) q): a forward KL that stays finite where the student gives no probability.

    Args:
        student: logits [n, V], the distribution q.
        teacher: logits [n, V], the distribution p.
        skew: strictly between 0 and 1, the teacher's share of the mixture.
        temperature: both logits are divided by it, the value is multiplied by its square.

    Returns:
        [n], float32, between 0 and -T**2 log(skew).

    Reference:
        Ko et al.: DistiLLM, 2024, section 3.1.

    Example:
        >>> skew_forward_kl(torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, math.log(3.0)]]))
        tensor([0.1070])
    """
    p, q = _log_probs(teacher, temperature), _log_probs(student, temperature)
    return temperature**2 * _KL.apply(p, _log_mix(p, q, skew))


def skew_reverse_kl(student: Tensor, teacher: Tensor, skew: float = 0.1, temperature: float = 1.0) -> Tensor:
    """KL(q || skew q + (1 - skew) p): a reverse KL whose gradient stays bounded.

    Args:
        student: logits [n, V], the distribution q.
        teacher: logits [n, V], the distribution p.
        skew: strictly between 0 and 1, the student's share of the mixture.
        temperature: both logits are divided by it, the value is multiplied by its square.

    Returns:
        [n], float32, between 0 and -T**2 log(skew).

    Reference:
        Ko et al.: DistiLLM, 2024, section 3.1.

    Example:
        >>> skew_reverse_kl(torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, math.log(3.0)]]))
        tensor([0.1131])
    """
    return skew_forward_kl(teacher, student, skew, temperature)


def logit_mse(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of the raw outputs over the classes; for regression, of the predictions.

    Args:
        student: outputs [n, V].
        teacher: outputs [n, V].

    Returns:
        [n], float32, sum_v (z_v - t_v)**2 / V. There is no temperature: the value is what T -> infinity of T**2 KL
        tends to, up to a factor and the mean of the logits.

    Reference:
        Ba, Caruana: Do Deep Nets Really Need to be Deep?, 2014, eq. 1; Hinton et al., 2015, section 2.1.

    Example:
        >>> logit_mse(torch.tensor([[0.0, 1.0]]), torch.tensor([[2.0, 2.0]]))
        tensor([2.5000])
    """
    return (student.float() - teacher.float()).square().mean(dim=-1)


def top1_cross_entropy(student: Tensor, teacher: Tensor) -> Tensor:
    """Cross-entropy of the student with the class that the teacher finds most likely.

    Args:
        student: logits [n, V].
        teacher: logits [n, V]; only the position of its maximum matters, so there is no temperature.

    Returns:
        [n], float32, -log q_argmax(p).

    Reference:
        Touvron et al.: Training data-efficient image transformers & distillation through attention, 2021, eq. 3.

    Example:
        >>> top1_cross_entropy(torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, 5.0]]))
        tensor([0.6931])
    """
    return torch.nn.functional.cross_entropy(student.float(), teacher.argmax(dim=-1), reduction="none")
