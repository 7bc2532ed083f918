"""What must hold of texts before the first step: that a model reads them, whole and to their end.

Knows: data sets of tokens, collators, what models read. Does not know: labels, what is learned.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from torch import nn
from transformers import (
    DataCollatorForLanguageModeling,
    DataCollatorForSeq2Seq,
    DataCollatorForTokenClassification,
    DataCollatorWithPadding,
    default_data_collator,
)

from hf_distill.models.classes import reads_text, strangers_of
from hf_distill.models.context import Limits, limits_of
from hf_distill.models.outputs import core_of
from hf_distill.tasks import Task
from hf_distill.tasks.lengths import lengths_of
from hf_distill.teachers import Teacher

logger = logging.getLogger(__name__)

PLAIN = (
    DataCollatorForLanguageModeling, DataCollatorForSeq2Seq, DataCollatorForTokenClassification,
    DataCollatorWithPadding,
)  # fmt: skip
"""Collators that cut no row."""


def check_text(task: Task, model: nn.Module) -> None:
    """Refuse a task on texts for a model that reads none, which a user may have named.

    Args:
        task: how the model is read.
        model: the student.

    Raises:
        ValueError: in one sentence.
    """
    if task.of_text and not reads_text(model):
        raise ValueError(
            f"{type(task).__name__} reads a model of texts, {type(core_of(model)).__name__} reads "
            f"{', '.join(strangers_of(model))}: there is no task for it yet, write one (hf_distill.Task) or pass a "
            "model of texts."
        )


def check_texts(task: Task, student: nn.Module, tokenizer: Any, teacher: Teacher, dataset: Any, collator: Any) -> None:
    """Refuse a training set with a row that a model cannot read, and tell where the ends of texts are lost.

    Args:
        task: how the models are read.
        student: the student.
        tokenizer: the run's tokenizer or processor, or None.
        teacher: the teacher, prepared.
        dataset: the training set.
        collator: the data collator.

    Raises:
        ValueError: in one sentence.
    """
    tell_lost_ends(task, collator)
    members = teacher.uncached.members.values() or [teacher.uncached]
    theirs = [one.limits for one in members if one.limits is not None]
    check_lengths(dataset, collator, [limits_of(student, tokenizer), *theirs])


def check_lengths(dataset: Any, collator: Any, limits: Sequence[Limits]) -> None:
    """Refuse a training set with a row that is longer than a model reads, before the step that would meet it.

    Args:
        dataset: the training set; only a ``datasets.Dataset`` of tokens says how long its rows are.
        collator: the data collator; one of the user's own may cut rows.
        limits: what the student can read, and then what each teacher can, which may have tokens of its own.

    Raises:
        ValueError: in one sentence.
    """
    plain = type(collator) in PLAIN or collator is default_data_collator
    if not plain or (lengths := lengths_of(dataset)) is None:
        return
    row, own = int(lengths.argmax()), any(name.startswith("teacher_") for name in dataset.column_names)
    for one in limits[: 1 if own else None]:
        if one.table and lengths[row] > one.room:
            raise ValueError(
                f"row {row} of the training set is {lengths[row]} tokens long, {one.who} was made for "
                f"{one.room} positions: {one.longer}."
            )


def tell_lost_ends(task: Task, collator: Any) -> None:
    """Tell that the token which ends a text is lost where it is the padding too, as in many recipes.

    Args:
        task: how the models are read.
        collator: the data collator; transformers' one for language models labels every padding token -100.
    """
    tokenizer = getattr(collator, "tokenizer", None)
    if not (task.shifts_labels and isinstance(collator, DataCollatorForLanguageModeling)) or collator.mlm:
        return
    if tokenizer.pad_token_id is not None and tokenizer.pad_token_id == tokenizer.eos_token_id:
        logger.warning(
            "%r both ends and pads texts, and DataCollatorForLanguageModeling gives padding no label: the end of a "
            "text is neither supervised nor taught, so the student will not stop. Give the tokenizer a pad_token of "
            "its own, or use DataCollatorForSeq2Seq with labels.",
            tokenizer.eos_token,
        )
