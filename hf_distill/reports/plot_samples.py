"""The picture of samples: what each model makes of the same noise.

Knows: images as arrays. Does not know: models, noise. Needs matplotlib (the extra ``recipes``).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from hf_distill.reports.picture import fold, looks_of, picture


def plot_samples(
    samples: Mapping[str, np.ndarray],
    path: str | Path,
    title: str = "what does each model make of the same noise?",
    columns: int = 10,
) -> None:
    """Draw samples, some lines for each model; those below each other are of the same noise.

    Args:
        samples: model -> [N, height, width] or [N, height, width, 3], from 0 to 1; of each model as many.
        path: where to save, as PNG.
        title: above the picture.
        columns: how many stand in a line.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: there are no samples.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     plot_samples({"teacher": np.zeros((10, 8, 8))}, Path(folder) / "samples.png")
    """
    if not samples or not all(len(one) for one in samples.values()):
        raise ValueError("a picture of samples was asked for and there are none: give one model and one sample.")
    lines = {name: [one[i : i + columns] for i in range(0, len(one), columns)] for name, one in samples.items()}
    height = sum(map(len, lines.values()))
    with picture(path, (1.6 + 0.62 * columns, 0.7 + 0.66 * height), title, list(samples)) as (figure, shown):
        grid, row = figure.subplots(height, columns, squeeze=False), 0
        for axes in grid.flat:
            axes.set_axis_off()
        for (name, parts), look in zip(lines.items(), looks_of(lines), strict=True):
            for number, part in enumerate(parts):
                for axes, image in zip(grid[row], part, strict=False):
                    axes.imshow(np.clip(image, 0, 1), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
                if number == 0:
                    where = {"xy": (-0.15, 0.5), "xycoords": "axes fraction", "ha": "right", "va": "center"}
                    around = {"boxstyle": "round", "facecolor": "white", "edgecolor": look.colour, "linewidth": 2}
                    grid[row][0].annotate(fold(shown[name], 16, 2), fontsize=9, bbox=around, **where)
                row += 1
