"""The picture of the classes: which won, which lost.

Knows: the changes of classes. Does not know: predictions, models. Needs matplotlib (the extra ``recipes``).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hf_distill.reports.classes import ClassChange
from hf_distill.reports.picture import LOOKS, clean, fold, looks_of, picture

LOST, SAME, WON = "#c62828", "#9a9a9a", "#1f78d1"
"""Colours that are no model's."""


def plot_classes(
    changes: Sequence[ClassChange], path: str | Path, title: str = "which classes won, which lost?", most: int = 10
) -> None:
    """Draw the F1 of each class under each model as bars, beside the change that the report is about.

    Args:
        changes: as ``class_changes`` returns them, from the one that lost most to the one that won most.
        path: where to save, as PNG; under 200 kB.
        title: above the picture.
        most: how many classes are drawn from either end; those between are left out, and the title then says so.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: there are no classes.

    Example:
        >>> import tempfile
        >>> from hf_distill.reports import class_changes
        >>> said = {"student alone": [0, 0, 1, 1], "distilled": [0, 1, 1, 1]}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     plot_classes(class_changes(said, [0, 1, 1, 1], ["体育", "财经"]), Path(folder) / "classes.png")
    """
    if not changes:
        raise ValueError("a picture of classes was asked for and there are none: give at least one.")
    if len(changes) > 2 * most:
        title = f"{title} ({2 * most} of {len(changes)})"
        changes = [*changes[:most], *changes[len(changes) - most :]]
    models = list(changes[0].f1)
    thick = 0.8 / len(models)
    size = (9.0, 1.7 + len(changes) * max(0.36, 0.13 * len(models)))
    with picture(path, size, title, [*models, *(one.name for one in changes)]) as (figure, shown):
        bars, moved = figure.subplots(1, 2, sharey=True, width_ratios=[1.6, 1.0])
        for place, (model, look) in enumerate(zip(models, looks_of(models), strict=True)):
            heights = [100 * (one.f1[model] or 0.0) for one in changes]
            rows = [row + (place - (len(models) - 1) / 2) * thick for row in range(len(changes))]
            bars.barh(rows, heights, 0.9 * thick, color=look.colour, label=" " + fold(shown[model], 40, 1))
        for row, one in enumerate(changes):
            if one.change is not None:
                points = 100 * one.change
                error = None if one.change_error is None else 100 * one.change_error
                colour = SAME if points == 0 else WON if points > 0 else LOST
                whose = LOOKS["distilled"].marker
                moved.errorbar(points, row, xerr=error, fmt=whose, markersize=5, capsize=3, color=colour)
        bars.set_yticks(range(len(changes)), [_label(one, shown[one.name]) for one in changes])
        bars.set_ylim(len(changes) - 0.4, -0.6)
        bars.set_xlim(0, 100)
        bars.set_xlabel("F1, %", fontsize=9)
        moved.axvline(0, color="black", linewidth=0.8)
        # Two points at least, and the zero: differences that are nothing shall not look like something.
        low, high = moved.get_xlim()
        moved.set_xlim(min(low, -1.0), max(high, 1.0))
        moved.set_xlabel("change of F1, points ± one standard error", fontsize=8)
        for axes in (bars, moved):
            clean(axes, "x")
        figure.legend(
            *bars.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=9, frameon=False
        )


def _label(one: ClassChange, shown: str) -> str:
    """The class and how many rows it has; with its number, where its name could not be drawn."""
    name = shown if shown == one.name else f"{one.number}: {shown}"
    return f"{fold(name, 26, 2)} ({one.rows:,})"
