"""The picture of whether models know how sure they can be.

Knows: calibrations. Does not know: logits, models. Needs matplotlib (the extra ``recipes``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from hf_distill.reports.intervals import share_interval
from hf_distill.reports.picture import clean, fold, looks_of, picture
from hf_distill.reports.probabilities import Calibration

ROW = 4
"""Diagrams side by side; more go into the next row."""


def plot_reliability(
    calibrations: Mapping[str, Calibration], path: str | Path, title: str = "is a model right as often as it says?"
) -> None:
    """Draw a reliability diagram of each model, side by side, and save the picture.

    A point is a bin: how sure the model was, and how often it was right, with Wilson's interval at 95 %. On the
    diagonal both agree; below it the model is too sure. Grey bars show which share of the rows a bin holds.

    Args:
        calibrations: model -> what ``calibration`` returns for it.
        path: where to save, as PNG; under 200 kB.
        title: above the picture.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: there are no models.

    Reference:
        Guo, Pleiss, Sun, Weinberger: On Calibration of Modern Neural Networks, 2017, figure 1 (arXiv:1706.04599).

    Example:
        >>> import tempfile
        >>> found = Calibration(0.1, (0, 10), (None, 0.9), (None, 0.8))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     plot_reliability({"teacher": found}, Path(folder) / "reliability.png")
    """
    if not calibrations:
        raise ValueError("reliability diagrams were asked for and there are no models: give at least one.")
    columns = min(ROW, len(calibrations))
    lines = math.ceil(len(calibrations) / columns)
    size = (max(4.6, 0.5 + 3.0 * columns), 0.8 + 3.3 * lines)
    with picture(path, size, title, list(calibrations)) as (figure, shown):
        grid = figure.subplots(lines, columns, sharey=True, squeeze=False)
        for axes in grid.flat[len(calibrations) :]:
            axes.remove()
        looks = zip(grid.flat, calibrations.items(), looks_of(calibrations), strict=False)
        for axes, (name, found), look in looks:
            bins, total = len(found.rows), sum(found.rows)
            middles = [(place + 0.5) / bins for place in range(bins)]
            axes.bar(middles, [n / total for n in found.rows], 1 / bins, color="#d8dee9", edgecolor="white")
            axes.plot([0, 1], [0, 1], color="black", linewidth=0.8, linestyle="--")
            for rows, sure, right in zip(found.rows, found.confidence, found.accuracy, strict=True):
                if rows:
                    low, high = share_interval(right * rows, rows)
                    around = [[max(0.0, right - low)], [max(0.0, high - right)]]
                    axes.errorbar(
                        sure, right, yerr=around, fmt=look.marker, markersize=5, color=look.colour, elinewidth=1
                    )
            axes.set_title(f"{fold(shown[name], 30, 2)}\ncalibration error {100 * found.error:.1f} %", fontsize=9)
            axes.set_xlim(0, 1.02)
            axes.set_ylim(0, 1.02)
            axes.set_xlabel("how sure it is", fontsize=9)
            clean(axes, "both")
        for axes in grid[:, 0]:
            axes.set_ylabel("share of rows: right (points), all (bars)", fontsize=8)
