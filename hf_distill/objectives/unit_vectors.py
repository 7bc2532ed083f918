"""Vectors of length 1, whatever their size was.

Knows: float32 vectors, and how far they are rounded. Does not know: what they are of, terms, models.

A limit such as 1e-12 is right for one size of numbers alone: the probabilities of 150,000 classes differ by less. So a
vector is without a direction only where it is no longer than the rounding errors of the numbers that it is made of.
"""

from __future__ import annotations

import torch
from torch import Tensor

ROUNDINGS = 4
"""How many units in the last place a difference may be off: it has two ends, and a mean is rounded as well."""


def unit_vectors(vectors: Tensor, made_of: Tensor | None = None) -> Tensor:
    """Give each vector length 1.

    Args:
        vectors: float32 [..., H].
        made_of: the numbers that the vectors are differences of, [..., H], of a leading shape that broadcasts with
            theirs; None: they are no differences, and only a zero has no direction.

    Returns:
        float32 [..., H]; a vector without a direction becomes zero, and its gradient too.

    Example:
        >>> unit_vectors(torch.tensor([[3e-30, 4e-30], [0.0, 0.0]]))
        tensor([[0.6000, 0.8000],
                [0.0000, 0.0000]])
        >>> third = torch.tensor([[1.0, 1.0, 1.0]]) / 3
        >>> unit_vectors(third - third.mean(), third)  # the mean is rounded
        tensor([[0., 0., 0.]])
    """
    # By the largest entry first: the squares of small numbers are no numbers, and the length does not change by it.
    largest = vectors.detach().abs().amax(dim=-1, keepdim=True)
    none = largest < torch.finfo(torch.float32).tiny
    if made_of is not None:
        size = made_of.detach().abs().amax(dim=-1, keepdim=True)
        none = none | (largest <= ROUNDINGS * torch.finfo(torch.float32).eps * size)
    scaled = vectors.masked_fill(none, 0) / largest.masked_fill(none, 1)
    return scaled / scaled.square().sum(dim=-1, keepdim=True).masked_fill(none, 1).sqrt()
