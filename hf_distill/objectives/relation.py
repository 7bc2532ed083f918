"""Terms that compare how the rows of a micro-batch stand to each other: no basis, no width, no projection.

Knows: one vector for each row, and the others of its micro-batch. Does not know: tasks, heads, other ranks.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from hf_distill.objectives.pooled import PooledTerm
from hf_distill.objectives.unit_vectors import unit_vectors


class RelationTerm(PooledTerm):
    """What the terms below share: relations among the rows of one model, compared with those of the other.

    A subclass implements ``relate``: the vectors [B, H] of both models in, the mean over the relations out. Rows are
    seen together, so micro-batches are groups of their own: equal groups give equal results however they are spread
    over accumulation steps and ranks, other groups do not. A group weighs as much as it has rows.

    Args:
        layers: which layers learn from which; None: the two last. See ``PooledTerm``.
        pool: ``"mean"``, ``"first"`` or ``"last"``; see ``PooledTerm``.
        stream: which sequence of positions; see ``HiddenTerm``.

    Raises:
        ValueError: layers that cannot be read, or another word for pool.
    """

    @abstractmethod
    def relate(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compare the relations of two models.

        Args:
            student: float32 [B, H_s], with gradients.
            teacher: float32 [B, H_t].

        Returns:
            A scalar, the mean over the relations; 0 with a graph where there are none.
        """

    def compare(self, student: Tensor, teacher: Tensor, counted: Tensor) -> Tensor:
        """Return the mean over the relations, times the rows; see ``PooledTerm``."""
        with torch.autocast(student.device.type, enabled=False):  # differences of rows that are alike need 24 bits
            return self.relate(student, teacher) * len(student)


class RKDDistance(RelationTerm):
    """Distances among rows, as parts of their mean: rows that are close for the teacher shall be for the student.

    With ``d_ij = || v_i - v_j || / mu``, mu the mean of a micro-batch's distances that are not 0, each model with
    its own: the mean over all pairs of different rows of ``huber(d_ij of the student - d_ij of the teacher)``, times
    the rows. Fewer than three rows cost nothing: one distance is its own mean. The mean over pairs of layers is taken.
    Rows are seen together, so micro-batches are groups of their own: equal groups give equal results however they are
    spread over accumulation steps and ranks, other groups do not.

    Args:
        layers: which layers learn from which; None: the two last. See ``PooledTerm``.
        pool: ``"mean"``, ``"first"`` or ``"last"``; see ``PooledTerm``.
        stream: which sequence of positions; see ``HiddenTerm``.

    Raises:
        ValueError: layers that cannot be read, or another word for pool.

    Reference:
        Park, Kim, Lu, Cho: Relational Knowledge Distillation, arXiv:1904.05068, section 3.2.1.

    Example:
        >>> rows = torch.tensor([[0.0, 0.0], [3.0, 4.0], [1.0, 1.0]])
        >>> RKDDistance().relate(rows, 5.0 * rows + 2.0).abs() < 1e-9
        tensor(True)
    """

    citation: ClassVar[str] = "Park, Kim, Lu, Cho: Relational Knowledge Distillation, arXiv:1904.05068"
    name: ClassVar[str] = "rkd_distance"

    def relate(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compare the distances; see ``RelationTerm.relate``."""
        rows = len(student)
        gaps = F.smooth_l1_loss(_distances(student), _distances(teacher), reduction="sum")
        return gaps / max(1, rows * (rows - 1))  # a row's distance to itself is 0 on both sides


class RKDAngle(RelationTerm):
    """Angles among rows: the cosine at each row between any two others.

    With ``e_ij = (v_i - v_j) / || v_i - v_j ||`` (0 for equal rows): the mean over all triples of different rows of
    ``huber(<e_ij, e_kj> of the student - <e_ij, e_kj> of the teacher)``, times the rows. Fewer than three rows have no
    angle and cost nothing. The mean over pairs of layers is taken. Rows are seen together, so micro-batches are
    groups of their own: equal groups give equal results however they are spread over accumulation steps and ranks,
    other groups do not. It holds B x B x H and B x B x B numbers at once.

    Args:
        layers: which layers learn from which; None: the two last. See ``PooledTerm``.
        pool: ``"mean"``, ``"first"`` or ``"last"``; see ``PooledTerm``.
        stream: which sequence of positions; see ``HiddenTerm``.

    Raises:
        ValueError: layers that cannot be read, or another word for pool.

    Reference:
        Park, Kim, Lu, Cho: Relational Knowledge Distillation, arXiv:1904.05068, section 3.2.2.

    Example:
        >>> rows = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 1.0]])
        >>> RKDAngle().relate(rows, torch.tensor([[0.0, 0.0, 1.0], [3.0, 0.0, 1.0], [0.0, 1.0, 1.0]]))
        tensor(0.)
    """

    citation: ClassVar[str] = RKDDistance.citation
    name: ClassVar[str] = "rkd_angle"

    def relate(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compare the angles; see ``RelationTerm.relate``."""
        rows = len(student)
        other = ~torch.eye(rows, dtype=torch.bool, device=student.device)
        gaps = F.smooth_l1_loss(_cosines(student), _cosines(teacher), reduction="none")
        # [j, i, k]: where i or k is j the cosine is 0 on both sides, where i is k no angle is asked for.
        return gaps.masked_fill(~other, 0).sum() / max(1, rows * (rows - 1) * (rows - 2))


class SimilarityPreserving(RelationTerm):
    """Products of rows: two rows that look alike to the teacher shall look alike to the student.

    With ``G = V V'`` [B, B], each row of it given length 1: ``|| G_s - G_t ||**2 / B**2`` (Frobenius norm), times the
    rows. The mean over pairs of layers is taken. Rows are seen together, so micro-batches are groups of their own:
    equal groups give equal results however they are spread over accumulation steps and ranks, other groups do not.

    Args:
        layers: which layers learn from which; None: the two last. See ``PooledTerm``.
        pool: ``"mean"``, ``"first"`` or ``"last"``; see ``PooledTerm``. The paper takes all of a layer's activations.
        stream: which sequence of positions; see ``HiddenTerm``.

    Raises:
        ValueError: layers that cannot be read, or another word for pool.

    Reference:
        Tung, Mori: Similarity-Preserving Knowledge Distillation, arXiv:1907.09682, section 3.1.

    Example:
        >>> rows = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> SimilarityPreserving().relate(rows, 3.0 * rows), SimilarityPreserving().relate(rows, torch.ones(2, 1))
        (tensor(0.), tensor(0.2929))
    """

    citation: ClassVar[str] = "Tung, Mori: Similarity-Preserving Knowledge Distillation, arXiv:1907.09682"
    name: ClassVar[str] = "similarity"

    def relate(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compare the products; see ``RelationTerm.relate``."""
        ours, theirs = (unit_vectors(vectors @ vectors.T) for vectors in (student, teacher))
        return F.mse_loss(ours, theirs)


def _distances(vectors: Tensor) -> Tensor:
    """Return [B, B], the distances of rows divided by the mean of those that are not 0."""
    # From differences, not from products: rows of a deep model share a large part, of which products keep the noise.
    # Its gradient for equal rows is 0.
    distances = torch.cdist(vectors, vectors, compute_mode="donot_use_mm_for_euclid_dist")
    mean = distances.sum() / (distances > 0).sum().clamp(min=1)
    return distances / mean.masked_fill(mean == 0, 1)


def _cosines(vectors: Tensor) -> Tensor:
    """Return [j, i, k], the cosine at row j between the ways to row i and to row k."""
    size = vectors.detach().abs().amax(dim=-1, keepdim=True)
    ways = unit_vectors(vectors - vectors.unsqueeze(1), torch.maximum(size, size.unsqueeze(1)))
    return ways @ ways.transpose(1, 2)
