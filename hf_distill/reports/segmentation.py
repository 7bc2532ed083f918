"""What a segmenter finds: intersection over union of each class, and the mean of them with its error.

Knows: maps of classes as arrays. Does not know: images, models, files.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np


def pixel_counts(
    predicted: Iterable[np.ndarray], references: Iterable[np.ndarray], classes: int, ignored: int = 255
) -> np.ndarray:
    """Count pixels, image by image and class by class: of a confusion matrix its diagonal and the sums of its sides.

    Args:
        predicted: for each of N images its classes [H, W].
        references: the right ones, as large.
        classes: how many there are, C.
        ignored: the label of a pixel that has none; what was said there does not count.

    Returns:
        int64 [N, C, 3]: pixels that are of a class and were said to be, that were said to be, and that are of it.

    Raises:
        ValueError: maps of another size, or a class that is not there.

    Example:
        >>> pixel_counts([np.array([[0, 1, 1]])], [np.array([[0, 0, 255]])], classes=2).tolist()
        [[[1, 1, 2], [0, 1, 0]]]
    """
    counts, there = [], set(range(classes))
    for number, (said, right) in enumerate(zip(predicted, references, strict=True)):
        if said.shape != right.shape:
            raise ValueError(
                f"image {number} has a map of {list(said.shape)}, and labels of {list(right.shape)}: bring the map to "
                "the size of the labels."
            )
        known = right != ignored
        said, right = said[known].astype(np.int64), right[known].astype(np.int64)
        if wrong := {one for both in (said, right) for one in (both.min(initial=0), both.max(initial=0))} - there:
            raise ValueError(
                f"image {number} has the class {min(wrong)}, and there are {classes}: give classes of 0 to "
                f"{classes - 1}."
            )
        sums = (np.bincount(one, minlength=classes) for one in (right[said == right], said, right))
        counts.append(np.stack(list(sums), axis=1))
    return np.array(counts, dtype=np.int64).reshape(-1, classes, 3)


def class_ious(counts: np.ndarray) -> np.ndarray:
    """Intersection over union of each class, over the pixels of all images.

    Args:
        counts: [N, C, 3], as ``pixel_counts`` returns them.

    Returns:
        float64 [C]; NaN for a class that is nowhere and was said nowhere.

    Example:
        >>> class_ious(np.array([[[1, 1, 2], [0, 1, 0], [0, 0, 0]]])).tolist()
        [0.5, 0.0, nan]
    """
    hits, said, there = counts.sum(axis=0).astype(np.float64).T
    union = said + there - hits
    return np.divide(hits, union, out=np.full(len(union), np.nan), where=union > 0)


def segmentation_scores(counts: np.ndarray) -> dict[str, float]:
    """Mean intersection over union, and the share of right pixels; 0 where no pixel has a label.

    Args:
        counts: [N, C, 3], as ``pixel_counts`` returns them.

    Returns:
        ``mean_iou``, over the classes that are somewhere or were said somewhere, and ``pixel_accuracy``.

    Example:
        >>> segmentation_scores(np.array([[[1, 1, 2], [0, 1, 0], [0, 0, 0]]]))
        {'mean_iou': 0.25, 'pixel_accuracy': 0.5}
    """
    ious, (hits, _, there) = class_ious(counts), counts.sum(axis=(0, 1))
    known = ious[~np.isnan(ious)]
    return {
        "mean_iou": float(known.mean()) if len(known) else 0.0,
        "pixel_accuracy": float(hits / there) if there else 0.0,
    }


def iou_shares(counts: np.ndarray) -> np.ndarray:
    """What each image adds to the mean intersection over union: numbers whose mean it is, and whose spread is its own.

    It is a mean of ratios of sums, I / U for each class, and no mean of images' scores. To first order an image moves
    one of them by ``(i - IoU u) / mean(u)``; with the mean of all added these numbers have itself for a mean, and
    their standard error is the delta method's. So they can be given to ``gap_closed``.

    Args:
        counts: [N, C, 3], as ``pixel_counts`` returns them.

    Returns:
        float64 [N]; single numbers may lie outside of 0 to 1.

    Example:
        >>> iou_shares(np.array([[[2, 2, 2]], [[0, 1, 1]]])).tolist()
        [1.0, 0.0]
    """
    ious = class_ious(counts)
    known = ~np.isnan(ious)
    if not known.any():
        return np.zeros(len(counts))
    hits, said, there = np.moveaxis(counts[:, known].astype(np.float64), -1, 0)
    union = said + there - hits
    moved = (hits - ious[known] * union) / union.mean(axis=0)
    return ious[known].mean() + moved.mean(axis=1)
