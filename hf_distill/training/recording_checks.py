"""What must hold of recordings: before the first step that features will be made, and in a batch which was bad.

Knows: data sets with recordings, what collators say that they read. Does not know: labels, tasks, features.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
from torch import nn
from transformers import AutoFeatureExtractor, SequenceFeatureExtractor

from hf_distill.augmentation.extractors import made_by
from hf_distill.augmentation.recordings import UNREADABLE, opened
from hf_distill.models.facts import Facts
from hf_distill.models.frames import RECORDINGS
from hf_distill.models.outputs import core_of
from hf_distill.tasks.processors import FILE
from hf_distill.teachers import Teacher
from hf_distill.training.data_checks import data_sets, is_transformed

DECODER = "torchcodec"
"""What ``datasets`` decodes recordings with."""
DECISIVE = (
    "kind", "sampling_rate", "do_normalize", "feature_size", "num_mel_bins", "stride", "n_fft", "hop_length", "mean",
    "std",
)  # fmt: skip
"""What decides on the features that a model is given."""


def check_recordings(
    model: nn.Module,
    teacher: Teacher,
    collator: Any,
    train: Any,
    evaluation: Any,
    kept: Callable[[], Collection[str] | None],
) -> None:
    """Refuse recordings of which nobody makes features, or that ``datasets`` cannot decode, and foreign transcripts.

    Args:
        model: the student; one that reads other things than recordings is not looked at.
        teacher: the teacher, which may have been made for other features than the collator gives it.
        collator: the data collator.
        train: the training set, or None.
        evaluation: the evaluation set, several by name, or None.
        kept: names the columns that Trainer leaves in a row; None: all of them.

    Raises:
        ValueError: in one sentence.
    """
    reads = getattr(core_of(model), "main_input_name", None)
    if reads not in RECORDINGS:
        return
    if (
        isinstance(ours := getattr(collator, "extractor", None), SequenceFeatureExtractor)
        and not collator.told_teacher
    ):
        for one in (teacher.members or {None: teacher}).values():
            _check_extractor(getattr(one, "facts", None), ours)
    for which, rows in data_sets(train, evaluation):
        if isinstance(rows, datasets.Dataset) and not is_transformed(rows):
            _check_rows(which, rows, reads, collator, kept)
        if hasattr(collator, "check_texts"):
            collator.check_texts(_texts(rows, collator.text_column), which)


def _check_extractor(facts: Facts | None, ours: Any) -> None:
    """Refuse a teacher that would be given features made for another model: its extractor lies beside its weights."""
    if facts is None or (theirs := _extractor_at(facts.name)) is None:
        return
    one, other = made_by(ours), made_by(theirs)
    differs = [name for name in DECISIVE if one.get(name) != other.get(name)]
    if differs:
        first = differs[0]
        raise ValueError(
            f"the teacher {facts.name} was made for recordings of {first}={other.get(first)}, the collator gives "
            f"{first}={one.get(first)}: pass SpeechCollator(processor, teacher_processor), which gives each its own; "
            "or, if it is meant so, the student's twice."
        )


def _extractor_at(name: str) -> Any:
    """The feature extractor beside a model; None where there is none, or none without asking the network again."""
    if Path(name).is_dir() and not (Path(name) / FILE).is_file():
        return None
    try:
        return AutoFeatureExtractor.from_pretrained(name, local_files_only=not Path(name).is_dir())
    except (OSError, ValueError, KeyError, ImportError):
        return None


def _check_rows(
    which: str, rows: datasets.Dataset, reads: str, collator: Any, kept: Callable[[], Collection[str] | None]
) -> None:
    held = recordings_of(rows)
    if not held or reads in rows.column_names:
        return
    known = getattr(collator, "columns", frozenset())
    if not set(held) & known:
        left = kept()
        if known or left is None or set(held) & set(left):
            return  # a collator of the user's own may read them
        raise ValueError(
            f"{which} has recordings under {held[0]!r}, of which nothing makes {reads}: pass "
            "data_collator=SpeechCollator(processor), or set remove_unused_columns=False for a collator of your own."
        )
    name = next(one for one in held if one in known)
    feature = rows.features[name]
    if isinstance(feature, datasets.Audio) and feature.decode and importlib.util.find_spec(DECODER) is None:
        raise ValueError(
            f"{which} has recordings under {name!r} that datasets would decode with {DECODER}, which is not "
            f"installed: let the collator decode them (dataset.cast_column({name!r}, datasets.Audio(decode=False)))."
        )


def recordings_of(rows: Any) -> list[str]:
    """Name the columns that hold recordings: ``datasets.Audio``, or their bytes and paths.

    Args:
        rows: a data set of any kind.

    Example:
        >>> recordings_of(datasets.Dataset.from_dict({"audio": [{"bytes": b"", "path": "a.wav"}], "label": [1]}))
        ['audio']
    """
    if not isinstance(rows, datasets.Dataset):
        return []
    stored = {"bytes", "path"}
    return [
        name
        for name, one in rows.features.items()
        if isinstance(one, datasets.Audio) or (isinstance(one, dict) and set(one) == stored)
    ]


def _texts(rows: Any, column: str) -> Collection[str | None]:
    """The transcripts, as far as they are there before a batch is made."""
    if isinstance(rows, datasets.Dataset):
        there = column in rows.column_names and not is_transformed(rows)
        return [one if isinstance(one, str) else None for one in rows[column][:]] if there else []
    listed = isinstance(rows, (list, tuple)) and all(isinstance(row, dict) for row in rows)
    return [row.get(column) for row in rows] if listed else []


@contextmanager
def naming_bad_recordings(rows: Any, which: str) -> Iterator[None]:
    """While batches are drawn, say which row of the data set has the recording that cannot be read.

    A collator knows the row of a batch. Only once something has failed are the recordings looked through.

    Args:
        rows: the data set that is read; only a ``datasets.Dataset`` with recordings is looked through.
        which: how to name it.

    Raises:
        ValueError: in one sentence, which names the first such row and its file.
    """
    try:
        yield
    except ValueError as error:
        if UNREADABLE in str(error):
            _raise_unreadable(rows, which, error)
        raise


def _raise_unreadable(rows: Any, which: str, error: Exception) -> None:
    for name in recordings_of(rows):
        column = rows.with_format(None).select_columns(name)
        if isinstance(column.features[name], datasets.Audio):
            column = column.cast_column(name, datasets.Audio(decode=False))
        for number, row in enumerate(column):
            try:
                opened(row[name], f"row {number} of {which}")
            except ValueError as told:
                raise ValueError(str(told)) from error
