"""The vectors of all ranks, in one place, without gradients or with them.

Knows: the default process group, if there is one. Does not know: what the vectors are of, terms, trainers.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed
from torch.nn import functional as F


def gathered(vectors: Tensor) -> tuple[Tensor, int]:
    """Gather vectors that need no gradient from every rank; every rank must call it together.

    Args:
        vectors: [n, H], any dtype, on the device that the process group speaks for; n may differ between ranks.

    Returns:
        [N, H], detached: those of rank 0, then of rank 1 and so on; and the place of this rank's first one. Without a
        process group, or in one of a single rank, these are the vectors themselves, and 0.

    Example:
        >>> gathered(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        (tensor([[1., 2.],
                [3., 4.]]), 0)
    """
    vectors = vectors.detach()
    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1:
        return vectors, 0
    ranks, rank = distributed.get_world_size(), distributed.get_rank()
    mine = torch.tensor([len(vectors)], device=vectors.device)
    told = [torch.zeros_like(mine) for _ in range(ranks)]
    distributed.all_gather(told, mine)
    counts = [int(count) for count in told]
    # What is gathered must have one shape on all ranks: the shorter ones are filled up, and cut again.
    filled = F.pad(vectors, (0, 0, 0, max(counts) - len(vectors))).contiguous()
    parts = [torch.empty_like(filled) for _ in range(ranks)]
    distributed.all_gather(parts, filled)
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)]), sum(counts[:rank])


def gathered_with_gradients(vectors: Tensor) -> tuple[Tensor, int]:
    """Gather vectors of every rank, so that what any rank makes of them reaches the rank that they came from.

    A sum over ranks of what each makes of all vectors has then the gradient that one process with all rows has: in the
    backward pass, in which every rank must take part as well, the gradients of all ranks are added.

    Args:
        vectors: [n, H], as in ``gathered``.

    Returns:
        As ``gathered``, with a graph.

    Example:
        >>> ours = torch.ones(2, 3, requires_grad=True)
        >>> gathered_with_gradients(ours)[0] is ours
        True
    """
    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1:
        return vectors, 0
    everyone, first = gathered(vectors)
    return _FromEveryRank.apply(vectors, everyone, first), first


class _FromEveryRank(torch.autograd.Function):
    """Vectors of all ranks; backward, what all ranks have to say about our own."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, everyone: Tensor, first: int) -> Tensor:
        ctx.first, ctx.count = first, len(vectors)
        return everyone.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        gradient = gradient.contiguous().clone()
        distributed.all_reduce(gradient)
        return gradient[ctx.first : ctx.first + ctx.count], None, None
