"""The picture of a training: the parts of the loss, those of the validation rows, and shares such as agreement.

Knows: what Trainer logs. Does not know: trainers, what a part means. Needs matplotlib (the extra ``recipes``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_distill.reports.picture import clean, fold, picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Curve = tuple[list[float], list[float]]

STYLES = ("-", "--", ":", "-.")
WIDE = 20
"""Curves whose values differ by more than this factor are drawn on a logarithmic axis."""
MANY = 30
"""Points up to which each is marked."""
APART = ("runtime", "per_second", "jit_compilation_time", "_memory")
"""Parts of the names of what is logged about the machine, not about the model."""


def plot_losses(
    log_history: Sequence[Mapping[str, Any]], path: str | Path, title: str = "how the student learned"
) -> None:
    """Draw what a trainer logged, over its steps, and save the picture.

    Args:
        log_history: ``trainer.state.log_history``: entries with ``step`` and figures such as ``loss``, ``loss/hard``,
            ``loss/forward_kl``, ``eval_loss``, ``eval_agreement``. Up to three panels: losses of the training rows;
            of the validation rows, with all that is no share (``eval_kl``, ``eval_perplexity``); shares from 0 to 1.
            Of the several values of a figure at one step the last counts, and what is not finite is left out.
        path: where to save, as PNG; under 200 kB.
        title: above the picture.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: nothing that can be drawn was logged.

    Example:
        >>> import tempfile
        >>> history = [{"step": 1, "loss": 0.7, "loss/hard": 0.9}, {"step": 2, "loss": 0.6, "loss/hard": 0.8}]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     plot_losses(history, Path(folder) / "losses.png")
    """
    curves = _curves(log_history)
    panels = {"training rows": {}, "validation rows": {}, "validation rows, shares": {}}
    for name, curve in curves.items():
        if name == "loss" or name.startswith("loss/"):
            panels["training rows"][name] = curve
        elif name.startswith("eval_"):
            share = "loss" not in name and not name.endswith("_kl") and all(0 <= value <= 1 for value in curve[1])
            panels["validation rows, shares" if share else "validation rows"][name] = curve
    panels = {said: found for said, found in panels.items() if found}
    if not panels:
        raise ValueError(
            "a picture of losses was asked for and nothing was logged: train with logging_steps below the number of "
            "steps, and give trainer.state.log_history."
        )
    most = max(map(len, panels.values()))
    size = (1 + 3.9 * len(panels), 3.4 + 0.2 * most)
    with picture(path, size, title, list(curves)) as (figure, shown):
        for axes, (said, found) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
            _draw(axes, found, shown)
            axes.set_title(said, fontsize=10)
            if said == "validation rows, shares":
                axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g} %")


def _curves(log_history: Sequence[Mapping[str, Any]]) -> dict[str, Curve]:
    """Each figure's steps and values, in the order of the steps."""
    points: dict[str, dict[float, float]] = {}
    for entry in log_history:
        for name, value in entry.items():
            number = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
            if number and not any(word in name for word in APART):
                points.setdefault(name, {})[entry.get("step", 0)] = value
    return {name: tuple(map(list, zip(*sorted(found.items()), strict=True))) for name, found in points.items()}


def _draw(axes: Axes, curves: Mapping[str, Curve], shown: Mapping[str, str]) -> None:
    # The whole first and thick, its parts in the order of where they end: the legend then reads as the curves lie.
    whole = {name for name in curves if name in ("loss", "eval_loss")}
    order = sorted(curves, key=lambda name: (name not in whole, -curves[name][1][-1]))
    parts = [name for name in order if name not in whole]
    for name in order:
        steps, values = curves[name]
        look = {"color": "black", "linewidth": 2.0}
        if name not in whole:
            place = parts.index(name)
            look = {"color": f"C{place % 10}", "linestyle": STYLES[place // 10 % len(STYLES)], "linewidth": 1.2}
        marker = "o" if len(steps) <= MANY else None
        # Its first letter may hide a curve from the legend (matplotlib leaves out what begins with _): a space helps.
        axes.plot(steps, values, label=" " + fold(shown[name], 40, 1), marker=marker, markersize=3, **look)
    values = [value for _, found in curves.values() for value in found]
    if min(values) > 0 and max(values) > WIDE * min(values):
        from matplotlib.ticker import LogLocator

        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if max(values) < 500 * min(values) else (1,)))
        axes.minorticks_off()
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
    clean(axes)
    axes.xaxis.get_major_locator().set_params(integer=True, nbins=6)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
    axes.set_xlabel("step", fontsize=9)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), fontsize=8, frameon=False, handlelength=3)
