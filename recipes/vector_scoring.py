"""How near the vectors of one encoder are to those of another: by direction, by similarities, by neighbours.

Knows: arrays of vectors. Does not know: models, texts, how a vector is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from predictions import PredictionScoring
from scoring import Column, percent

PAIRED, SEARCHED = 300, 2_000
"""Similarities are compared over all pairs of so many held-out texts, neighbours looked for among so many."""


class VectorScoring(PredictionScoring):
    """How near vectors are to the teacher's, which stand in the place of labels: both [N, H]."""

    score: ClassVar[str] = "cosine"
    drawn: ClassVar[tuple[str, str]] = ("cosine", "cosine to the teacher's vectors")
    columns: ClassVar[Mapping[str, Column]] = {
        "cosine to teacher %": percent("cosine"),
        "Spearman of similarities %": percent("spearman"),
        "agrees with teacher %": percent("agreement"),
    }
    hub: ClassVar[dict[str, str]] = {"cosine": "cosine", "spearman": "spearman"}
    baseline: ClassVar[str] = "untaught student"

    def figures(self, predictions: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        """The mean cosine, and the rank correlation of pairs' similarities; see ``PredictionScoring.figures``."""
        above = np.triu_indices(min(PAIRED, len(labels)), k=1)
        ranks = [similarities(vectors[:PAIRED])[above].argsort().argsort() for vectors in (predictions, labels)]
        return {"cosine": float(self.units(predictions, labels).mean()), "spearman": float(np.corrcoef(*ranks)[0, 1])}

    def units(self, predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Each text's cosine; see ``PredictionScoring.units``."""
        return (unit(predictions) * unit(labels)).sum(-1)

    def agreement(self, predictions: np.ndarray, teacher: np.ndarray, labels: np.ndarray) -> float:
        """The share of texts whose nearest other text is the teacher's; see ``PredictionScoring.agreement``."""
        nearest = [
            (similarities(v) - 3 * np.eye(len(v))).argmax(-1) for v in (predictions[:SEARCHED], teacher[:SEARCHED])
        ]
        return float((nearest[0] == nearest[1]).mean())


def unit(vectors: np.ndarray) -> np.ndarray:
    """Bring vectors to length one."""
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True).clip(1e-12)


def similarities(vectors: np.ndarray) -> np.ndarray:
    """The cosine of every pair: [N, N]."""
    return unit(vectors) @ unit(vectors).T
