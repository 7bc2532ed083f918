"""A term by which the student learns vectors or samples that a small discriminator cannot tell from the teacher's.

Knows: one vector, image or wave for each row, a discriminator that is trained in the same step. Does not know: tasks,
heads, a second optimizer, other rows of the batch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hf_distill.models.facts import Facts
from hf_distill.objectives.discriminators import CONVOLUTIONS, PatchDiscriminator
from hf_distill.objectives.layers import Layers
from hf_distill.objectives.pooled import PooledTerm
from hf_distill.objectives.values import counted_in_both
from hf_distill.signals import Signals, Sum


class Adversarial(PooledTerm):
    """The loss of a discriminator that tells teacher from student, with the student's gradient turned round.

    With D a two-layer network on vectors of the teacher's width, v_s projected where the widths differ:
    ``(-log sigmoid(D(v_t)) - log(1 - sigmoid(D(v_s)))) / 2``, added over samples. D descends it. Behind the reversal
    the student and its projection climb it, ``reversal`` times as steeply, so one backward pass and one optimizer do.
    What is logged is the discriminator's loss: log 2 = 0.69 where it cannot tell. There is no dropout and no batch
    norm: no row sees another. The mean over pairs of layers is taken, each with a discriminator of its own.

    With ``on="sample"`` it is what a generator makes that is judged, by convolutions that say of each patch whose it
    is; the mean over a sample's patches is what a sample costs. The teacher's sample stands for the real one, so no
    image is needed.

    Args:
        layers: which layers learn from which; None: the two last. See ``PooledTerm``.
        pool: ``"mean"``, ``"first"`` or ``"last"``; see ``PooledTerm``.
        hidden: width of the discriminator's first layer; at least 1.
        reversal: how strongly the student is moved against the discriminator; greater than 0.
        stream: which sequence of positions; see ``HiddenTerm``.
        on: the value that is judged, one of ``Task.values``, in place of hidden states; its first layers are narrower
            than ``hidden``.
        channels: of what is judged: 3 of a picture in colours, 1 of a wave.
        axes: 2 of an image, 1 of a wave.

    Raises:
        ValueError: layers that cannot be read, another word for pool, a number that is too small, or layers of a
            value.

    Reference:
        Ganin, Lempitsky: Unsupervised Domain Adaptation by Backpropagation, arXiv:1409.7495, section 3.2.

    Example:
        >>> from hf_distill.signals import Signals
        >>> term = Adversarial(hidden=3)
        >>> term.build(Facts(hidden_size=2, num_layers=1), Facts(hidden_size=4, num_layers=1))
        >>> [tuple(p.shape) for p in term.discriminators["1_1"].parameters()]
        [(3, 4), (3,), (1, 3), (1,)]
        >>> ours, theirs = (Signals({}, hidden=(torch.ones(1, 2, width),) * 2) for width in (2, 4))
        >>> term(ours, theirs, {}).count
        tensor(1)
    """

    citation: ClassVar[str] = "Ganin, Lempitsky: Unsupervised Domain Adaptation by Backpropagation, arXiv:1409.7495"
    name: ClassVar[str] = "adversarial"
    projects: ClassVar[bool] = True

    def __init__(
        self,
        layers: Layers | None = None,
        pool: str = "mean",
        hidden: int = 128,
        reversal: float = 1.0,
        stream: str | None = None,
        on: str | None = None,
        channels: int = 3,
        axes: int = 2,
    ) -> None:
        super().__init__(layers, pool, stream)
        if on is not None and (layers is not None or stream is not None):
            raise ValueError(
                f"on={on!r} was given to adversarial beside layers or a stream, which are of hidden states: leave "
                "one of them out."
            )
        if axes not in CONVOLUTIONS or channels < 1:
            raise ValueError(
                f"channels={channels} and axes={axes} were given to adversarial: give at least one channel, and 2 "
                "axes of an image, 1 of a wave."
            )
        if hidden < 1:
            raise ValueError(f"hidden={hidden} was given to adversarial: give at least 1.")
        if not math.isfinite(reversal) or reversal <= 0:
            raise ValueError(f"reversal={reversal} was given to adversarial: give a number greater than 0.")
        self.hidden, self.reversal, self.discriminators = hidden, reversal, nn.ModuleDict()
        self.of, self.channels, self.axes = on, channels, axes
        if on is not None:
            self.needs = frozenset({"values"})

    def set_streams(self, names: Sequence[str]) -> None:
        """Follow a stream only where no value was named; see ``Term.set_streams``."""
        if self.of is None:
            super().set_streams(names)

    def set_vectors(self, names: Sequence[str]) -> None:
        """Compare vectors only where no value was named; see ``PooledTerm.set_vectors``."""
        if self.of is None:
            super().set_vectors(names)

    def build(self, student: Facts, teacher: Facts) -> None:
        """Make a discriminator for each pair of layers, and projections where widths differ; see ``Term.build``."""
        if self.of is not None:
            self.discriminators = nn.ModuleDict({self.of: PatchDiscriminator(self.channels, self.axes, self.hidden)})
            return
        super().build(student, teacher)
        teacher = teacher.stream(self.other)
        self.discriminators = nn.ModuleDict(
            {
                f"{ours}_{theirs}": nn.Sequential(
                    nn.Linear(teacher.width(theirs), self.hidden), nn.GELU(), nn.Linear(self.hidden, 1)
                )
                for ours, theirs in self.pairs
            }
        )

    def forward(self, student: Signals, teacher: Signals, batch: Mapping[str, Any]) -> Sum:
        """Add over the samples; see ``Term.forward``."""
        if self.of is None:
            return super().forward(student, teacher, batch)
        form = student.values[self.of].form
        ours, theirs, _ = counted_in_both(self.name, self.of, student.values[self.of], teacher.values.get(self.of))
        if len(form) != self.axes or ours.shape[1] != self.channels:
            raise ValueError(
                f"adversarial was asked to judge {self.of} of {self.channels} channels and {self.axes} axes, the "
                f"student shows {[ours.shape[1], *form]}: give channels={ours.shape[1]} and axes={len(form)}."
            )
        both = torch.cat((reversed_gradient(ours, self.reversal), theirs)).unflatten(2, form)
        # One call for both: ZeRO-3 gathers a module's parameters anew for each.
        mine, real = self.discriminators[self.of](both).float().chunk(2)
        total = (F.softplus(mine) + F.softplus(-real)).mean(dim=1).sum() / 2
        return Sum(total, torch.tensor(len(ours), device=ours.device))

    def cost(self, pair: str, student: Tensor, teacher: Tensor, counted: Tensor) -> Tensor:
        """Return the discriminator's loss; see ``HiddenTerm.cost``."""
        discriminator = self.discriminators[pair]
        both = torch.cat((reversed_gradient(self.projected(pair, student), self.reversal), teacher))
        # One call for both: ZeRO-3 gathers a module's parameters anew for each.
        ours, theirs = discriminator(both.to(discriminator[0].weight.dtype)).float().chunk(2)
        return (F.softplus(ours) + F.softplus(-theirs)).sum() / 2

    def extra_repr(self) -> str:
        """Show the width and the strength too in ``print(term)``."""
        shown = super().extra_repr() if self.of is None else f"on={self.of}"
        return f"{shown}, hidden={self.hidden}, reversal={self.reversal:g}"


class _Reversed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, vectors: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return vectors.view_as(vectors)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * grad, None


def reversed_gradient(vectors: Tensor, strength: float) -> Tensor:
    """Return the same vectors, whose gradient is turned round on its way back.

    Args:
        vectors: any shape and floating dtype.
        strength: what the turned gradient is multiplied by.

    Reference:
        Ganin, Lempitsky: arXiv:1409.7495, section 3.2 (the gradient reversal layer).

    Example:
        >>> vectors = torch.tensor([1.0, 2.0], requires_grad=True)
        >>> reversed_gradient(vectors, 0.5).sum().backward()
        >>> vectors.grad
        tensor([-0.5000, -0.5000])
    """
    return _Reversed.apply(vectors, strength)
