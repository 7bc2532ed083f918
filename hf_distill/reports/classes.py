"""Which classes won and which lost: recall and F1 of each class, model by model.

Knows: predicted and right classes as arrays. Does not know: logits, models, pictures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from hf_distill.reports.spans import f1_shares, span_scores
from hf_distill.reports.table import markdown_table


@dataclass(frozen=True)
class ClassChange:
    """What became of one class.

    Args:
        name: of the class.
        number: its label.
        rows: how many test rows it has.
        recall: model -> share of these rows that it finds; None where there is no row.
        f1: model -> F1 of the class; None where there is no row and the model never says it.
        change: F1 of the later model - F1 of the earlier one; None where there is no row.
        change_error: standard error of the change, over the test rows in pairs; None with it.
    """

    name: str
    number: int
    rows: int
    recall: dict[str, float | None]
    f1: dict[str, float | None]
    change: float | None
    change_error: float | None


def class_changes(
    predictions: Mapping[str, ArrayLike],
    labels: ArrayLike,
    names: Sequence[str] | None = None,
    before: str = "student alone",
    after: str = "distilled",
) -> list[ClassChange]:
    """Measure each class under each model, and what changed between two of them.

    Args:
        predictions: model -> the class that it chooses for each row, int [N].
        labels: the right ones, int [N]; rows with a negative one, as -100, do not count.
        names: of the classes in the order of their labels; None: their numbers.
        before: the model that the change is counted from.
        after: the model whose change it is.

    Returns:
        All classes, from the one that lost most F1 to the one that won most; those without a change come last.

    Raises:
        ValueError: a model is missing, rows are not in pairs, or a class has no name.

    Example:
        >>> said = {"student alone": [0, 0, 1, 1], "distilled": [0, 1, 1, 1]}
        >>> for one in class_changes(said, [0, 1, 1, 1], ["体育", "财经"]):
        ...     print(one.name, one.rows, round(one.change, 2))
        财经 3 0.2
        体育 1 0.33
    """
    labels = np.asarray(labels)
    said = {model: np.asarray(chosen) for model, chosen in predictions.items()}
    for model in (before, after):
        if model not in said:
            raise ValueError(
                f"the change from {before!r} to {after!r} was asked for, and there are predictions of "
                f"{', '.join(map(repr, said))}: name two of them."
            )
    for model, chosen in said.items():
        if chosen.shape != labels.shape:
            raise ValueError(
                f"the classes of {model!r} have the shape {chosen.shape} and the labels {labels.shape}: give one "
                "class for each label (of logits, their argmax)."
            )
    counted = labels >= 0
    said, labels = {model: chosen[counted] for model, chosen in said.items()}, labels[counted]
    top = max((int(each.max()) + 1 for each in (*said.values(), labels) if each.size), default=0)
    if names is None:
        names = [str(number) for number in range(top)]
    if top > len(names):
        raise ValueError(f"class {top - 1} occurs and {len(names)} classes have names: give one for each class.")
    found = [_change(said, labels, number, name, before, after) for number, name in enumerate(names)]
    return sorted(found, key=lambda one: (one.change is None, one.change or 0.0))


def _change(
    said: Mapping[str, np.ndarray], labels: np.ndarray, number: int, name: str, before: str, after: str
) -> ClassChange:
    there = labels == number
    # A class is found as a span is: hits, how often it is said, how often it is there.
    counts = {model: np.stack([there & (c == number), c == number, there], axis=1) for model, c in said.items()}
    scores = {model: span_scores(each) for model, each in counts.items()}
    f1 = {model: scores[model]["f1"] if counts[model].any() else None for model in said}
    change = error = None
    if there.any():
        change = f1[after] - f1[before]
        if len(labels) > 1:
            moved = f1_shares(counts[after].astype(int)) - f1_shares(counts[before].astype(int))
            error = float(moved.std(ddof=1) / np.sqrt(len(labels)))
    recall = {model: scores[model]["recall"] if there.any() else None for model in said}
    return ClassChange(name, number, int(there.sum()), recall, f1, change, error)


def class_table(changes: Sequence[ClassChange], most: int = 5) -> str:
    """Lay out the classes that lost and won most.

    Args:
        changes: as ``class_changes`` returns them.
        most: how many are shown from either end; those between are only counted.

    Returns:
        A Markdown table: recall and F1 of each model in percent, the change of F1 in points ± its standard error.

    Raises:
        ValueError: there are no classes.

    Example:
        >>> said = {"alone": [0, 0, 1, 1], "taught": [0, 1, 1, 1]}
        >>> print(class_table(class_changes(said, [0, 1, 1, 1], ["体育", "财经"], "alone", "taught")))
        | class | rows | alone: recall | taught: recall | alone: F1 | taught: F1 |    F1 change |
        | :---- | ---: | ------------: | -------------: | --------: | ---------: | -----------: |
        | 财经  |    3 |          66.7 |          100.0 |      80.0 |      100.0 | +20.0 ± 22.6 |
        | 体育  |    1 |         100.0 |          100.0 |      66.7 |      100.0 | +33.3 ± 36.3 |
    """
    if not changes:
        raise ValueError("a table of classes was asked for and there are none: give at least one.")
    header, shown = class_cells(changes)
    if len(shown) > 2 * most:
        between = [f"({len(shown) - 2 * most} between)", *[""] * (len(header) - 1)]
        shown = [*shown[:most], between, *shown[len(shown) - most :]]
    return markdown_table(header, shown)


def class_cells(changes: Sequence[ClassChange]) -> tuple[list[str], list[list[str]]]:
    """Write the cells of a table of classes: its header, and a row for each class.

    Args:
        changes: one at least, as ``class_changes`` returns them.
    """
    models = list(changes[0].f1)
    header = ["class", "rows", *(f"{model}: {figure}" for figure in ("recall", "F1") for model in models)]
    return [*header, "F1 change"], [_cells(one, models) for one in changes]


def _cells(one: ClassChange, models: Sequence[str]) -> list[str]:
    figures = [each[model] for each in (one.recall, one.f1) for model in models]
    change = "-" if one.change is None else f"{100 * one.change:+.1f}"
    error = "" if one.change_error is None else f" ± {100 * one.change_error:.1f}"
    return [one.name, str(one.rows), *("-" if f is None else f"{100 * f:.1f}" for f in figures), change + error]
