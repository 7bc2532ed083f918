"""What a model's probabilities are worth: how close they are to the teacher's, and whether they can be believed.

Knows: logits and labels as arrays, in float64. Does not know: models, tasks, training losses.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


def mean_kl(student_logits: ArrayLike, teacher_logits: ArrayLike, rows: ArrayLike | None = None) -> float:
    """KL(teacher || student), the mean over rows, at temperature 1.

    Args:
        student_logits: [..., C].
        teacher_logits: [..., C].
        rows: bool [...], which rows count, as the tokens of a padded batch that have a label; None: all.

    Returns:
        Nats a row; infinite where the student excludes a class that the teacher does not.

    Raises:
        ValueError: the shapes differ, or no row counts.

    Reference:
        Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network, 2015, section 2.

    Example:
        >>> round(mean_kl([[0.0, 0.0]], [[0.0, np.log(3.0)]]), 4)
        0.1308
    """
    student, teacher = np.asarray(student_logits), np.asarray(teacher_logits)
    if student.shape != teacher.shape:
        raise ValueError(
            f"a KL was asked of logits of the shapes {student.shape} and {teacher.shape}: give both models' logits "
            "for the same rows and classes."
        )
    if rows is not None:
        student, teacher = student[np.asarray(rows, dtype=bool)], teacher[np.asarray(rows, dtype=bool)]
    if not student.size:
        raise ValueError("a KL was asked of no rows: give at least one that counts.")
    return float(row_kl(student, teacher).mean())


def row_kl(student_logits: ArrayLike, teacher_logits: ArrayLike) -> np.ndarray:
    """KL(teacher || student) of each row, at temperature 1; see ``mean_kl``.

    Args:
        student_logits: [..., C].
        teacher_logits: the same shape.

    Returns:
        Nats, float64 [...].

    Example:
        >>> row_kl([[0.0, 0.0], [1.0, 1.0]], [[0.0, np.log(3.0)], [5.0, 5.0]]).round(4).tolist()
        [0.1308, 0.0]
    """
    log_q, log_p = log_probabilities(student_logits), log_probabilities(teacher_logits)
    with np.errstate(invalid="ignore"):  # a class that the teacher excludes adds nothing, though 0 * inf is no number
        terms = np.where(np.isneginf(log_p), 0.0, np.exp(log_p) * (log_p - log_q))
    return terms.sum(axis=-1)


def log_probabilities(logits: ArrayLike) -> np.ndarray:
    """Log-softmax over the last axis.

    Args:
        logits: [..., C].

    Returns:
        float64 [..., C].

    Example:
        >>> np.exp(log_probabilities([0.0, np.log(3.0)])).round(2).tolist()
        [0.25, 0.75]
    """
    logits = np.asarray(logits, dtype=np.float64)
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


@dataclass(frozen=True)
class Calibration:
    """Whether a model is right as often as it says: rows in bins of its confidence.

    Args:
        error: the expected calibration error, from 0 to 1.
        rows: how many rows each bin holds; bin m of M holds confidences above (m - 1) / M, up to m / M.
        confidence: the mean probability of the chosen class in each bin; None where it holds no row.
        accuracy: the share of rows in each bin whose chosen class is right; None where it holds no row.
    """

    error: float
    rows: tuple[int, ...]
    confidence: tuple[float | None, ...]
    accuracy: tuple[float | None, ...]


def calibration(logits: ArrayLike, labels: ArrayLike, bins: int = 15) -> Calibration:
    """Compare a model's confidence with how often it is right.

    Args:
        logits: [..., C], C of 2 or more.
        labels: [...], the right classes; rows with a negative one, as -100, do not count.
        bins: how many of equal width from 0 to 1.

    Returns:
        The expected calibration error sum_m |B_m| / n * |accuracy(B_m) - confidence(B_m)| and the bins themselves,
        which make a reliability diagram.

    Raises:
        ValueError: shapes that do not fit, less than two classes, or no row that counts.

    Reference:
        Guo, Pleiss, Sun, Weinberger: On Calibration of Modern Neural Networks, 2017, eq. 3 (arXiv:1706.04599).

    Example:
        >>> found = calibration([[0.0, np.log(4.0)], [0.0, np.log(4.0)]], [1, 0], bins=5)
        >>> round(found.error, 3), found.rows
        (0.3, (0, 0, 0, 2, 0))
    """
    logits, labels = np.asarray(logits), np.asarray(labels)
    if logits.ndim < 1 or logits.shape[:-1] != labels.shape or logits.shape[-1] < 2:
        raise ValueError(
            f"calibration was asked of logits {logits.shape} and labels {labels.shape}: give logits [..., C] with "
            "two classes or more, and a label for each row."
        )
    logits, labels = logits[labels >= 0], labels[labels >= 0]
    if not len(labels):
        raise ValueError("calibration was asked of no rows: give at least one with a label.")
    sure = np.exp(log_probabilities(logits).max(axis=-1))
    right = logits.argmax(axis=-1) == labels
    # Rounding: a probability of 0.8 may come as 0.8000000000000002, and still belongs to the bin that ends there.
    # A confidence that is no number, of a model that diverged, must lie somewhere, and makes the error none either.
    place = np.clip(np.ceil(np.nan_to_num(sure) * bins - 1e-9).astype(int) - 1, 0, bins - 1)
    rows = np.bincount(place, minlength=bins)
    said, was = (np.bincount(place, weights=each, minlength=bins) for each in (sure, right.astype(float)))
    means = [[float(total / n) if n else None for total, n in zip(each, rows, strict=True)] for each in (said, was)]
    return Calibration(float(np.abs(said - was).sum() / len(labels)), tuple(rows.tolist()), *map(tuple, means))
