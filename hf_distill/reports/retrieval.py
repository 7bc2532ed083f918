"""How well images find their texts and texts their images, over a whole evaluation set; and classes named by texts.

Knows: vectors as arrays, numbers of what is equal. Does not know: models, batches, how a text becomes a vector.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

BLOCK = 1024
"""How many queries are compared with all candidates at once."""


def recall_metrics(ks: Sequence[int] = (1, 5, 10)) -> Callable[[Any], dict[str, float]]:
    """Make ``compute_metrics`` for a run on pairs of an image and a text (the task ``ImageText``).

    All pairs of the evaluation set are compared, not those of a batch; equal texts are one text, equal images one
    image. An image that has several texts finds one if it finds any of them.

    Args:
        ks: how many of the nearest are looked at.

    Returns:
        A function of Trainer's ``EvalPrediction``: ``image_to_text_recall@1``, ..., ``text_to_image_recall@1``, ...,
        and their mean, ``recall``.

    Example:
        >>> from transformers import EvalPrediction
        >>> numbers = np.array([[1, 7], [2, 8], [3, 7]])  # the first and the last image have one text
        >>> vectors = np.array([[1.0, 0.0], [0.0, 1.0], [0.9, 0.1]]), np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
        >>> recall_metrics(ks=(1,))(EvalPrediction(predictions=vectors, label_ids=numbers))["recall"]
        1.0
    """

    def measure(predicted: Any) -> dict[str, float]:
        (images, texts), numbers = predicted.predictions, predicted.label_ids
        found: dict[str, float] = {}
        directions = {"image_to_text": (images, texts, 1), "text_to_image": (texts, images, 0)}
        for name, (queries, candidates, side) in directions.items():
            hits = pair_hits(queries, candidates, numbers, side, ks)
            found |= {f"{name}_recall@{k}": float(hit) for k, hit in zip(ks, hits.mean(axis=0), strict=True)}
        return {**found, "recall": float(np.mean(list(found.values())))}

    return measure


def pair_hits(
    queries: np.ndarray, candidates: np.ndarray, numbers: np.ndarray, side: int, ks: Sequence[int]
) -> np.ndarray:
    """Say for each different query whether one of its own candidates is among the k nearest different ones.

    Of those that are equally near the right one stands last, so vectors that are all alike find nothing.

    Args:
        queries: [N, D], the images (or the texts) of pairs.
        candidates: [N, D], the texts (or the images) of the same pairs.
        numbers: int [N, 2], of each pair its image and its text; see ``ImageText.numbers``.
        side: which of the two numbers is the candidate's.
        ks: how many are looked at.

    Returns:
        bool [number of different queries, number of ks].

    Example:
        >>> pairs = np.array([[1, 7], [2, 7]])  # two images of one text
        >>> pair_hits(np.ones((2, 2)), np.ones((2, 2)), pairs, side=1, ks=(1,)).tolist()
        [[True], [True]]
        >>> pair_hits(np.ones((2, 2)), np.ones((2, 2)), np.array([[1, 7], [2, 8]]), side=1, ks=(1, 2)).tolist()
        [[False, True], [False, True]]
    """
    _, asked, query = np.unique(numbers[:, 1 - side], return_index=True, return_inverse=True)
    _, kept, candidate = np.unique(numbers[:, side], return_index=True, return_inverse=True)
    queries, candidates = unit(queries[asked]), unit(candidates[kept])
    hits = np.zeros((len(asked), len(ks)), dtype=bool)
    for start in range(0, len(asked), BLOCK):
        near, here = queries[start : start + BLOCK] @ candidates.T, (query >= start) & (query < start + BLOCK)
        own = np.zeros(near.shape, dtype=bool)
        own[query[here] - start, candidate[here]] = True
        best = np.where(own, near, -np.inf).max(axis=1, keepdims=True)
        before = ((near >= best) & ~own).sum(axis=1)
        hits[start : start + BLOCK] = before[:, None] < np.asarray(ks)
    return hits


def class_vectors(texts: np.ndarray, templates: int) -> np.ndarray:
    """Make one vector of each class of the vectors of its texts: their mean, each of length 1 before and after.

    Args:
        texts: [classes * templates, D], the texts of the first class first.
        templates: how many texts a class has.

    Returns:
        float [classes, D].

    Reference:
        Radford et al.: Learning Transferable Visual Models From Natural Language Supervision, arXiv:2103.00020,
        section 3.1.4 (prompt ensembling in the embedding space).

    Example:
        >>> class_vectors(np.array([[2.0, 0.0], [0.0, 3.0]]), templates=2).round(3).tolist()
        [[0.707, 0.707]]
    """
    return unit(unit(texts).reshape(-1, templates, texts.shape[-1]).mean(axis=1))


def zero_shot_logits(images: np.ndarray, classes: np.ndarray, scale: float = 1.0) -> np.ndarray:
    """Score each class for each image by the cosine of their vectors.

    Args:
        images: [N, D].
        classes: [C, D]; see ``class_vectors``.
        scale: what cosines are multiplied by, the model's own for probabilities.

    Returns:
        float [N, C].

    Example:
        >>> zero_shot_logits(np.array([[0.0, 2.0]]), np.eye(2)).tolist()
        [[0.0, 1.0]]
    """
    return scale * (unit(images) @ unit(classes).T)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Bring vectors to length 1; a zero stays one.

    Args:
        vectors: [..., D].

    Example:
        >>> unit(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
        [[0.6, 0.8], [0.0, 0.0]]
    """
    vectors = np.asarray(vectors, dtype=np.float64)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True).clip(1e-12)
