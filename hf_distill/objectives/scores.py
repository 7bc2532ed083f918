"""Terms of retrieval: how a query scores its candidates, in one model and in the other.

Knows: one vector for each row, rows in groups of a query and its candidates, scores that the teacher gave.
Does not know: how groups are made, tasks, other ranks.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from hf_distill.models.facts import Facts
from hf_distill.objectives.functional import forward_kl
from hf_distill.objectives.layers import Layers
from hf_distill.objectives.pooled import PooledTerm
from hf_distill.objectives.relation import RelationTerm
from hf_distill.objectives.unit_vectors import unit_vectors
from hf_distill.signals import Signals, Sum

SIMILARITIES = ("dot", "cosine")
SCORES = ("vectors", "logits")


class ScoreTerm(PooledTerm):
    """What the terms on the scores of a query with its candidates share.

    The rows of a batch are groups, one behind the other: a query, then its ``candidates`` (``CandidateCollator`` makes
    such batches). The student's score of a candidate is the product of its vector with the query's. The teacher's is
    the same of its own vectors, of any width; or what it gave itself as a logit: a cross-encoder for each pair
    (``teacher_input_ids`` hold the pairs), a column for each group (``"column:teacher_scores"``). A subclass
    implements ``diverge``. A group weighs as much as any other.

    Args:
        candidates: n, how many there are for each query.
        scores: where the teacher's come from: its ``"vectors"``, or its ``"logits"``.
        similarity: ``"dot"`` or ``"cosine"``, of the student's vectors and, if it is asked for these, the teacher's.
        layers: which layers learn from which; None: the two last. See ``PooledTerm``.
        pool: ``"mean"``, ``"first"`` or ``"last"``; see ``PooledTerm``.
        stream: which sequence of positions; see ``HiddenTerm``.

    Raises:
        ValueError: too few candidates, another word, or layers that cannot be read.
    """

    least: ClassVar[int] = 2

    def __init__(
        self,
        candidates: int,
        scores: str = "vectors",
        similarity: str = "dot",
        layers: Layers | None = None,
        pool: str = "mean",
        stream: str | None = None,
    ) -> None:
        super().__init__(layers, pool, stream)
        if candidates < self.least:
            raise ValueError(f"candidates={candidates} was given to {self.name}: give at least {self.least}.")
        for option, value, known in (("scores", scores, SCORES), ("similarity", similarity, SIMILARITIES)):
            if value not in known:
                raise ValueError(f"{option}={value!r} was given to {self.name}: use {' or '.join(known)}.")
        if scores == "logits" and layers is not None:
            raise ValueError(
                f"layers={layers!r} was given to {self.name} with scores='logits', which are the teacher's last word: "
                "leave layers out."
            )
        self.candidates, self.scores, self.similarity = candidates, scores, similarity

    reads_vectors = False  # groups of texts have hidden states alone

    @property
    def teacher_needs(self) -> frozenset[str]:
        """Its hidden states, or its logits; see ``Term.teacher_needs``."""
        return frozenset({"heads"}) if self.scores == "logits" else self.needs

    def build(self, student: Facts, teacher: Facts) -> None:
        """Pair the layers; of a teacher that gives scores nothing need be known. See ``Term.build``."""
        super().build(student, student if self.scores == "logits" else teacher)

    @abstractmethod
    def diverge(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compare the scores of groups.

        Args:
            student: float32 [G, n], with gradients.
            teacher: float32 [G, n].

        Returns:
            float32 [G].
        """

    def scored(self, vectors: Tensor) -> Tensor:
        """Score candidates by their vectors.

        Args:
            vectors: float32 [G * (1 + n), H].

        Returns:
            float32 [G, n].

        Raises:
            ValueError: the rows are no groups.
        """
        if len(vectors) % (1 + self.candidates):
            raise ValueError(
                f"{self.name} reads rows in groups of a query and {self.candidates} candidates, the batch has "
                f"{len(vectors)} rows: use CandidateCollator, or another number of candidates."
            )
        vectors = unit_vectors(vectors) if self.similarity == "cosine" else vectors
        groups = vectors.unflatten(0, (-1, 1 + self.candidates))
        with torch.autocast(vectors.device.type, enabled=False):
            return (groups[:, 1:] @ groups[:, 0].unsqueeze(-1)).squeeze(-1)

    def compare(self, student: Tensor, teacher: Tensor, counted: Tensor) -> Tensor:
        """Compare groups by the two models' vectors; see ``PooledTerm``."""
        return self.weighed(self.scored(student), self.scored(teacher))

    def weighed(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Add over groups, each times its rows: those are what is counted.

        Args:
            student: float32 [G, n].
            teacher: float32 [G, n].
        """
        return self.diverge(student, teacher).sum() * (1 + self.candidates)

    def forward(self, student: Signals, teacher: Signals, batch: Mapping[str, Any]) -> Sum:
        """Add over the groups; see ``Term.forward``."""
        if self.scores == "vectors":
            return super().forward(student, teacher, batch)
        vectors = self.vectors(student, self.pairs[0][0], "student")
        ours = self.scored(vectors)
        given = [head.logits.tensor.float() for head in teacher.heads.values()]
        if len(given) != 1 or given[0].numel() != ours.numel():
            found = [list(one.shape) for one in given] or "none"
            raise ValueError(
                f"{self.name} wants a score of the teacher for each of {ours.numel()} candidates, it gave logits of "
                f"shape {found}: pass a cross-encoder with one label and its pairs in teacher_input_ids, or a column "
                "of scores."
            )
        return Sum(self.weighed(ours, given[0].reshape(ours.shape)), torch.tensor(len(vectors), device=ours.device))

    def extra_repr(self) -> str:
        """Show the options too in ``print(term)``."""
        own = f"candidates={self.candidates}, scores={self.scores}, similarity={self.similarity}"
        return f"{super().extra_repr()}, {own}"


class MarginMSE(ScoreTerm):
    """Squared difference of the two models' margins: how much better the first candidate scores than each other one.

    With ``s_j`` the score of candidate j: the mean over j > 0 of ``((s_0 - s_j) - (t_0 - t_j))**2``, over groups. The
    first candidate is the relevant one. Scores are taken as they are: a cross-encoder's logits have another scale than
    cosines, so ``similarity="dot"`` goes with them. The mean over pairs of layers is taken.

    Args:
        candidates: n, at least 2: the relevant one, and others.
        scores: where the teacher's come from: its ``"vectors"``, or its ``"logits"``; see ``ScoreTerm``.
        similarity: ``"dot"`` or ``"cosine"``; see ``ScoreTerm``.
        layers: which layers learn from which; None: the two last. See ``PooledTerm``.
        pool: ``"mean"``, ``"first"`` or ``"last"``; see ``PooledTerm``.
        stream: which sequence of positions; see ``HiddenTerm``.

    Raises:
        ValueError: too few candidates, another word, or layers that cannot be read.

    Reference:
        Hofstätter et al.: Improving Efficient Neural Ranking Models with Cross-Architecture Knowledge Distillation,
        arXiv:2010.02666, the Margin-MSE loss (of one other candidate; of several it is the mean).

    Example:
        >>> MarginMSE(candidates=2).diverge(torch.tensor([[3.0, 1.0]]), torch.tensor([[9.0, 8.0]]))
        tensor([1.])
    """

    citation: ClassVar[str] = (
        "Hofstätter et al.: Improving Efficient Neural Ranking Models with Cross-Architecture Knowledge Distillation, "
        "arXiv:2010.02666"
    )
    name: ClassVar[str] = "margin_mse"

    def diverge(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the mean squared difference of margins; see ``ScoreTerm.diverge``."""
        ours, theirs = (scores[:, :1] - scores[:, 1:] for scores in (student, teacher))
        return (ours - theirs).square().mean(dim=-1)


class ScoreKL(ScoreTerm):
    """KL divergence between the two models' distributions over a query's candidates.

    ``KL(softmax(t / temperature) || softmax(s / temperature))`` over the n candidates, the mean over groups. No
    candidate need be the relevant one. The mean over pairs of layers is taken.

    Args:
        candidates: n, at least 2.
        scores: where the teacher's come from: its ``"vectors"``, or its ``"logits"``; see ``ScoreTerm``.
        similarity: ``"dot"`` or ``"cosine"``; see ``ScoreTerm``.
        temperature: of the scores, greater than 0; the run's is for logits of classes, and does not apply. Cosines
            need a small one, such as 0.05. It is not squared into the loss.
        layers: which layers learn from which; None: the two last. See ``PooledTerm``.
        pool: ``"mean"``, ``"first"`` or ``"last"``; see ``PooledTerm``.
        stream: which sequence of positions; see ``HiddenTerm``.

    Raises:
        ValueError: too few candidates, another word, a temperature of 0 or less, or layers that cannot be read.

    Reference:
        Ren et al.: RocketQAv2: A Joint Training Method for Dense Passage Retrieval and Passage Re-ranking,
        arXiv:2110.07367, listwise distillation.

    Example:
        >>> ScoreKL(candidates=2).diverge(torch.tensor([[1.0, 1.0]]), torch.tensor([[5.0, 5.0]]))
        tensor([0.])
    """

    citation: ClassVar[str] = (
        "Ren et al.: RocketQAv2: A Joint Training Method for Dense Passage Retrieval and Passage Re-ranking, "
        "arXiv:2110.07367"
    )
    name: ClassVar[str] = "score_kl"

    def __init__(
        self,
        candidates: int,
        scores: str = "vectors",
        similarity: str = "dot",
        temperature: float = 1.0,
        layers: Layers | None = None,
        pool: str = "mean",
        stream: str | None = None,
    ) -> None:
        super().__init__(candidates, scores, similarity, layers, pool, stream)
        self.temperature = _checked(temperature, self.name)

    def diverge(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the divergence of each group; see ``ScoreTerm.diverge``."""
        return forward_kl(student / self.temperature, teacher / self.temperature)

    def extra_repr(self) -> str:
        """Show the temperature too in ``print(term)``."""
        return f"{super().extra_repr()}, temperature={self.temperature:g}"


class SimilarityKL(RelationTerm):
    """KL divergence between what the two models hold for each row's neighbours, among the rows of a micro-batch.

    With ``p_i = softmax_j(cos(v_i, v_j) / temperature)`` over all rows j but i itself, each model in its own space:
    ``KL(p_i of the teacher || p_i of the student)``, added over samples. Fewer than three rows have no choice and cost
    nothing. Rows are seen together, so micro-batches are groups of their own: equal groups give equal results however
    they are spread over accumulation steps and ranks, other groups do not. The mean over pairs of layers is taken.

    Args:
        layers: which layers learn from which; None: the two last. See ``PooledTerm``.
        pool: ``"mean"``, ``"first"`` or ``"last"``; see ``PooledTerm``.
        temperature: of the cosines, greater than 0; the run's is for logits, and does not apply.
        stream: which sequence of positions; see ``HiddenTerm``.

    Raises:
        ValueError: layers that cannot be read, another word for pool, or a temperature of 0 or less.

    Reference:
        Koohpayegani, Tejankar, Pirsiavash: CompRess: Self-Supervised Learning by Compressing Representations,
        arXiv:2010.14713 ("2q"), with the rows of the micro-batch as anchor points, in place of a memory of earlier
        ones. Fang et al.: SEED, arXiv:2101.04731, likewise, with the teacher's anchors for both models.

    Example:
        >>> rows = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
        >>> SimilarityKL().relate(rows, 3.0 * rows)
        tensor(0.)
    """

    citation: ClassVar[str] = (
        "Koohpayegani, Tejankar, Pirsiavash: CompRess: Self-Supervised Learning by Compressing Representations, "
        "arXiv:2010.14713"
    )
    name: ClassVar[str] = "similarity_kl"

    def __init__(
        self,
        layers: Layers | None = None,
        pool: str = "mean",
        temperature: float = 0.05,
        stream: str | None = None,
    ) -> None:
        super().__init__(layers, pool, stream)
        self.temperature = _checked(temperature, self.name)

    def relate(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compare the neighbours; see ``RelationTerm.relate``."""
        ours, theirs = (_neighbours(vectors) / self.temperature for vectors in (student, teacher))
        if len(ours) < 3:
            return ours.sum() * 0.0
        return forward_kl(ours, theirs).mean()

    def extra_repr(self) -> str:
        """Show the temperature too in ``print(term)``."""
        return f"{super().extra_repr()}, temperature={self.temperature:g}"


def _neighbours(vectors: Tensor) -> Tensor:
    """Return [B, B - 1], the cosine of each row with every other one."""
    unit = unit_vectors(vectors)
    rows = len(unit)
    return (unit @ unit.T).flatten()[1:].view(rows - 1, rows + 1)[:, :-1].reshape(rows, rows - 1)


def _checked(temperature: float, name: str) -> float:
    if not math.isfinite(temperature) or temperature <= 0:
        raise ValueError(f"temperature={temperature} was given to {name}: give a number greater than 0.")
    return temperature
