"""Terms that compare one vector for each row: a sentence, not its tokens.

Knows: hidden states, which positions count, how a row becomes a vector, vectors that models make themselves.
Does not know: tasks, heads, other ranks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hf_distill.models.facts import Facts
from hf_distill.objectives.hidden import HiddenTerm, counted_in, layer_of
from hf_distill.objectives.layers import Layers
from hf_distill.objectives.phi_s import PhiS
from hf_distill.objectives.token_weights import shares
from hf_distill.objectives.unit_vectors import unit_vectors
from hf_distill.signals import Signals, Sum

POOLS = ("mean", "first", "last")
"""How the tokens of a row that are not padding become one vector."""


class PooledTerm(HiddenTerm):
    """What the terms on one vector for each row share: how it is made, for which layers, and no padding.

    A subclass implements ``compare``: two float32 [B, H], what they cost out, added over samples. Each model's own
    tokens make its vectors, so the two may read different ones. The student's vectors are projected to the teacher's
    width only if a subclass says ``projects`` and the widths differ.

    Of models that make vectors themselves (CLIP) those are compared, unless layers or a stream were named: the mean
    over a sample's vectors, that of its image and that of its text.

    Args:
        layers: None pairs the two last layers; else ``"uniform"``, ``"last"``, ``"skip"``, or student layer ->
            teacher layer, or to several; layer 0 is the embedding output. See ``layers.AUTOMATIC``.
        pool: ``"mean"`` over the tokens of a row, its ``"first"`` token (a BERT's [CLS]) or its ``"last"`` one (for
            decoders, whose first token has read nothing). Padding is none of them, on whichever side it stands.
        stream: which sequence of positions; see ``HiddenTerm``.

    Raises:
        ValueError: layers that cannot be read, or another word for pool.
    """

    unit: ClassVar[str] = "samples"
    projects: ClassVar[bool] = False
    usual: ClassVar[str | None] = None
    by_position: ClassVar[bool] = False
    reads_vectors: ClassVar[bool] = True  # where a model makes some itself

    def __init__(self, layers: Layers | None = None, pool: str = "mean", stream: str | None = None) -> None:
        super().__init__(layers, stream)
        self.own: tuple[str, ...] = ()  # the vectors that are compared; none: those that are pooled here
        self._pools = layers is not None or stream is not None
        if pool not in POOLS:
            raise ValueError(f"pool={pool!r} was given to {self.name}: use {', '.join(POOLS)}.")
        self.pool = pool

    def set_vectors(self, names: Sequence[str]) -> None:
        """Compare the models' own vectors, where they make some; see ``Term.set_vectors``."""
        self.own = tuple(names) if self.reads_vectors and not self._pools else ()
        if self.own:
            self.needs = frozenset({"vectors"})
        if self.standardise is not None and len(self.own) > 1:
            raise ValueError(
                f"{self.name} was given statistics of one vector, the models show {', '.join(self.own)}: use "
                "vector_mse, and of= for each of them."
            )

    def build(self, student: Facts, teacher: Facts) -> None:
        """Pair the layers, or make a projection where vectors are not equally long; see ``HiddenTerm.build``."""
        if not self.own:
            super().build(student, teacher)
            return
        widths = student.vector_size, teacher.vector_size
        if self.standardise is not None:
            self.standardise.check(widths[1], self.name)
        self.projections = nn.ModuleDict()
        if self.projects and all(widths) and widths[0] != widths[1]:
            self.projections.update({name: nn.Linear(*widths, bias=False) for name in self.own})

    def forward(self, student: Signals, teacher: Signals, batch: Mapping[str, Any]) -> Sum:
        """Add over the samples; see ``Term.forward``."""
        if not self.own:
            return super().forward(student, teacher, batch)
        total = 0.0
        for name in self.own:
            ours, theirs = student.vectors[name], teacher.vectors[name].to(student.vectors[name].device).float()
            every = torch.ones(len(ours), 1, dtype=torch.bool, device=ours.device)
            total = total + self.cost(name, ours, theirs, every)
        return self.added(total / len(self.own), every, None)

    def reduced(self, state: Tensor, counted: Tensor) -> Tensor:
        """Pool a layer: float32 [B, H]; a row of nothing but padding is zero. See ``HiddenTerm.reduced``."""
        share = shares(counted, "all" if self.pool == "mean" else self.pool)
        return (state.float() * share.unsqueeze(-1)).sum(dim=1)

    def vectors(self, signals: Signals, layer: int, owner: str) -> Tensor:
        """Make one vector of each row of a layer.

        Args:
            signals: what a model showed.
            layer: the layer's number.
            owner: how a message names the model.

        Returns:
            float32 [B, H].
        """
        shown = signals.stream(self.other)
        state = layer_of(shown, layer, owner)
        counted = counted_in(shown.mask, state)
        return self.reduced(state.masked_fill(~counted.unsqueeze(-1), 0), counted)

    def added(self, total: Tensor, counted: Tensor, mask: Tensor | None) -> Sum:
        """Count the rows; see ``HiddenTerm.added``."""
        return Sum(total, torch.tensor(len(counted), device=counted.device))

    def extra_repr(self) -> str:
        """Show the pairs and the pool in ``print(term)``."""
        return f"{super().extra_repr()}, pool={self.pool}"


class PooledMSE(PooledTerm):
    """Mean squared difference of the two models' sentence vectors, the student's projected where widths differ.

    The mean over the pairs of layers of ``|| W_st v_s - v_t ||**2 / width of the teacher``, added over samples.

    Args:
        layers: which layers learn from which; None: the two last. See ``PooledTerm``.
        pool: ``"mean"``, ``"first"`` or ``"last"``; see ``PooledTerm``.
        stream: which sequence of positions; see ``HiddenTerm``.
        standardise: statistics of the teacher's vectors, or the file where they are; they then have mean 0 and
            variance 1 as every other teacher's. See ``PhiS``.

    Raises:
        ValueError: layers that cannot be read, or another word for pool.

    Reference:
        Reimers, Gurevych: Making Monolingual Sentence Embeddings Multilingual using Knowledge Distillation,
        arXiv:2004.09813, section 2.

    Example:
        >>> from hf_distill.models.facts import Facts
        >>> from hf_distill.signals import Signals
        >>> term, states = PooledMSE(pool="first"), torch.tensor([[[1.0, 3.0], [7.0, 7.0]]])
        >>> term.build(Facts(hidden_size=2, num_layers=1), Facts(hidden_size=2, num_layers=1))
        >>> ours, theirs = Signals({}, hidden=(states, states)), Signals({}, hidden=(states, states + 2.0))
        >>> term(ours, theirs, {})
        Sum(total=tensor(4.), count=tensor(1))
    """

    citation: ClassVar[str] = (
        "Reimers, Gurevych: Making Monolingual Sentence Embeddings Multilingual using Knowledge Distillation, "
        "arXiv:2004.09813"
    )
    name: ClassVar[str] = "pooled_mse"
    projects: ClassVar[bool] = True

    def __init__(
        self,
        layers: Layers | None = None,
        pool: str = "mean",
        stream: str | None = None,
        standardise: PhiS | str | Path | None = None,
    ) -> None:
        super().__init__(layers, pool, stream)
        self.standardise = PhiS.read(standardise)

    def compare(self, student: Tensor, teacher: Tensor, counted: Tensor) -> Tensor:
        """Return the squared difference, divided by the width; see ``PooledTerm``."""
        return (student - teacher).square().mean(dim=-1).sum()


class PooledCosine(PooledTerm):
    """One minus the cosine of the two models' sentence vectors: for vectors that are searched by direction.

    The mean over the pairs of layers of ``1 - cos(W_st v_s, v_t)``, added over samples; 1 where one of the two is
    zero, without a gradient.

    Args:
        layers: which layers learn from which; None: the two last. See ``PooledTerm``.
        pool: ``"mean"``, ``"first"`` or ``"last"``; see ``PooledTerm``.
        stream: which sequence of positions; see ``HiddenTerm``.

    Raises:
        ValueError: layers that cannot be read, or another word for pool.

    Reference:
        Reimers, Gurevych: Making Monolingual Sentence Embeddings Multilingual using Knowledge Distillation,
        arXiv:2004.09813, section 2, with the cosine in place of the squared difference.

    Example:
        >>> term = PooledCosine()
        >>> term.compare(torch.tensor([[3.0, 4.0]]), torch.tensor([[4.0, 3.0]]), torch.ones(1, 1)).round(decimals=4)
        tensor(0.0400)
    """

    citation: ClassVar[str] = PooledMSE.citation
    name: ClassVar[str] = "pooled_cosine"
    projects: ClassVar[bool] = True

    def compare(self, student: Tensor, teacher: Tensor, counted: Tensor) -> Tensor:
        """Return one minus the cosine; see ``PooledTerm``."""
        return (1.0 - (unit_vectors(student) * unit_vectors(teacher)).sum(dim=-1)).sum()
