"""What a run's data sets must hold before the first step.

Knows: a trainer's data sets, transforms. Does not know: what is right about a label, models, losses.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import datasets
import numpy as np
import torch

from hf_distill.training.label_checks import check_labels, wanted_of

if TYPE_CHECKING:
    from hf_distill.trainer import DistillationMixin


def check_data(trainer: DistillationMixin) -> None:
    """Refuse data sets that this run cannot learn from, or be evaluated on.

    Args:
        trainer: the trainer, with its task and teacher.

    Raises:
        ValueError: in one sentence; see ``first_transformed`` and ``check_labels``.
    """
    wanted = wanted_of(trainer.task, trainer.compute_loss_func is not None)
    for which, rows in _data_sets(trainer):
        if is_transformed(rows):
            row = first_transformed(trainer, rows, which)
            rows = [] if row is None else [row]  # what the others become is seen batch by batch
        if trainer.alpha < 1:
            check_labels(rows, trainer.label_names, trainer.data_collator, wanted, which, which == TRAINING)


TRAINING = "the training set"


def _data_sets(trainer: DistillationMixin) -> Iterator[tuple[str, Any]]:
    if trainer.train_dataset is not None:
        yield TRAINING, trainer.train_dataset
    found = trainer.eval_dataset
    for name, rows in found.items() if isinstance(found, Mapping) else [("", found)]:
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


def first_transformed(trainer: DistillationMixin, rows: datasets.Dataset, which: str) -> Mapping[str, Any] | None:
    """Make the first row as the run will make it; nobody's random numbers move.

    Trainer takes the columns that the model does not read out of the table, and a transform then no longer finds them.

    Args:
        trainer: the trainer.
        rows: with a transform.
        which: how to name them.

    Returns:
        The row; None where there is none, or where the transform fails with all columns too.

    Raises:
        ValueError: it fails because columns were taken away.
    """
    removed: list[str] = []
    if trainer.args.remove_unused_columns:
        trainer._set_signature_columns_if_needed()
        removed = [name for name in rows.column_names if name not in trainer._signature_columns]
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
