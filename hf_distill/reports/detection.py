"""How well boxes are found: COCO's average precision, of all classes and of each, and what it hangs on image by image.

Knows: boxes, classes and scores as arrays. Does not know: models, processors, files.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""How much a box must overlap (intersection over union) to count: COCO's."""

MOST = 100
"""So many boxes of an image count, the surest ones: COCO's."""

BLOCKS = 25
"""In how many blocks the images are left out, one after the other, to find an error."""


@dataclass(frozen=True)
class Boxes:
    """The boxes of one image: those that are there, or those that a model says.

    Args:
        corners: [N, 4]: left, top, right and bottom, in pixels.
        labels: the class of each, int [N].
        scores: how sure a model is of each, [N]; None for boxes that are there.

    Raises:
        ValueError: there are not as many of each.
    """

    corners: np.ndarray
    labels: np.ndarray
    scores: np.ndarray | None = None

    def __post_init__(self) -> None:
        corners = np.asarray(self.corners, dtype=np.float64).reshape(-1, 4)
        counts = {"boxes": len(corners), "labels": len(self.labels)}
        counts |= {} if self.scores is None else {"scores": len(self.scores)}
        if len(set(counts.values())) > 1:
            told = ", ".join(f"{count} {name}" for name, count in counts.items())
            raise ValueError(f"an image was given with {told}: give as many of each.")
        object.__setattr__(self, "corners", corners)


@dataclass(frozen=True)
class AveragePrecision:
    """Average precision, from 0 to 1; a class that no image shows does not count.

    Args:
        ap: the mean over overlaps of .5, .55, ..., .95 and over classes: what COCO calls AP.
        ap50: at an overlap of .5 alone.
        ap75: at .75 alone.
        classes: ``ap`` of each class, [C]; NaN for one that no image shows.
    """

    ap: float
    ap50: float
    ap75: float
    classes: np.ndarray


def average_precision(predicted: Sequence[Boxes], truths: Sequence[Boxes], classes: int) -> AveragePrecision:
    """Measure the boxes of a detector as COCO does: over all areas, with the 100 surest boxes of an image.

    Args:
        predicted: what the model says of each image, with scores.
        truths: what is there.
        classes: how many there are.

    Raises:
        ImportError: neither faster-coco-eval nor pycocotools is installed.
        ValueError: images are not in pairs, a box has no score, a class is beyond ``classes``, or no image has a box.

    Reference:
        Lin et al.: Microsoft COCO, arXiv:1405.0312; the figures are those of its ``COCOeval``.

    Example:
        >>> there = [Boxes([[0, 0, 10, 10]], [0]), Boxes([[5, 5, 9, 9]], [1])]
        >>> said = [Boxes([[0, 0, 10, 8]], [0], [0.9]), Boxes([[5, 5, 9, 9], [0, 0, 2, 2]], [1, 1], [0.6, 0.7])]
        >>> found = average_precision(said, there, 2)
        >>> round(found.ap, 3), round(found.ap50, 3), found.classes.round(2).tolist()
        (0.6, 0.75, [0.7, 0.5])
    """
    _check(predicted, truths, classes)
    precision = _Evaluation(predicted, truths, classes).precision(range(len(truths)))
    of_classes = np.array([_known(precision[:, :, number]) for number in range(classes)])
    at = {overlap: _known(precision[np.isclose(THRESHOLDS, overlap)]) for overlap in (0.5, 0.75)}
    return AveragePrecision(_known(precision), at[0.5], at[0.75], of_classes)


def ap_shares(predicted: Sequence[Boxes], truths: Sequence[Boxes], classes: int, blocks: int = BLOCKS) -> np.ndarray:
    """What each block of images adds to average precision: numbers whose mean is AP, and whose spread is that of AP.

    AP is no mean of images' scores: boxes of all images are sorted together. So AP is measured again without each
    block of images, and what it then lacks is the block's share (the jackknife's pseudo-values). Their standard error
    is that of AP over images, and blocks are the same for every model: they can be given to ``gap_closed``.

    Args:
        predicted: what the model says of each image, with scores.
        truths: what is there.
        classes: how many there are.
        blocks: into how many the images are divided, in turn; with fewer images each is a block.

    Returns:
        float64 [blocks]; single numbers may lie outside of 0 to 1.

    Raises:
        ImportError: neither faster-coco-eval nor pycocotools is installed.
        ValueError: as ``average_precision`` does.

    Reference:
        Efron, Stein: The Jackknife Estimate of Variance, 1981.

    Example:
        >>> there = [Boxes([[0, 0, 10, 10]], [0])] * 4
        >>> said = [Boxes([[0, 0, 10, 10 - number]], [0], [0.9]) for number in (0, 0, 0, 9)]
        >>> shares = ap_shares(said, there, 1)
        >>> round(float(shares.mean()), 3), round(average_precision(said, there, 1).ap, 3)
        (0.752, 0.752)
    """
    _check(predicted, truths, classes)
    evaluation, count = _Evaluation(predicted, truths, classes), len(truths)
    whole = _known(evaluation.precision(range(count)))
    blocks = min(blocks, count)
    if blocks < 2:
        return np.full(1, whole)
    without = np.array(
        [
            _known(evaluation.precision([one for one in range(count) if one % blocks != block]))
            for block in range(blocks)
        ]
    )
    # Without the only images with boxes there is no AP: such a block says nothing of its spread.
    without = np.where(np.isnan(without), np.nanmean(without), without)
    return whole + (blocks - 1) * (without.mean() - without)


class _Evaluation:
    """COCO's evaluation of any of the images, by whichever package is there."""

    def __init__(self, predicted: Sequence[Boxes], truths: Sequence[Boxes], classes: int) -> None:
        data, evaluator = _package()
        there = {
            "info": {},
            "images": [{"id": number + 1} for number in range(len(truths))],
            "categories": [{"id": number + 1, "name": str(number)} for number in range(classes)],
            "annotations": _annotations(truths),
        }
        said = _annotations(predicted)
        with contextlib.redirect_stdout(io.StringIO()):  # both packages tell how long they took
            known = data()
            known.dataset = there
            known.createIndex()
            found = data()
            found.dataset = {**there, "annotations": said}
            found.createIndex()
            self.evaluator = evaluator(known, found, "bbox")
        settings = self.evaluator.params
        settings.iouThrs, settings.maxDets = THRESHOLDS, [MOST]
        settings.areaRng, settings.areaRngLbl = [[0, 1e10]], ["all"]

    def precision(self, images: Sequence[int]) -> np.ndarray:
        """Precision at each overlap, at 101 recalls, of each class: [10, 101, C]; -1 where no image shows it."""
        self.evaluator.params.imgIds = [number + 1 for number in images]
        with contextlib.redirect_stdout(io.StringIO()):
            self.evaluator.evaluate()
            self.evaluator.accumulate()
        return np.asarray(self.evaluator.eval["precision"])[:, :, :, 0, 0]


def _package() -> tuple[Any, Any]:
    """The classes that hold annotations and that evaluate them: those of both packages are the same."""
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError:
        try:
            from pycocotools.coco import COCO
            from pycocotools.cocoeval import COCOeval as COCOeval_faster
        except ImportError as error:
            raise ImportError(
                'average precision comes with faster-coco-eval: pip install "hf_distill[vision]".'
            ) from error
    return COCO, COCOeval_faster


def _annotations(images: Sequence[Boxes]) -> list[dict[str, Any]]:
    found = []
    for number, image in enumerate(images):
        scores = [None] * len(image.labels) if image.scores is None else image.scores
        for (left, top, right, bottom), label, score in zip(image.corners, image.labels, scores, strict=True):
            box = [float(left), float(top), float(right - left), float(bottom - top)]
            one = {"id": len(found) + 1, "image_id": number + 1, "category_id": int(label) + 1, "bbox": box}
            one |= {"area": box[2] * box[3], "iscrowd": 0}
            found.append(one if score is None else {**one, "score": float(score)})
    return found


def _known(precision: np.ndarray) -> float:
    """The mean over what is known: classes that some image shows."""
    known = precision[precision > -1]
    return float(known.mean()) if known.size else float("nan")


def _check(predicted: Sequence[Boxes], truths: Sequence[Boxes], classes: int) -> None:
    if len(predicted) != len(truths):
        raise ValueError(
            f"average precision was asked for, with predictions of {len(predicted)} images and the boxes of "
            f"{len(truths)}: give both of each image."
        )
    if any(image.scores is None for image in predicted):
        raise ValueError("average precision was asked for boxes without scores: say how sure the model is of each.")
    labels = [np.asarray(image.labels, dtype=np.int64) for image in (*predicted, *truths)]
    labels = np.concatenate(labels) if labels else np.empty(0, dtype=np.int64)
    if labels.size and not 0 <= labels.min() <= labels.max() < classes:
        wrong = labels.min() if labels.min() < 0 else labels.max()
        raise ValueError(f"a box is of class {wrong} and there are {classes}: number them from 0.")
    if not any(len(image.labels) for image in truths):
        raise ValueError("average precision was asked for images without any box: give some that have one.")
