"""The picture of maps: what is right, and what each model says of a few images.

Knows: maps of classes as arrays. Does not know: images, models. Needs matplotlib (the extra ``recipes``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from hf_distill.reports.picture import fold, frame, looks_of, picture

MOST = 12
"""So many classes are named beside the maps; the others have colours too."""


def plot_maps(
    labels: Sequence[np.ndarray],
    predictions: Mapping[str, Sequence[np.ndarray]],
    names: Sequence[str],
    path: str | Path,
    title: str = "what does each model see?",
    images: int = 4,
    ignored: int = 255,
) -> None:
    """Draw the maps of a few images, a line each: the right one, then that of each model.

    Args:
        labels: N maps [height, width].
        predictions: model -> as many, as large.
        names: of the classes, in their order.
        path: where to save, as PNG; under 200 kB.
        title: above the picture.
        images: how many, evenly spread over all.
        ignored: the label of a pixel that has none; it is drawn white.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: there are no maps.

    Example:
        >>> import tempfile
        >>> right = np.array([[[0, 1], [255, 1]]])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     plot_maps(right, {"teacher": right % 2}, ["ground", "road"], Path(folder) / "maps.png")
    """
    if not len(labels) or not predictions:
        raise ValueError("a picture of maps was asked for and there are none: give one image and one model at least.")
    rows = sorted({round(place) for place in np.linspace(0, len(labels) - 1, min(images, len(labels)))})
    columns = {"labels": labels, **predictions}
    looks = dict(zip(predictions, looks_of(predictions), strict=True))
    colours = _colours(len(names))
    seen: set[int] = set()
    size = (0.6 + 1.9 * len(columns) + 1.6, 0.6 + 1.9 * len(rows))
    with picture(path, size, title, [*columns, *names]) as (figure, shown):
        grid = figure.subplots(len(rows), len(columns), squeeze=False)
        for line, row in zip(grid, rows, strict=True):
            for axes, (name, maps) in zip(line, columns.items(), strict=True):
                drawn = np.asarray(maps[row]).astype(np.int64)
                known = (drawn != ignored) & (drawn < len(names)) & (drawn >= 0)
                seen |= set(np.unique(drawn[known]).tolist())
                axes.imshow(
                    np.where(known[..., None], colours[np.where(known, drawn, 0)], 1.0), interpolation="nearest"
                )
                axes.set_xticks([])
                axes.set_yticks([])
                if name in looks:
                    frame(axes, looks[name])
                if row == rows[0]:
                    axes.set_title(fold(shown[name], 18, 2), fontsize=9)
        from matplotlib.patches import Patch

        named = sorted(seen)[:MOST]
        patches = [
            Patch(facecolor=colours[one], edgecolor="#888888", label=" " + fold(shown[names[one]], 14, 1))
            for one in named
        ]
        figure.legend(handles=patches, loc="outside right center", fontsize=8, frameon=False)


def _colours(count: int) -> np.ndarray:
    """A colour for each class, [count, 3]: the first is light, as a ground is, the others differ."""
    from matplotlib.colors import hsv_to_rgb

    others = np.arange(max(1, count - 1))
    # A few lie evenly on the circle; of many any first few are far from each other, by steps of the golden ratio.
    hues = others / len(others) if len(others) <= MOST else (others * 0.618034) % 1.0
    light = np.where(others % 2, 0.9, 0.6)
    rest = hsv_to_rgb(np.stack([hues, np.full(len(others), 0.75), light], axis=1))
    return np.concatenate([[[0.93, 0.93, 0.93]], rest])[:count]
