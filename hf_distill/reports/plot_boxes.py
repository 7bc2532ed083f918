"""The picture of boxes: what a few images show, and what each model finds in them.

Knows: images, boxes. Does not know: models. Needs matplotlib (the extra ``recipes``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hf_distill.reports.detection import Boxes
from hf_distill.reports.picture import fold, frame, looks_of, picture

RIGHT, FOUND = "#1f78d1", "#d73027"
"""The colours of boxes that are there, and of those that a model says; a model's own is that of the frame."""


def plot_boxes(
    images: Sequence[Any],
    truths: Sequence[Boxes],
    predictions: Mapping[str, Sequence[Boxes]],
    names: Sequence[str],
    path: str | Path,
    title: str = "what does each model find?",
    least: float = 0.5,
) -> None:
    """Draw a few images, a line each: with the boxes that are there, then with those of each model.

    Args:
        images: N of them, as Pillow or as arrays [height, width, 3] of bytes.
        truths: the boxes of each.
        predictions: model -> its boxes of each.
        names: of the classes, in their order.
        path: where to save, as PNG; under 200 kB.
        title: above the picture.
        least: a model's box is drawn if it is so sure of it.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: there are no images.

    Example:
        >>> import tempfile
        >>> image, there = np.zeros((8, 8, 3), dtype=np.uint8), Boxes([[1, 1, 5, 5]], [0])
        >>> said = Boxes([[1, 1, 5, 6]], [0], [0.9])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     plot_boxes([image], [there], {"teacher": [said]}, ["cat"], Path(folder) / "boxes.png")
    """
    if not len(images) or not predictions:
        raise ValueError("a picture of boxes was asked for and there are none: give one image and one model at least.")
    columns = {"labels": truths, **predictions}
    looks = dict(zip(predictions, looks_of(predictions), strict=True))
    size = (0.4 + 2.0 * len(columns), 0.6 + 2.0 * len(images))
    with picture(path, size, title, [*columns, *names]) as (figure, shown):
        grid = figure.subplots(len(images), len(columns), squeeze=False)
        for row, line in enumerate(grid):
            image = np.asarray(images[row])
            for axes, (name, boxes) in zip(line, columns.items(), strict=True):
                axes.imshow(image, cmap="gray", vmin=0, vmax=255)
                axes.set_xticks([])
                axes.set_yticks([])
                # A box that goes out of its image makes it no smaller.
                axes.set_xlim(-0.5, image.shape[1] - 0.5)
                axes.set_ylim(image.shape[0] - 0.5, -0.5)
                _draw(axes, boxes[row], [shown[one] for one in names], least)
                if name in looks:
                    frame(axes, looks[name])
                if row == 0:
                    axes.set_title(fold(shown[name], 18, 2), fontsize=9)


def _draw(axes: Any, boxes: Boxes, names: Sequence[str], least: float) -> None:
    from matplotlib.patches import Rectangle

    scores = np.ones(len(boxes.labels)) if boxes.scores is None else np.asarray(boxes.scores)
    colour = RIGHT if boxes.scores is None else FOUND
    for (left, top, right, bottom), label, score in zip(boxes.corners, boxes.labels, scores, strict=True):
        if score < least:
            continue
        # A pixel's middle is its coordinate here, a box begins at its edge.
        place = (left - 0.5, top - 0.5)
        axes.add_patch(Rectangle(place, right - left, bottom - top, fill=False, edgecolor=colour, linewidth=1))
        # Where there is no room above a box, its name stands inside.
        side = "bottom" if place[1] > 0.06 * axes.get_ylim()[0] else "top"
        axes.text(*place, fold(names[label], 14, 1), color=colour, fontsize=7, va=side, clip_on=True)
