"""Tally: named scalars that are added up on the device and read once per logging step.

Knows: names and numbers. Does not know: what they mean, when they are logged, or how many ranks there are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor


class Tally:
    """A running sum for each name, over one weight for all.

    Example:
        >>> tally = Tally()
        >>> tally.add({"hard": torch.tensor(1.0), "forward_kl": torch.tensor(4.0)})
        >>> tally.add({"hard": torch.tensor(3.0), "forward_kl": torch.tensor(0.0)})
        >>> tally.weight += 2
        >>> tally.drain()
        {'hard': 2.0, 'forward_kl': 2.0}
        >>> tally.drain()
        {}
    """

    def __init__(self) -> None:
        self.totals: dict[str, Tensor] = {}
        self.weight: float = 0

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Add one value to each name, without leaving the device.

        Args:
            values: name -> scalar; gradients are dropped.
        """
        for name, value in values.items():
            self.totals[name] = self.totals[name] + value.detach() if name in self.totals else value.detach().clone()

    def drain(self, across_ranks: Callable[[Tensor], Tensor] = lambda totals: totals) -> dict[str, float]:
        """Return each sum divided by the weight, and start again from zero.

        Args:
            across_ranks: joins the ranks' sums, a float tensor [number of names]; called once, on every rank.

        Returns:
            name -> number; empty where nothing was added.
        """
        totals, weight = self.totals, self.weight
        self.totals, self.weight = {}, 0
        if not totals:
            return {}
        joined = across_ranks(torch.stack([total.float() for total in totals.values()]))
        return {name: total / max(weight, 1) for name, total in zip(totals, joined.tolist(), strict=True)}
