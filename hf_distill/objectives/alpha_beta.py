"""The alpha-beta divergence: one family of which both KL divergences are two members.

Knows: logits. Does not know: tasks, models, how logits are held.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from hf_distill.objectives.logits import TemperedTerm
from hf_distill.signals import BINARY, CATEGORICAL

NEAR = 0.25
"""So near each other two exponents are compared by a series: the difference of two quotients would cancel."""
ORDER = 6
"""Terms of that series: what is left out is 1e-7 of it."""


class _AlphaBeta(torch.autograd.Function):
    """The divergence of two distributions that are given by their logits, accurate however close they are.

    With s = alpha + beta and d = log q - log p, what a class costs is p**s * d**2 * exp[0, beta d, s d], the second
    divided difference of the exponential. It is never negative, so nothing cancels in the sum over the classes, and it
    has no poles: alpha = 0, beta = 0 and s = 0 are values of it as all others are. Its derivatives by log q and log p
    are first divided differences. Other than in a KL an error in a normaliser does not drop out of the sum, so d is a
    difference of logits and of normalisers, and not of logarithms that were rounded before.
    """

    @staticmethod
    def forward(ctx, student: Tensor, teacher: Tensor, alpha: float, beta: float) -> Tensor:
        (high_q, log_q), (high_p, log_p) = _normaliser(student), _normaliser(teacher)
        s, d = alpha + beta, (student - teacher) - ((high_q - high_p) + (log_q - log_p))
        log_p = teacher - high_p - log_p
        ctx.save_for_backward(log_p, d)
        ctx.alpha, ctx.beta = alpha, beta
        low, middle, high = sorted((0.0, beta, s))
        reach = high - low
        near = d.clamp(-NEAR / reach, NEAR / reach) if reach else d
        series = torch.zeros_like(d)
        for factor in reversed(_series(beta, s)):
            series = series * near + factor
        terms = series * near.square() * (s * log_p).exp()
        if reach:
            far = (_slope(log_p, d, s, middle, high) - _slope(log_p, d, s, low, middle)) / reach
            terms = torch.where(d.abs() < NEAR / reach, terms, far)
        return terms.sum(dim=-1)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        log_p, d = ctx.saved_tensors
        s, grad, to_q, to_p = ctx.alpha + ctx.beta, grad.unsqueeze(-1), None, None
        if ctx.needs_input_grad[0]:
            slope = _slope(log_p, d, s, ctx.beta, s)
            to_q = grad * (slope - (log_p + d).exp() * slope.sum(dim=-1, keepdim=True))
        if ctx.needs_input_grad[1]:
            slope = -_slope(log_p, d, s, 0.0, ctx.beta)
            to_p = grad * (slope - log_p.exp() * slope.sum(dim=-1, keepdim=True))
        return to_q, to_p, None, None


def _normaliser(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return the highest logit and the logarithm of what all exponentials are together beside it."""
    high = logits.amax(dim=-1, keepdim=True)
    return high, (logits - high).exp().sum(dim=-1, keepdim=True).log()


def _slope(log_p: Tensor, d: Tensor, s: float, one: float, other: float) -> Tensor:
    """Return p**s * (exp(other d) - exp(one d)) / (other - one), and its limit where both are the same."""
    low, high = sorted((one, other))
    width = high - low
    rise = torch.copysign((-width * d.abs()).expm1() / -width, d) if width else d
    return (s * log_p + torch.where(d > 0, high * d, low * d)).exp() * rise


def _series(beta: float, s: float) -> list[float]:
    """Return the factors of d**2, d**3, ... in the second divided difference: sums of products over factorials."""
    sums = [sum(beta**i * s ** (k - i) for i in range(k + 1)) for k in range(ORDER)]
    return [one / math.factorial(k + 2) for k, one in enumerate(sums)]


def alpha_beta(
    student: Tensor, teacher: Tensor, alpha: float = 0.2, beta: float = 0.7, temperature: float = 1.0
) -> Tensor:
    """Alpha-beta divergence: alpha shifts the weight to the classes of great error, beta to those the student likes.

    alpha = 1, beta = 0 is the forward KL, alpha = 0, beta = 1 the reverse KL, alpha + beta = 1 the alpha-divergences.
    Where the formula has a pole, the value is its limit, so that it is continuous in both.

    Args:
        student: logits [n, V], the distribution q.
        teacher: logits [n, V], the distribution p.
        alpha: any number; a great one lets the student look less at classes where it is far from the teacher.
        beta: any number; ``alpha + beta`` is at least 0. A great one lets it look more at the classes it finds likely.
        temperature: both logits are divided by it, the value is multiplied by its square.

    Returns:
        [n], float32, T**2 / (alpha beta) * sum_v (alpha p**s + beta q**s) / s - p**alpha q**beta, s = alpha + beta.

    Reference:
        Wang et al.: ABKD: Pursuing a Proper Allocation of the Probability Mass in Knowledge Distillation via
        alpha-beta-Divergence, arXiv:2505.04560; the limits are those of Cichocki, Cruces, Amari: Generalized
        Alpha-Beta Divergences, 2011. Where only beta or the sum is 0 the authors' code returns alpha times the limit,
        where only alpha is 0 beta times.

    Example:
        >>> alpha_beta(torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, math.log(3.0)]]), alpha=1.0, beta=0.0)
        tensor([0.1308])
        >>> alpha_beta(torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, math.log(3.0)]]), alpha=0.5, beta=0.5)
        tensor([0.1363])
    """
    ours, theirs = (logits.float() / temperature for logits in (student, teacher))
    return temperature**2 * _AlphaBeta.apply(ours, theirs, float(alpha), float(beta))


class AlphaBeta(TemperedTerm):
    """Alpha-beta divergence * T**2, between and beyond the two KL divergences. See ``alpha_beta``.

    Of a teacher that keeps a few ids it can be told a lower bound if ``alpha + beta`` is 1, and then only.

    Args:
        alpha: any number; the authors' command for CIFAR-100 has 0.8 and ``beta=0.3``.
        beta: any number, such that ``alpha + beta`` is at least 0.
        temperature: greater than 0; None takes the run's.

    Raises:
        ValueError: ``alpha + beta`` is less than 0, or one of them is no number.

    Example:
        >>> AlphaBeta(alpha=0.8, beta=0.3)
        AlphaBeta(alpha=0.8, beta=0.3, temperature=1.0)
    """

    citation: ClassVar[str] = "Wang et al.: ABKD, arXiv:2505.04560"

    def __init__(self, alpha: float = 0.2, beta: float = 0.7, temperature: float | None = None) -> None:
        super().__init__(temperature)
        if not (math.isfinite(alpha) and math.isfinite(beta)) or alpha + beta < 0:
            raise ValueError(
                f"alpha={alpha}, beta={beta} were given to alpha_beta: give two numbers that are at least 0 together, "
                "or the least likely classes weigh most."
            )
        self.alpha, self.beta = alpha, beta
        # Joining classes lowers what is a mean over a distribution, and other sums of powers not always.
        self.few = math.isclose(alpha + beta, 1.0)
        if alpha + beta == 0:  # every class weighs the same, also those that a pointer's row does not have
            self.accepts = frozenset({CATEGORICAL, BINARY})

    def divergence(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return [n]; see ``alpha_beta``."""
        return alpha_beta(student, teacher, self.alpha, self.beta, self.temperature)

    def extra_repr(self) -> str:
        """Show alpha, beta and the temperature in ``print(term)``."""
        return f"alpha={self.alpha}, beta={self.beta}, {super().extra_repr()}"
