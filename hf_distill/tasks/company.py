"""In whose company a pair of an image and a text is compared: the pairs of all ranks, or of a whole optimizer step.

Knows: vectors of pairs, ranks, which pairs are the same. Does not know: models, losses, who made a step's vectors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hf_distill.objectives.all_gather import gathered, gathered_with_gradients
from hf_distill.tasks.layout import STEP


@dataclass(frozen=True)
class Step:
    """What all micro-batches of an optimizer step showed before any of them has gradients, on all ranks.

    Args:
        vectors: whose (None: the student; "": the teacher; or the name of one of several) -> images and texts
            [N, 2 * D] side by side, without gradients.
        numbers: int64 [N, 2], equal where the image or the text is; see ``row_numbers``.
        first: where the pairs of the micro-batch at hand begin.
        parts: how many micro-batches there are, on all ranks together.
        answer: what the teacher showed for the micro-batch at hand, so that it is asked once; None: ask it.
    """

    vectors: Mapping[str | None, Tensor]
    numbers: Tensor
    first: int
    parts: int
    answer: Any = None


@dataclass(frozen=True)
class Company:
    """The vectors that are compared, [M, D] with all [N, D].

    Args:
        image, text: those whose rows are compared.
        images, texts: those with which they are compared.
        first: where the first row is among all.
        share: what a row counts: 1, or less where each micro-batch compares the rows of the whole step.
    """

    image: Tensor
    text: Tensor
    images: Tensor
    texts: Tensor
    first: int
    share: float = 1.0

    @classmethod
    def of(cls, vectors: Mapping[str, Tensor], batch: Mapping[str, Any], who: str | None) -> Company:
        """Bring vectors together; every rank must call it at the same time.

        Args:
            vectors: ``image`` and ``text`` [B, D] of one model, for a micro-batch.
            batch: the micro-batch.
            who: as in ``Step.vectors``.

        Example:
            >>> pair = {"image": torch.ones(2, 3), "text": torch.zeros(2, 3)}
            >>> company = Company.of(pair, {}, None)
            >>> company.images.shape, company.first
            (torch.Size([2, 3]), 0)
        """
        image, text = vectors["image"], vectors["text"]
        both, step = torch.cat((image, text), dim=1), batch.get(STEP)
        if step is None:
            every, first = (gathered_with_gradients if both.requires_grad else gathered)(both)
            images, texts = every.chunk(2, dim=1)
            return cls(image, text, images, texts, first)
        # Each micro-batch compares all rows, of which its own have gradients: those count so much more, as the whole
        # counts less.
        end = step.first + len(both)
        own = _Times.apply(both, float(step.parts))
        others = step.vectors[who].to(both.device, both.dtype)
        every = torch.cat((others[: step.first], own, others[end:]))
        images, texts = every.chunk(2, dim=1)
        return cls(images, texts, images, texts, 0, 1.0 / step.parts)

    @property
    def places(self) -> Tensor:
        """Where each row is among all, int64 [M]."""
        return torch.arange(len(self.image), device=self.image.device) + self.first


def same_pairs(numbers: Tensor, batch: Mapping[str, Any]) -> Tensor:
    """Say which pairs are no negatives of each other, for they have the same image or the same text.

    Args:
        numbers: int64 [B, 2] of the micro-batch; see ``row_numbers``.
        batch: the micro-batch.

    Returns:
        bool [M, N], of the rows of ``Company`` with all; each row is its own.

    Example:
        >>> same_pairs(torch.tensor([[1, 7], [2, 7], [3, 8]]), {}).int().tolist()
        [[1, 1, 0], [1, 1, 0], [0, 0, 1]]
    """
    if (step := batch.get(STEP)) is not None:
        every = step.numbers.to(numbers.device)
        return (every.unsqueeze(1) == every).any(dim=-1)
    every, _ = gathered(numbers)
    return (numbers.unsqueeze(1) == every).any(dim=-1)


class _Times(torch.autograd.Function):
    """The same numbers, and a gradient that is so many times larger."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, times: float) -> Tensor:
        ctx.times = times
        return vectors.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.times, None
