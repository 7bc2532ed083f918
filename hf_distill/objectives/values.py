"""Terms that compare what is no distribution: boxes, depth, noise, images.

Knows: values and which of their rows count. Does not know: what the numbers mean, how two models' rows were paired.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from hf_distill.objectives.term import Term
from hf_distill.signals import Signals, Sum, Value


class ValueTerm(Term):
    """A comparison of a value, sample by sample; a term of this kind says what one sample costs.

    A thing counts where it counts in both models, and a sample of which nothing counts costs nothing. How many things
    count may be known to the models alone, so it is samples that are counted, and all of them weigh the same.

    Attributes:
        name: what a message calls it.

    Args:
        of: the value, one of ``Task.values``; None: all that the task shows, added up.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"values"})
    unit: ClassVar[str] = "samples"
    by_position: ClassVar[bool] = False
    name: ClassVar[str]

    def __init__(self, of: str | None = None) -> None:
        super().__init__()
        self.of = of

    def forward(self, student: Signals, teacher: Signals, batch: Mapping[str, Any]) -> Sum:
        """Add over the samples; see ``Term.forward``."""
        names = list(student.values) if self.of is None else [self.of]
        both = [counted_in_both(self.name, n, student.values[n], teacher.values.get(n)) for n in names]
        each = torch.stack([self.cost(*one) for one in both])
        return Sum(each.sum(), torch.tensor(each.shape[1], device=each.device))

    def cost(self, student: Tensor, teacher: Tensor, rows: Tensor) -> Tensor:
        """Compare.

        Args:
            student: float32 [B, N, D], zero where a thing does not count.
            teacher: likewise.
            rows: bool [B, N], which things count.

        Returns:
            What each sample costs, float32 [B].
        """
        raise NotImplementedError(f"{type(self).__name__} must implement cost(student, teacher, rows).")


def counted_in_both(term: str, of: str, ours: Value, theirs: Value | None) -> tuple[Tensor, Tensor, Tensor]:
    """Bring two models' values together where they count in both.

    Args:
        term: how a message calls who compares them.
        of: how it calls them.
        ours: the student's.
        theirs: the teacher's; None: it shows none.

    Returns:
        float32 [B, N, D] of each, zero where a thing does not count in both; and bool [B, N], which do.

    Raises:
        ValueError: they have other shapes.
    """
    shapes = [None if one is None else list(one.tensor.shape) for one in (ours, theirs)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"{term} was asked to compare {of}, of shape {shapes[0]}, with the teacher's, of shape {shapes[1]}: use a "
            "teacher of the same things, or a task whose match brings them together."
        )
    device = ours.tensor.device
    rows = ours.rows.to(device) & theirs.rows.to(device)
    # Chosen before they are compared: the gradient of a difference with NaN is NaN, also times zero.
    student, teacher = (one.tensor.to(device).float().masked_fill(~rows.unsqueeze(-1), 0) for one in (ours, theirs))
    return student, teacher, rows


class ValueMSE(ValueTerm):
    """Mean squared difference of a value: over the numbers of a thing, then over the things of a sample that count.

    Args:
        of: the value, one of ``Task.values``; None: all that the task shows, added up.

    Reference:
        Ba, Caruana: Do Deep Nets Really Need to be Deep?, arXiv:1312.6184, equation 1, of values in place of logits.

    Example:
        >>> boxes, rows = torch.tensor([[[1.0, 3.0], [5.0, 5.0]]]), torch.tensor([[True, False]])
        >>> ours, theirs = (Signals({}, values={"boxes": Value(boxes + more, rows)}) for more in (0.0, 2.0))
        >>> ValueMSE()(ours, theirs, {})
        Sum(total=tensor(4.), count=tensor(1))
    """

    name: ClassVar[str] = "value_mse"
    citation: ClassVar[str] = "Ba, Caruana: Do Deep Nets Really Need to be Deep?, arXiv:1312.6184"

    def cost(self, student: Tensor, teacher: Tensor, rows: Tensor) -> Tensor:
        """Return the mean square of each sample; see ``ValueTerm.cost``."""
        return _mean((student - teacher).square(), rows)


class ValueL1(ValueTerm):
    """Mean absolute difference of a value, over the same things as ``ValueMSE``: far ones weigh less.

    Args:
        of: the value, one of ``Task.values``; None: all that the task shows, added up.

    Example:
        >>> depth, rows = torch.tensor([[[1.0, 3.0]]]), torch.tensor([[True]])
        >>> ours, theirs = (Signals({}, values={"depth": Value(depth * by, rows)}) for by in (1.0, 3.0))
        >>> ValueL1()(ours, theirs, {})
        Sum(total=tensor(4.), count=tensor(1))
    """

    name: ClassVar[str] = "value_l1"

    def cost(self, student: Tensor, teacher: Tensor, rows: Tensor) -> Tensor:
        """Return the mean distance of each sample; see ``ValueTerm.cost``."""
        return _mean((student - teacher).abs(), rows)


def _mean(difference: Tensor, rows: Tensor) -> Tensor:
    """Over the numbers of a thing, then over the things that count: [B, N, D] to [B]."""
    return difference.mean(dim=-1).sum(dim=1) / rows.sum(dim=1).clamp(min=1)
