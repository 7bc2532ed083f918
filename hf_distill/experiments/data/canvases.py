"""Canvases of handwritten digits: each digit has a box, a class and its own pixels.

Knows: where digits are drawn, boxes in COCO form, maps of classes. Does not know: processors, models, training.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, List, Value

from hf_distill.experiments.data.images import digits

SIDE, DIGITS, SCALES = 64, 4, (2, 3)
"""Pixels of a canvas along a side; how many digits it has at most; how many times a digit is enlarged."""

PAPER, CONTRAST, NOISE = 0.15, 0.75, 0.04
"""Brightness of the ground, of full ink above it, and the deviation of both; of 1."""

INK = 5 / 16
"""A pixel with so much ink belongs to its digit."""

COUNTS = {"train": 1000, "validation": 200, "test": 200}
"""How many canvases each split has."""


def canvases(seed: int = 0, counts: dict[str, int] | None = None) -> DatasetDict:
    """Draw canvases of 64 x 64 pixels, each with one to four handwritten digits that do not overlap.

    The digits are the 1,797 that come with scikit-learn, enlarged two or three times. No digit of one split is on a
    canvas of another.

    Args:
        seed: of what is drawn, and where.
        counts: how many canvases each split has; None: as ``COUNTS`` has it.

    Returns:
        ``train``, ``validation`` and ``test`` with the columns ``image``; ``objects`` as COCO has them: ``bbox`` is
        [x, y, width, height] in pixels and the smallest around the digit's pixels, ``area`` says how many those are,
        ``category`` is the digit; and ``map``, which holds for each pixel 0, or 1 + the digit that it belongs to.

    Raises:
        ImportError: scikit-learn or Pillow is not installed.

    Example:
        >>> rows = canvases(counts={"train": 2, "validation": 1, "test": 1})["train"]
        >>> rows[0]["image"].size, len(rows[0]["objects"]["bbox"]) == len(rows[0]["objects"]["category"])
        ((64, 64), True)
    """
    pools = digits()
    names = pools["train"].features["label"].names
    objects = {
        "id": List(Value("int64")),
        "area": List(Value("float32")),
        "bbox": List(List(Value("float32"), length=4)),
        "category": List(ClassLabel(names=names)),
    }
    features = Features({"image": Image(), "objects": objects, "map": Image()})
    splits = {}
    for number, (name, count) in enumerate((counts or COUNTS).items()):
        pool = [(np.asarray(row["image"]) / 255, row["label"]) for row in pools[name]]
        draw, identity, rows = np.random.default_rng([seed, number]), 0, []
        for _ in range(count):
            rows.append(_canvas(draw, pool, identity))
            identity += len(rows[-1]["objects"]["id"])
        splits[name] = Dataset.from_list(rows, features=features)
    return DatasetDict(splits)


def _canvas(draw: np.random.Generator, pool: list[tuple[np.ndarray, int]], identity: int) -> dict[str, Any]:
    """Draw one canvas; the first digit on it has the number ``identity``."""
    from PIL import Image as Picture

    ink, classes = np.zeros((SIDE, SIDE)), np.zeros((SIDE, SIDE), dtype=np.uint8)
    taken, objects = np.zeros((SIDE, SIDE), dtype=bool), {"id": [], "area": [], "bbox": [], "category": []}
    for scale in draw.choice(SCALES, draw.integers(1, DIGITS + 1)):
        spot = _free(draw, taken, 8 * scale)
        if spot is None:
            continue
        image, label = pool[draw.integers(len(pool))]
        image = np.kron(image, np.ones((scale, scale)))
        ink[spot], taken[spot] = image, True
        classes[spot][image >= INK] = label + 1
        (top, left), (rows, columns) = (one.start for one in spot), np.nonzero(image >= INK)
        objects["id"].append(identity + len(objects["id"]))
        objects["area"].append(float(len(rows)))
        objects["bbox"].append(
            [left + columns.min(), top + rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1],
        )
        objects["category"].append(label)
    brightness = np.clip(PAPER + CONTRAST * ink + draw.normal(0, NOISE, ink.shape), 0, 1)
    picture = Picture.fromarray((255 * brightness).round().astype(np.uint8)).convert("RGB")
    return {"image": picture, "objects": objects, "map": Picture.fromarray(classes)}


def _free(draw: np.random.Generator, taken: np.ndarray, side: int) -> tuple[slice, slice] | None:
    """Find a square where nothing is yet; None after 20 tries."""
    for _ in range(20):
        top, left = draw.integers(0, SIDE - side + 1, 2)
        spot = slice(int(top), int(top + side)), slice(int(left), int(left + side))
        if not taken[spot].any():
            return spot
    return None
