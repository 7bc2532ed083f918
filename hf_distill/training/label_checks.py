"""Whether labels are what a task is supervised with: one sentence, instead of what torch says at some step.

Knows: which labels our own tasks take, rows, Arrow columns, batches. Does not know: trainers, how a loss is computed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import datasets
import pyarrow as pa
import pyarrow.compute as pc
from torch import Tensor
from transformers import (
    DataCollatorForMultipleChoice,
    DataCollatorForSeq2Seq,
    DataCollatorForTokenClassification,
    DataCollatorWithPadding,
    DefaultDataCollator,
    default_data_collator,
)

from hf_distill.tasks import TASKS, Task
from hf_distill.tasks.columns import choices_in

LABEL_COLUMNS = ("label", "label_ids")
"""Columns that the default collators rename to ``labels``."""

PASSING = (
    DataCollatorForMultipleChoice, DataCollatorForSeq2Seq, DataCollatorForTokenClassification, DataCollatorWithPadding,
    DefaultDataCollator,
)  # fmt: skip
"""Collators that hand labels on as they are; any other may make something else of them."""


class Wanted(NamedTuple):
    """What the labels of one row must be.

    Args:
        task: the name of the task's class.
        strict: everything is known of them; otherwise only that an integer is the number of a class.
        each: a list, one for each token.
        several: a list, one for each output of the student; None: the labels themselves say whether they are.
        decimal: numbers of any kind.
        classes: how many outputs the student has; None: that is no limit.
        bools: True and False become 1 and 0 on the way.
    """

    task: str
    strict: bool = True
    each: bool = False
    several: bool | None = False
    decimal: bool = False
    classes: int | None = None
    bools: bool = False


def wanted_of(task: Task, own_loss: bool = False) -> Wanted:
    """Say what labels a task takes.

    Args:
        task: how the student is read.
        own_loss: the user's own function computes the loss, of labels of its own kind.

    Example:
        >>> from hf_distill.tasks import SequenceClassification
        >>> fault(True, wanted_of(SequenceClassification(num_labels=2)))
        'the label True, which is no class number: make labels integers (dataset.cast_column)'
    """
    classes, problem = getattr(task, "num_labels", None), getattr(task, "problem_type", "")
    if not task.plain_labels:
        return Wanted(type(task).__name__, strict=False)
    if type(task) not in TASKS or task.own_loss or own_loss:
        return Wanted(type(task).__name__, strict=False, classes=classes if task.distributions else None)
    several = None if problem is None else problem.startswith("multi") or (not task.distributions and classes > 1)
    decimal = not task.distributions or several is True
    each = task.positions and task.label_names == ("labels",)  # a span has two positions, one in each column
    return Wanted(type(task).__name__, True, each, several, decimal, classes)


def fault(value: Any, wanted: Wanted) -> str:
    """Say what is wrong with a row's label, and what to do; empty where nothing is.

    Args:
        value: a number, a list, or whatever stands there.
        wanted: what it must be.

    Example:
        >>> fault(7, Wanted("SequenceClassification", classes=3))
        'label 7, the student has 3 classes (0 to 2, or -100 for no label): correct the label, or give the student \
more num_labels'
        >>> fault([0.0, 1.0], Wanted("SequenceClassification", several=None, classes=2))
        ''
    """
    value = value.tolist() if hasattr(value, "tolist") else value
    listed = isinstance(value, (list, tuple))
    if not wanted.strict:
        integers = (one for one in (value if listed else [value]) if type(one) is int)
        return next(filter(None, (_one(one, wanted) for one in integers)), "")
    if value is None or isinstance(value, str):
        return _one(value, wanted)
    if wanted.each:
        if not listed:
            return (
                f"the label {value!r}, {wanted.task} takes one for each token: give a list, with -100 for tokens "
                "without a label"
            )
        return next(filter(None, (_one(one, wanted) for one in value)), "")
    if wanted.several is None and listed and len(value) == wanted.classes:
        if not all(isinstance(one, float) for one in value):
            return f"the labels {_short(value)}: make them floats for several classes a row, or one integer a row"
        return ""
    if wanted.several:
        if not listed or len(value) != wanted.classes:
            return (
                f"{'the labels' if listed else 'the label'} {_short(value)}, the student has {wanted.classes} outputs "
                "with a number each: give every row a list of as many"
            )
        return next(filter(None, (_one(one, wanted) for one in value)), "")
    if listed and len(value) != 1:
        return (
            f"the labels {_short(value)}, the student is told one a row: give one number, or, for several classes a "
            'row, problem_type="multi_label_classification" and a list of a float for each class'
        )
    return _one(value[0] if listed else value, wanted)


def _one(value: Any, wanted: Wanted) -> str:
    value = value.item() if hasattr(value, "item") and getattr(value, "ndim", 0) == 0 else value
    if value is None:
        nothing = "NaN" if wanted.decimal and not wanted.several else "-100"
        return f"no label (None): write {nothing}, which is skipped, or leave the row out"
    if isinstance(value, str):
        if wanted.decimal:
            return f"the label {_short(value)}, a text: make it a number"
        return (
            f"the label {_short(value)}, a text: number the classes (dataset.class_encode_column), and give the "
            "student their names (id2label)"
        )
    if isinstance(value, bool):
        good = wanted.decimal or wanted.bools
        return (
            "" if good else f"the label {value}, which is no class number: make labels integers (dataset.cast_column)"
        )
    if isinstance(value, float):
        if wanted.decimal:
            return ""
        return (
            f"the label {value}, which is no class number: make labels integers (dataset.cast_column), or, to predict "
            "numbers, give the student num_labels=1"
        )
    if not isinstance(value, int):
        return f"{_short(value)} as label, which is no number: correct it"
    if wanted.decimal or wanted.classes is None or value == -100 or 0 <= value < wanted.classes:
        return ""
    if wanted.task == "MultipleChoice":
        last = wanted.classes - 1
        return (
            f"label {value}, there are {wanted.classes} texts (0 to {last}, or -100 for no label): correct the label"
        )
    return (
        f"label {value}, the student has {wanted.classes} classes (0 to {wanted.classes - 1}, or -100 for no label): "
        "correct the label, or give the student more num_labels"
    )


def check_labels(
    rows: Any,
    names: Iterable[str],
    collator: Any,
    wanted: Wanted,
    which: str = "the training set",
    needed: bool = True,
) -> None:
    """Refuse a data set without labels, or with one that the student cannot learn from.

    Only a ``datasets.Dataset`` and a list say what they hold without being asked for it; other data sets are met
    batch by batch, see ``check_batch``.

    Args:
        rows: the data set.
        names: the student's label arguments.
        collator: the data collator; one of the user's own may make labels itself.
        wanted: what labels must be.
        which: how to name the data set.
        needed: whether it must have labels.

    Raises:
        ValueError: in one sentence, which names the first wrong row.
    """
    listed = isinstance(rows, (list, tuple)) and len(rows) > 0 and all(isinstance(row, Mapping) for row in rows)
    if not (listed or isinstance(rows, datasets.Dataset)):
        return
    there, default = list(rows[0]) if listed else rows.column_names, collator is default_data_collator
    columns = [name for name in names if name in there] or [name for name in LABEL_COLUMNS if name in there][:1]
    if not columns and needed and not listed and (isinstance(collator, DataCollatorWithPadding) or default):
        raise ValueError(
            f"alpha < 1 trains on labels, {which} has the columns {there}: add a 'label' column, or set alpha=1 to "
            "learn from the teacher alone."
        )
    passing = default or type(collator) in PASSING
    if listed and not passing:
        return
    wanted = wanted if passing else wanted._replace(strict=False)
    for column in columns if len(rows) else ():
        bools = column == "label" and (default or type(collator) is DefaultDataCollator)
        if listed:  # a row without the column is the collator's affair
            told = _first((row.get(column, -100) for row in rows), wanted._replace(bools=bools))
        else:
            told = _first_in(rows, column, wanted._replace(bools=bools))
        if told:
            raise ValueError(f"row {told[0]} of {which} has {told[1]}.")


def _first(values: Iterable[Any], wanted: Wanted) -> tuple[int, str] | None:
    return next(((row, told) for row, value in enumerate(values) if (told := fault(value, wanted))), None)


def _first_in(rows: datasets.Dataset, column: str, wanted: Wanted) -> tuple[int, str] | None:
    """Look through a column at once, and at each of its values only where something is wrong."""
    kind = rows.data.schema.field(column).type
    inner = kind.value_type if pa.types.is_list(kind) or pa.types.is_large_list(kind) else None
    if wanted.classes is None and (wanted.each and inner is not None and pa.types.is_integer(inner)):
        return None  # the tokens of a corpus, which are many
    if not wanted.strict and (wanted.classes is None or not pa.types.is_integer(inner or kind)):
        return None
    values = rows.select_columns(column).with_format("arrow")[:][column].combine_chunks()
    if wanted.decimal and inner is None and rows.format["type"] in ("torch", "numpy"):
        values = values.drop_null()  # they become NaN
    flat = values if inner is None else values.flatten()
    if not (values.null_count or flat.null_count) and _right(values, flat, wanted):
        return None
    return _first(values.to_pylist(), wanted)


def _right(values: pa.Array, flat: pa.Array, wanted: Wanted) -> bool:
    """Whether nothing can be wrong, by types, lengths and the least and greatest number."""
    whole, listed = pa.types.is_integer(flat.type), flat is not values
    if wanted.strict and (wanted.several or (wanted.several is None and listed)):
        good = whole or pa.types.is_floating(flat.type) if wanted.several else pa.types.is_floating(flat.type)
        return listed and good and pc.all(pc.equal(pc.list_value_length(values), wanted.classes)).as_py() is not False
    if wanted.strict and wanted.each is not listed:
        return False
    if wanted.decimal:
        return whole or pa.types.is_floating(flat.type)
    if not whole or wanted.classes is None:
        return whole
    numbers = flat.to_numpy(zero_copy_only=False)
    return bool(((numbers == -100) | ((numbers >= 0) & (numbers < wanted.classes))).all())


def check_batch(batch: Mapping[str, Any], names: Iterable[str], wanted: Wanted) -> None:
    """Refuse a batch with labels that the student cannot learn from.

    Args:
        batch: as the collator made it.
        names: the student's label arguments.
        wanted: what labels must be.

    Raises:
        ValueError: in one sentence, which names the first wrong row.

    Example:
        >>> import torch
        >>> check_batch({"labels": torch.tensor([0.0, 1.0])}, ["labels"], Wanted("SequenceClassification", classes=3))
        Traceback (most recent call last):
        ...
        ValueError: row 0 of the batch has the label 0.0, which is no class number: make labels integers \
(dataset.cast_column), or, to predict numbers, give the student num_labels=1.
    """
    if wanted.task == "MultipleChoice" and (choices := choices_in(batch)) is not None:
        wanted = wanted._replace(classes=choices)
    for name in names if wanted.strict else ():
        labels = batch.get(name)
        if labels is None or (isinstance(labels, Tensor) and _right_batch(labels, wanted)):
            continue
        if told := _first(labels, wanted):
            raise ValueError(f"row {told[0]} of the batch has {told[1]}.")


def _right_batch(labels: Tensor, wanted: Wanted) -> bool:
    """Whether nothing can be wrong; a shape that only the task refuses is left to it."""
    whole = not (labels.is_floating_point() or labels.is_complex()) and str(labels.dtype) != "torch.bool"
    if wanted.each and labels.ndim != 2:
        return True
    if wanted.several is not False and labels.ndim > 1 and labels.shape[-1] == wanted.classes:
        return True
    if not wanted.each and (wanted.several or labels.numel() != len(labels)):
        return False
    if wanted.decimal:
        return True
    if not whole or wanted.classes is None:
        return whole
    return bool(((labels == -100) | ((labels >= 0) & (labels < wanted.classes))).all())


def _short(value: Any) -> str:
    told = repr(value)
    return told if len(told) <= 60 else f"{told[:57]}..."
