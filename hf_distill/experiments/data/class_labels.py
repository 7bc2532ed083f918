"""Which classes rows have, and which number each is: the training rows decide, and all others are found by name.

Knows: the values of a column, as a file has them. Does not know: files, texts, models.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from datasets import ClassLabel, Dataset, DatasetDict

from hf_distill.experiments.data.files import few
from hf_distill.experiments.data.text_rows import replaced

COLUMN = "label"
NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d*)?([eE][+-]?\d+)?")
"""A number as a CSV file has it; with a leading zero, as 007, it is a code."""


def number_labels(
    splits: Mapping[str, Dataset], order: Mapping[str, int] | None = None, cells: Collection[str] = ()
) -> DatasetDict:
    """Turn names or numbers into a ``ClassLabel`` that all splits share.

    Whole numbers 0, 1, ..., n - 1 are the classes ``LABEL_0``, ``LABEL_1``, ...; of others those that occur are the
    classes, named by their digits.

    Args:
        splits: ``train`` and others, with the column ``label``.
        order: class name -> number, of a teacher; it is taken over if the rows have the same names. Numbers that all
            are among its ``LABEL_i`` have its classes, also those that do not occur.
        cells: the splits whose labels are cells of a CSV file, which has numbers as texts.

    Returns:
        The same rows.

    Raises:
        ValueError: a row without a label or with one that is no class, a single class, a label that no training row
            has.

    Example:
        >>> given = {"train": ["1", "2", "x"], "test": [1, 2, 1]}
        >>> given = {name: Dataset.from_dict({"text": list("abc"), "label": labels}) for name, labels in given.items()}
        >>> test = number_labels(given)["test"]
        >>> test.features["label"].int2str(test["label"][:])
        ['1', '2', '1']
    """
    feature = splits["train"].features[COLUMN]
    if isinstance(feature, ClassLabel):
        names = list(feature.names)
        places = {} if any(map(NUMBER.fullmatch, names)) else {str(i): name for i, name in enumerate(names)}
    else:
        names, places = _classes(_training_labels(splits["train"], "train" in cells), order)
    if len(names) < 2:
        raise ValueError(
            f"all training rows have the class {names[0]}, so there is nothing to learn: give rows of two classes or "
            "more."
        )
    if order is not None and sorted(order) == sorted(names):
        names = sorted(names, key=order.get)
    known = {name: i for i, name in enumerate(names)}
    known |= {place: known[name] for place, name in places.items()}
    return DatasetDict({name: _numbered(rows, name, names, known) for name, rows in splits.items()})


def _training_labels(rows: Dataset, cells: bool) -> list[str | int | float]:
    """Read the labels of the training rows, and refuse what is no class."""
    labels = rows[COLUMN][:]
    if cells and all(label is None or NUMBER.fullmatch(label.strip()) for label in labels):
        labels = [label and _number(label) for label in labels]
    for row, label in enumerate(labels):
        if _missing(label):
            count = sum(map(_missing, labels))
            where = f"row {row}{f', {count:,} in all' if count > 1 else ''}; rows without a label: --unlabeled_file"
        elif isinstance(label, float) and not label.is_integer():
            where = f"row {row}"
        elif isinstance(label, (str, int, float)):
            continue
        else:
            where = f"row {row}"
        raise ValueError(
            f"a training row has the label {label}: give each row one class, as a name or a whole number ({where})."
        )
    return labels


def _classes(labels: Sequence[str | int | float], order: Mapping[str, int] | None) -> tuple[list[str], dict[str, str]]:
    """Name the classes, and say as which of them a number is known."""
    found = {_name(label) for label in labels}
    if any(isinstance(label, (str, bool)) for label in labels):
        return sorted(found), {}
    numbers = sorted(map(int, found))
    if numbers[0] < 0:
        raise ValueError(
            f"a training row has the label {numbers[0]}: number the classes from 0, or give each a name (row "
            f"{[_name(label) for label in labels].index(str(numbers[0]))}; rows without a label: --unlabeled_file)."
        )
    if order is not None and found == set(order):
        return [str(number) for number in numbers], {}
    many, theirs = len(numbers), len(order or ())
    if theirs > numbers[-1] and set(order) == {f"LABEL_{i}" for i in range(theirs)}:
        many = theirs
    elif numbers[-1] >= many:
        return [str(number) for number in numbers], {}
    return [f"LABEL_{i}" for i in range(many)], {str(i): f"LABEL_{i}" for i in range(many)}


def _numbered(rows: Dataset, split: str, names: Sequence[str], known: Mapping[str, int]) -> Dataset:
    """Number the labels of a split."""
    feature, wanted = rows.features[COLUMN], ClassLabel(names=list(names))
    own, labels = feature.names if isinstance(feature, ClassLabel) else None, rows[COLUMN][:]
    numbers = []
    for row, label in enumerate(labels):
        if _missing(label):
            raise ValueError(
                f"{sum(map(_missing, labels)):,} of {len(labels):,} {split} rows have no label, the first is row "
                f"{row}: give each row one class, or leave them out."
            )
        name = _name(own[label] if own and 0 <= label < len(own) else label)
        if name not in known and isinstance(label, str) and NUMBER.fullmatch(label.strip()):
            name = _name(_number(label))  # a test file may have 1 where the training file has 1.0
        if name not in known:
            raise ValueError(
                f"row {row} of the {split} rows has label {label}, the training rows have {few(names)}: correct the "
                "label, or add training rows with it."
            )
        numbers.append(known[name])
    if feature == wanted:
        return rows
    return replaced(rows, COLUMN, numbers, wanted)


def _number(cell: str) -> int | float:
    return int(cell) if cell.strip().lstrip("-").isdecimal() else float(cell)


def _name(label: Any) -> str:
    return str(int(label) if isinstance(label, float) and label.is_integer() else label)


def _missing(label: Any) -> bool:
    return label is None or (isinstance(label, float) and math.isnan(label))
