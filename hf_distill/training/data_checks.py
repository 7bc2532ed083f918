"""What a run's data sets must hold before the first step.

Knows: data sets, transforms. Does not know: what is right about a label, models, losses.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import datasets
import numpy as np
import torch

TRAINING = "the training set"


def check_data(
    train: Any,
    evaluation: Any,
    kept: Callable[[], Collection[str] | None],
    look: Callable[[Any, str, bool], None] | None,
) -> None:
    """Refuse data sets that this run cannot learn from, or be evaluated on.

    Args:
        train: the training set, or None.
        evaluation: the evaluation set, several by name, or None.
        kept: names the columns that Trainer leaves in a row; called only where that matters.
        look: refuses rows whose labels cannot be learned from, given how to name them and whether they are trained
            on; None: nobody learns from labels.

    Raises:
        ValueError: in one sentence; see ``first_transformed`` and ``check_labels``.
    """
    for which, rows in data_sets(train, evaluation):
        if is_transformed(rows):
            row = first_transformed(rows, which, kept())
            rows = [] if row is None else [row]  # what the others become is seen batch by batch
        if look is not None:
            look(rows, which, which == TRAINING)


def data_sets(train: Any, evaluation: Any) -> Iterator[tuple[str, Any]]:
    """Name the data sets of a run, one after the other.

    Args:
        train: the training set, or None.
        evaluation: the evaluation set, several by name, or None.

    Example:
        >>> list(data_sets([1], {"a": [2]}))
        [('the training set', [1]), ("the evaluation set 'a'", [2])]
    """
    if train is not None:
        yield TRAINING, train
    for name, rows in evaluation.items() if isinstance(evaluation, Mapping) else [("", evaluation)]:
        if rows is not None:
            yield f"the evaluation set{name and f' {name!r}'}", rows


def is_transformed(rows: Any) -> bool:
    """Say whether a function of the user's makes each row when it is read (``with_transform``).

    Args:
        rows: a data set of any kind.

    Example:
        >>> some = datasets.Dataset.from_dict({"x": [1]})
        >>> is_transformed(some), is_transformed(some.with_transform(lambda rows: rows)), is_transformed([])
        (False, True, False)
    """
    return isinstance(rows, datasets.Dataset) and rows.format["type"] == "custom"


def first_transformed(rows: datasets.Dataset, which: str, kept: Collection[str] | None) -> Mapping[str, Any] | None:
    """Make the first row as the run will make it; nobody's random numbers move.

    Trainer takes the columns that the model does not read out of the table, and a transform then no longer finds them.

    Args:
        rows: with a transform.
        which: how to name them.
        kept: the columns that Trainer leaves in; None: all of them.

    Returns:
        The row; None where there is none, or where the transform fails with all columns too.

    Raises:
        ValueError: it fails because columns were taken away.
    """
    removed = [] if kept is None else [name for name in rows.column_names if name not in kept]
    if not len(rows):
        return None
    with _unmoved():
        try:
            return rows.remove_columns(removed)[0]
        except Exception as error:
            whole = _row_of(rows)
            if whole is None or not removed:
                return whole
            raise ValueError(
                f"the transform of {which} reads columns that remove_unused_columns=True takes away before it "
                f"({', '.join(removed)}): set remove_unused_columns=False."
            ) from error


def _row_of(rows: datasets.Dataset) -> Mapping[str, Any] | None:
    try:
        return rows[0]
    except Exception:  # it is the user's own fault, and is shown where the run meets it
        return None


@contextmanager
def _unmoved() -> Iterator[None]:
    """Leave the random states as they are: a run must not hang on a look at its data."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
