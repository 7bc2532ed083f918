"""The picture of a comparison.

Knows: rows of a report. Does not know: how they were measured. Needs matplotlib (the extra ``recipes``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

COLOURS = {"teacher": "#4c566a", "student alone": "#d08770", "distilled": "#2a7f62"}


def plot_comparison(
    models: Sequence[Mapping[str, Any]],
    path: str | Path,
    title: str,
    score: str = "accuracy",
    called: str = "test accuracy",
) -> None:
    """Draw each model's score with its error, beside the score against speed, and save the picture.

    Args:
        models: rows with ``name``, the score (0 to 1), its ``..._error``, ``samples_per_second``, ``parameters``.
        path: where to save, as PNG.
        title: above the picture.
        score: the key of the score.
        called: what the score is called.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("the report's picture needs matplotlib: pip install 'hf_distill[recipes]'.") from error
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    points, speed = figure.subplots(1, 2)
    names, scores = [row["name"] for row in models], [100 * row[score] for row in models]
    errors = [100 * row[f"{score}_error"] for row in models]
    colours = [COLOURS.get(name, "#5e81ac") for name in names]
    for x, (height, error, colour) in enumerate(zip(scores, errors, colours, strict=True)):
        # Points, not bars: a bar whose foot is cut off lies about its height.
        points.errorbar(x, height, yerr=error, fmt="o", markersize=10, capsize=5, color=colour)
        points.annotate(
            f"{height:.1f}", (x, height), xytext=(11, 0), textcoords="offset points", va="center", fontsize=10
        )
    points.set_xticks(range(len(names)), names)
    points.set_xlim(-0.5, len(names) - 0.3)
    low, high = min(scores) - max(errors), max(scores) + max(errors)
    margin = max(high - low, 1.0)
    for axes in (points, speed):
        axes.set_ylim(low - 0.5 * margin, high + 0.35 * margin)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.25)
        axes.set_axisbelow(True)
    points.set_ylabel(f"{called}, % ± one standard error", fontsize=9)
    for row, height, colour in zip(models, scores, colours, strict=True):
        x = row["samples_per_second"]
        speed.scatter(x, height, s=80, color=colour, zorder=3)
        label = f"{row['name']}\n{row['parameters'] / 1e6:.2f} M"
        below = row["name"] == "student alone"
        speed.annotate(
            label, (x, height), xytext=(0, -10 if below else 9), textcoords="offset points", ha="center", fontsize=9,
            va="top" if below else "bottom",
        )  # fmt: skip
    speed.set_xlim(0, 1.2 * max(row["samples_per_second"] for row in models))
    speed.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    speed.set_xlabel("samples a second", fontsize=9)
    figure.suptitle(title, fontsize=11)
    figure.savefig(path, dpi=130)
