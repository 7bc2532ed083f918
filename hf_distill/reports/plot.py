"""The picture of a comparison: how good each model is, beside what it costs.

Knows: rows of a report. Does not know: how they were measured. Needs matplotlib (the extra ``recipes``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_distill.reports.picture import Look, clean, fold, looks_of, picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COSTS = {
    "parameters": ("parameters, millions", 1e-6),
    "latency": ("milliseconds for one row", 1.0),
    "latency_p50": ("milliseconds for one row, median", 1.0),
    "samples_per_second": ("samples a second", 1.0),
}
"""What a model costs: figure of a row -> how to name it beside the axis, and in what unit."""

FLOOR = {"color": "grey", "linestyle": "--", "linewidth": 1.0, "zorder": 1}
"""How the line of the floor is drawn."""
WHITE = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
"""What a number stands on that the line goes through."""
WIDE = 8
"""Costs that differ by more than this factor are drawn on a logarithmic axis."""


def plot_comparison(
    models: Sequence[Mapping[str, Any]],
    path: str | Path,
    title: str,
    score: str = "accuracy",
    measured: str = "test accuracy",
    floor: float | None = None,
) -> None:
    """Draw each model's score with its error, beside score against size and score against speed, and save the picture.

    Args:
        models: rows with ``name`` and the score (0 to 1). Drawn where every row has it (None is not having it):
            ``parameters``, and ``latency`` or ``latency_p50`` (milliseconds) or else ``samples_per_second``. Drawn
            where a row has it: the bounds of the score under ``<score>_interval`` (low, high), or else its standard
            error under ``<score>_error``.
        path: where to save, as PNG; under 200 kB.
        title: above the picture.
        score: which of the rows' figures it is.
        measured: how to name it beside the axis.
        floor: what who learnt nothing scores, a dashed line where the models are not far from it; None: nobody knows.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: there are no models.
        KeyError: a row lacks its name or score.

    Example:
        >>> import tempfile
        >>> rows = [{"name": "teacher", "accuracy": 0.9}, {"name": "distilled", "accuracy": 0.8}]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     plot_comparison(rows, Path(folder) / "report.png", "did the teacher help?")
    """
    if not models:
        raise ValueError("a picture of a comparison was asked for and there are no models: give at least one.")
    names, scores = [row["name"] for row in models], [100 * row[score] for row in models]
    bounds, kinds = zip(*(_bounds(row, score) for row in models), strict=True)
    drawn = [cost for cost in COSTS if all(_known(row, cost) for row in models)]
    costs = [*(cost for cost in drawn if cost == "parameters"), *[cost for cost in drawn if cost != "parameters"][:1]]
    height = max(3.4, 1.4 + 0.45 * len(models))
    # A score that is no number, of a model that diverged, has a name here and no place.
    ends = [end for pair in bounds for end in pair if end is not None] + scores
    ends = [end for end in ends if math.isfinite(end)] or [0.0]
    around = _around(ends)
    if near := floor is not None and abs(200 * floor - sum(around)) <= 2 * (around[1] - around[0]):
        around = _around([*ends, 100 * floor])
    with picture(path, (4.8 + 3.3 * len(costs), height), title, [*names, measured]) as (figure, shown):
        first, *others = figure.subplots(1, 1 + len(costs), width_ratios=[1.3] + [1.0] * len(costs), squeeze=False)[0]
        looks = list(zip(scores, looks_of(names), strict=True))
        for place, ((value, look), (low, high)) in enumerate(zip(looks, bounds, strict=True)):
            # Points, not bars: a bar whose foot is cut off lies about its height.
            if not math.isfinite(value):
                continue
            bar = None if low is None else [[max(0.0, value - low)], [max(0.0, high - value)]]  # both are rounded
            first.errorbar(value, place, xerr=bar, fmt=look.marker, markersize=9, capsize=5, color=look.colour)
            told = {"ha": "center", "fontsize": 9, "bbox": WHITE if near else None}
            first.annotate(f"{value:.1f}", (value, place), xytext=(0, 9), textcoords="offset points", **told)
        first.set_yticks(range(len(names)), [fold(shown[name], 18, 3) for name in names])
        first.set_ylim(len(names) - 0.4, -0.6)
        first.set_xlim(around)
        first.locator_params(axis="x", nbins=6)
        first.set_xlabel(fold(f"{shown[measured]}, %{_said(kinds)}", 46), fontsize=9)
        clean(first, "x")
        if near:
            first.axvline(100 * floor, **FLOOR)
            beside = {"xytext": (3, 2), "textcoords": "offset points"}
            first.annotate("floor", (100 * floor, len(names) - 0.45), fontsize=8, color="grey", **beside)
        for axes, cost in zip(others, costs, strict=True):
            _score_against(axes, [row[cost] * COSTS[cost][1] for row in models], looks)
            axes.set_xlabel(COSTS[cost][0], fontsize=9)
            axes.set_ylim(around)
            if near:
                axes.axhline(100 * floor, **FLOOR)
            axes.set_ylabel(fold(f"{shown[measured]}, %", 40), fontsize=9)


def _around(ends: Sequence[float]) -> tuple[float, float]:
    """The ends of an axis that shows all of these, two points at least: what is nothing shall not look like much."""
    middle, half = (max(ends) + min(ends)) / 2, max(0.7 * (max(ends) - min(ends)), 1.0)
    return middle - half, middle + half


def _score_against(axes: Axes, costs: Sequence[float], looks: Sequence[tuple[float, Look]]) -> None:
    from matplotlib.ticker import LogLocator

    known = [place for place, (y, _) in enumerate(looks) if math.isfinite(y)]
    if not known:
        return
    costs, looks = [costs[place] for place in known], [looks[place] for place in known]
    heights = [y for y, _ in looks]
    close = max(0.5, 0.08 * (max(heights) - min(heights)))
    drawn: list[tuple[float, float]] = []
    for x, (y, look) in zip(costs, looks, strict=True):
        # A model that lies upon others is drawn smaller, so that all are seen.
        under = sum(abs(x - left) < 0.05 * max(costs) and abs(y - low) < close for left, low in drawn)
        size = 100 * (1.8 if under == 0 else 0.5**under)
        axes.scatter(x, y, s=size, color=look.colour, marker=look.marker, zorder=3 + under)
        drawn.append((x, y))
    if min(costs) > 0 and max(costs) > WIDE * min(costs):
        axes.set_xscale("log")
        axes.set_xlim(min(costs) / 2, max(costs) * 2)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 3) if max(costs) < 100 * min(costs) else (1,)))
        axes.minorticks_off()
    else:
        axes.set_xlim(0, 1.2 * max(costs) or 1.0)
        axes.locator_params(axis="x", nbins=5)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
    clean(axes, "both")


def _known(row: Mapping[str, Any], key: str) -> bool:
    return isinstance(row.get(key), Real) and math.isfinite(row[key])


def _bounds(row: Mapping[str, Any], score: str) -> tuple[tuple[float | None, float | None], str]:
    """The ends of a score's bar in percent, and what they are."""
    if row.get(f"{score}_interval"):
        low, high = row[f"{score}_interval"]
        return (100 * low, 100 * high), "interval"
    if _known(row, f"{score}_error"):
        return (100 * (row[score] - row[f"{score}_error"]), 100 * (row[score] + row[f"{score}_error"])), "error"
    return (None, None), ""


def _said(kinds: Sequence[str]) -> str:
    words = {"interval": " with its 95\u00a0% interval", "error": " ± one standard error"}
    return " or".join(words[kind] for kind in words if kind in kinds)
