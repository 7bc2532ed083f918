"""Whether labels are objects in images: their form, their classes, their boxes.

Knows: labels of a batch. Does not know: models, losses, files.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

FORM = (
    "ObjectDetection takes a list with a dict for each image, class_labels [n] and boxes [n, 4], as the model's image "
    "processor makes them of annotations"
)


def check_objects(labels: Any, images: int, classes: int) -> None:
    """Refuse labels that are no objects of these images.

    Args:
        labels: of a batch.
        images: how many there are.
        classes: how many the student knows.

    Raises:
        ValueError: in one sentence, what stands in which row.

    Example:
        >>> import torch
        >>> far = {"class_labels": torch.tensor([0]), "boxes": torch.tensor([[1.5, 0.5, 0.2, 0.2]])}
        >>> check_objects([far], images=1, classes=3)
        Traceback (most recent call last):
        ...
        ValueError: row 0 of the batch has the box [1.5, 0.5, 0.2, 0.2], which lies outside of its image: give center \
x, center y, width and height as parts of the image, between 0 and 1, or leave the box out.
    """
    if not isinstance(labels, (list, tuple)) or len(labels) != images:
        shape = list(labels.shape) if isinstance(labels, Tensor) else f"a {type(labels).__name__} of {len(labels)}"
        raise ValueError(f"labels are {shape} for {images} images: {FORM}.")
    for row, one in enumerate(labels):
        fault = _form(one) or _classes(one["class_labels"], classes) or _boxes(one["boxes"])
        if fault:
            raise ValueError(f"row {row} of the batch has {fault}.")


def _form(one: Any) -> str:
    found = [one.get(name) for name in ("class_labels", "boxes")] if isinstance(one, Mapping) else [None, None]
    kinds, boxes = found
    if not all(isinstance(value, Tensor) for value in found):
        return f"the labels {sorted(one) if isinstance(one, Mapping) else type(one).__name__}: {FORM}"
    if kinds.ndim != 1 or kinds.is_floating_point() or boxes.shape != (len(kinds), 4):
        shapes = f"class_labels {list(kinds.shape)} of {kinds.dtype} and boxes {list(boxes.shape)}"
        return f"{shapes}: {FORM}"
    return ""


def _classes(kinds: Tensor, classes: int) -> str:
    wrong = kinds[(kinds < 0) | (kinds >= classes)]
    if not len(wrong):
        return ""
    return (
        f"an object of class {wrong[0].item()}, the student has the classes 0 to {classes - 1}: correct the label, or "
        "give the student more num_labels"
    )


def _boxes(boxes: Tensor) -> str:
    center, size = boxes.float()[:, :2], boxes.float()[:, 2:]
    # Part of a box may lie outside, as where an image was cut; one of pixels, or of no size, is a mistake.
    good = (size > 0) & (size <= 1.01) & (center + size / 2 > 0) & (center - size / 2 < 1) & (center.abs() < 2)
    wrong = (~good.all(dim=1)).nonzero().flatten()
    if not len(wrong):
        return ""
    box = [round(number, 4) for number in boxes[wrong[0]].tolist()]
    what = "has no size" if (boxes[wrong[0], 2:] <= 0).any() else "lies outside of its image"
    return (
        f"the box {box}, which {what}: give center x, center y, width and height as parts of the image, between 0 and "
        "1, or leave the box out"
    )
