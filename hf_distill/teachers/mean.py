"""The mean of several teachers' logits, made chunk by chunk.

Knows: logits in any form, how distributions are averaged. Does not know: who gave them, tasks, terms.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from hf_distill.signals import Logits


class MeanLogits:
    """The weighted mean of the same N distributions as several models see them; made only where it is asked for.

    Args:
        parts: each model's logits [..., V], in any form.
        shares: each one's share, greater than 0; together 1.
        probabilities: the mean of the softmax probabilities, given as their logarithms, which are logits; otherwise
            the mean of the logits, which is the geometric mean of the distributions but for a constant in each row.

    Example:
        >>> from hf_distill.signals import DenseLogits
        >>> parts = [DenseLogits(torch.tensor([[0.0, 2.0]])), DenseLogits(torch.tensor([[0.0, -2.0]]))]
        >>> MeanLogits(parts, [0.5, 0.5], probabilities=True).chunk(0, 1).exp()
        tensor([[0.5000, 0.5000]])
        >>> MeanLogits(parts, [0.75, 0.25], probabilities=False).tensor
        tensor([[0., 1.]])
    """

    def __init__(self, parts: Sequence[Logits], shares: Sequence[float], probabilities: bool) -> None:
        self.parts, self.shares, self.probabilities = list(parts), list(shares), probabilities

    @property
    def shape(self) -> torch.Size:
        """The leading shape, then the number of classes V."""
        return self.parts[0].shape

    @property
    def tensor(self) -> Tensor:
        """All of it, float32 [..., V], for a task that puts classes into another order."""
        return self.chunk(0, self.shape[:-1].numel()).view(self.shape)

    def select(self, rows: Tensor) -> MeanLogits:
        """Keep the rows where ``rows`` (bool, the leading shape) is true: [n, V]."""
        return MeanLogits([part.select(rows) for part in self.parts], self.shares, self.probabilities)

    def chunk(self, start: int, stop: int) -> Tensor:
        """Return rows ``start:stop`` of the flattened leading shape as float32 [stop - start, V]."""
        mean = None
        for part, share in zip(self.parts, self.shares, strict=True):  # one by one: two chunks are held, not all
            chunk = part.chunk(start, stop)
            if self.probabilities:
                chunk = F.log_softmax(chunk, dim=-1) + math.log(share)
                mean = chunk if mean is None else torch.logaddexp(mean, chunk)
            else:
                mean = chunk * share if mean is None else mean + chunk * share
        return mean

    def finite(self) -> Tensor:
        """Return for each row (bool, the leading shape) whether no part holds infinity or NaN."""
        return torch.stack([part.finite() for part in self.parts]).all(dim=0)


def shares_of(names: list[str], weights: Mapping[str, float] | Sequence[float] | None) -> dict[str, float]:
    """Return each teacher's share of the mean; together they are 1.

    Args:
        names: of the teachers.
        weights: one number each, by name or in their order; None: equal.

    Raises:
        ValueError: in one sentence.

    Example:
        >>> shares_of(["a", "b"], {"a": 3, "b": 1})
        {'a': 0.75, 'b': 0.25}
    """
    weights = [1.0] * len(names) if weights is None else weights
    given = dict(weights) if isinstance(weights, Mapping) else dict(enumerate(weights))
    keys = names if isinstance(weights, Mapping) else range(len(names))
    if set(given) != set(keys):
        raise ValueError(f"weights={weights} were given, the teachers are {', '.join(names)}: give one number each.")
    for weight in given.values():
        number = isinstance(weight, (int, float)) and not isinstance(weight, bool)
        if not number or not math.isfinite(weight) or weight < 0:
            raise ValueError(f"weight {weight!r} was given to a teacher: give a number of at least 0.")
    if not (total := sum(given.values())):
        raise ValueError(f"the weights of the teachers {', '.join(names)} are all 0: give one of them more than 0.")
    return {name: given[key] / total for name, key in zip(names, keys, strict=True)}
