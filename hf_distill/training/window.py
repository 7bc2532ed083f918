"""Window: what one whole optimizer step counts, and the only division of a loss in this package.

Knows: counts, how many ranks hold different data. Does not know: what is counted, tasks, terms, trainers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Window:
    """The counts of an optimizer step, or of one batch outside of training.

    Args:
        counts: unit -> integer scalar, over all micro-batches and ranks.
        data_ranks: how many ranks hold different data; 1 outside of training.

    Example:
        >>> whole = Window({"rows": torch.tensor(4)})
        >>> ranks = Window({"rows": torch.tensor(4)}, data_ranks=2)
        >>> shares = [ranks.divide(torch.tensor(total), "rows") for total in (2.0, 6.0)]
        >>> whole.divide(torch.tensor(8.0), "rows").item(), sum(shares).item() / 2
        (2.0, 2.0)
    """

    counts: Mapping[str, Tensor]
    data_ranks: int = 1

    @classmethod
    def of(cls, counts: Tensor, units: Sequence[str], data_ranks: int = 1) -> Window:
        """Make one of the numbers that ranks add up.

        Args:
            counts: int64 [number of units].
            units: what each of them counts; see ``Task.units``.
            data_ranks: as in the class.

        Example:
            >>> Window.of(torch.tensor([4, 2]), ["rows", "samples"]).counts["samples"]
            tensor(2)
        """
        return cls(dict(zip(units, counts, strict=True)), data_ranks)

    def divide(self, total: Tensor, unit: str) -> Tensor:
        """Divide a sum by what was counted in the whole step.

        Args:
            total: scalar, this rank's and this micro-batch's share of the sum.
            unit: what it is a sum of; nothing counted divides by 1.

        Returns:
            A scalar with the gradient of ``total``. Added over micro-batches and averaged over ranks, as
            data-parallel training averages gradients, it is sum / count.
        """
        return total * self.data_ranks / self.counts[unit].clamp(min=1)

    def weigh(self, mean: Tensor, count: Tensor, unit: str = "samples") -> Tensor:
        """Weigh a mean over a micro-batch by its share of the step.

        Args:
            mean: scalar.
            count: how many things it is a mean of.
            unit: what these are.
        """
        return self.divide(mean * count, unit)

    def shares(self) -> dict[str, Tensor]:
        """Return what one of each unit is divided by: unit -> float32 scalar."""
        ones = {unit: count.new_ones((), dtype=torch.float64) for unit, count in self.counts.items()}
        return {unit: self.divide(one, unit).float() for unit, one in ones.items()}
