"""The classes of two models: that they are the same ones, and in which order the teacher has them.

Knows: class names, positions of classes. Does not know: what is classified (a sample, a token), losses.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch

from hf_distill.models.facts import Facts
from hf_distill.signals import DenseLogits, Logits


def check_order(order: Sequence[int] | None, classes: int) -> list[int] | None:
    """Refuse an order that does not name each class once.

    Args:
        order: for each class of the student, its position among the teacher's; None: the same order.
        classes: how many there are.

    Returns:
        The order as a list.

    Raises:
        ValueError: in one sentence.

    Example:
        >>> check_order((1, 0), 2)
        [1, 0]
    """
    if order is not None and sorted(order) != list(range(classes)):
        raise ValueError(
            f"teacher_labels={list(order)} does not name each of the {classes} classes once: give for each class of "
            "the student its position among the teacher's."
        )
    return None if order is None else list(order)


def check_names(task: str, classes: int, order: Sequence[int] | None, student: Facts, teacher: Facts) -> None:
    """Refuse other class counts and other class names.

    Args:
        task: the name of the task's class, for what to do.
        classes: how many the student has.
        order: as the user gave it; names then say nothing.
        student: what is known of the student.
        teacher: what is known of the teacher.

    Raises:
        ValueError: in one sentence, what differs and what to do.

    Example:
        >>> named = Facts("big", labels=("good", "bad"))
        >>> check_names("TokenClassification", 2, None, Facts(labels=("bad", "good")), named)
        Traceback (most recent call last):
        ...
        ValueError: the teacher big orders its labels [good, bad], the student [bad, good]: pass \
task=TokenClassification(num_labels=2, teacher_labels=[1, 0]), or give the student the teacher's id2label and label2id.
    """
    if teacher.labels is None:
        return
    ours, theirs = student.labels or tuple(f"LABEL_{i}" for i in range(classes)), teacher.labels
    if len(ours) != len(theirs):
        raise ValueError(
            f"the teacher {teacher.name} has {len(theirs)} labels, the student has {len(ours)}: give both the same "
            "num_labels."
        )
    if order is not None or ours == theirs or any(map(_is_generic, (ours, theirs))):
        return
    if sorted(ours) != sorted(theirs):
        raise ValueError(
            f"the teacher {teacher.name} names its labels {_short(theirs)}, the student {_short(ours)}: give both the "
            "same id2label, in the order of your data set."
        )
    raise ValueError(
        f"the teacher {teacher.name} orders its labels {_short(theirs)}, the student {_short(ours)}: pass "
        f"task={task}(num_labels={len(ours)}, teacher_labels={[theirs.index(name) for name in ours]}), or give the "
        "student the teacher's id2label and label2id."
    )


def in_order(logits: Logits, order: Sequence[int], axis: int) -> DenseLogits:
    """Put the teacher's classes into the student's order.

    Args:
        logits: the teacher's.
        order: for each class of the student, its position among the teacher's.
        axis: where the classes are.

    Returns:
        The same, in the other order.

    Raises:
        ValueError: the teacher keeps a few ids of each row.

    Example:
        >>> in_order(DenseLogits(torch.tensor([[1.0, 2.0]])), [1, 0], axis=-1).tensor
        tensor([[2., 1.]])
    """
    if not hasattr(logits, "tensor"):
        raise ValueError(
            f"teacher_labels={list(order)} was given, the teacher keeps a few ids of each row, which cannot be put "
            "into another order: keep whole logits (top=0)."
        )
    return DenseLogits(logits.tensor.index_select(axis, torch.tensor(order, device=logits.tensor.device)))


def _is_generic(labels: Sequence[str]) -> bool:
    """Whether nobody named the labels: transformers then calls them LABEL_0, LABEL_1, ..."""
    return all(re.fullmatch(r"LABEL_\d+", label) for label in labels)


def _short(labels: Sequence[str]) -> str:
    return "[" + ", ".join(labels[:6]) + (", ...]" if len(labels) > 6 else "]")
