"""A few ids of each distribution: the third form of logits, for vocabularies that are too large to keep.

Knows: ids, their probabilities at one temperature, what all others have together. Does not know: who kept them, what a
term makes of them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


class TopKLogits:
    """What is kept of a teacher with a large vocabulary: its highest classes and a sample of all others.

    The probabilities hold for one temperature. Nothing can be said of a class that is in neither list.

    Args:
        ids: int64 [..., h], the classes with the highest probabilities.
        log_p: float32 [..., h], their log-probabilities; with ``tail`` they sum to 1. A row that keeps fewer than h
            ids has ``signals.ABSENT`` here, and any of its other ids there.
        tail_ids: int64 [..., m], drawn from the other classes, with replacement, in proportion to their probability.
        tail: float32 [...], the probability of all other classes together.
        entropy: float32 [...], of the whole distribution, in nats.
        temperature: by which the logits were divided.
        classes: V, how many classes there are.

    Example:
        >>> ids, log_p = torch.tensor([[0, 3], [1, 2]]), torch.tensor([[0.5, 0.2], [0.4, 0.4]]).log()
        >>> tail = 1 - log_p.exp().sum(-1)
        >>> logits = TopKLogits(ids, log_p, torch.tensor([[4], [3]]), tail, torch.ones(2), temperature=1.0, classes=5)
        >>> logits.shape, logits.few(1, 2).ids
        (torch.Size([2, 5]), tensor([[1, 2]]))
        >>> logits.select(torch.tensor([True, False])).tail
        tensor([0.3000])
    """

    def __init__(
        self,
        ids: Tensor,
        log_p: Tensor,
        tail_ids: Tensor,
        tail: Tensor,
        entropy: Tensor,
        temperature: float,
        classes: int,
    ) -> None:
        self.ids, self.log_p, self.tail_ids, self.tail, self.entropy = ids, log_p, tail_ids, tail, entropy
        self.temperature, self.classes = temperature, classes

    @property
    def shape(self) -> torch.Size:
        """The leading shape, then the number of classes V."""
        return torch.Size((*self.tail.shape, self.classes))

    def select(self, rows: Tensor) -> TopKLogits:
        """Keep the rows where ``rows`` (bool, the leading shape) is true: [n, V]."""
        return self._each(lambda tensor: tensor[rows.to(tensor.device)])

    def few(self, start: int, stop: int) -> TopKLogits:
        """Return rows ``start:stop`` of the flattened leading shape, which is what a term can learn from.

        Args:
            start: the first row.
            stop: the row after the last; beyond the end it is the end.

        Returns:
            The same for [stop - start, V].
        """
        lead = self.tail.ndim
        return self._each(lambda tensor: tensor.flatten(0, lead - 1)[start:stop])

    def chunk(self, start: int, stop: int) -> Tensor:
        """Refuse: what a few ids leave out cannot be made up.

        Raises:
            TypeError: always; it names the terms that ask for ``few``.
        """
        raise TypeError(
            f"whole logits [{stop - start}, {self.classes}] were asked of a teacher that keeps {self.ids.shape[-1]} "
            "ids of each row: use forward_kl, top1_cross_entropy, reverse_kl, jsd, skew_kl or skew_reverse_kl, or "
            "keep whole logits."
        )

    def finite(self) -> Tensor:
        """Return for each row (bool, the leading shape) whether it holds neither infinity nor NaN."""
        return self.log_p.isfinite().all(dim=-1) & self.tail.isfinite() & self.entropy.isfinite()

    def to(self, device: torch.device | str) -> TopKLogits:
        """Return the same on a device."""
        return self._each(lambda tensor: tensor.to(device))

    def _each(self, change: Callable[[Tensor], Tensor]) -> TopKLogits:
        tensors = (self.ids, self.log_p, self.tail_ids, self.tail, self.entropy)
        return TopKLogits(*map(change, tensors), self.temperature, self.classes)
