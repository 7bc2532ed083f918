"""Where a text recipe's rows come from: files, a Hub data set, or the embedded words.

Knows: columns, labels, files, and how to refuse bad ones in a sentence. Does not know: models or training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from chinese_words import load_words
from datasets import ClassLabel, Dataset, DatasetDict, concatenate_datasets, load_dataset

READERS = {".json": "json", ".jsonl": "json", ".csv": "csv", ".parquet": "parquet"}


@dataclass
class TextDataArguments:
    """Where the text comes from; with nothing given, the embedded Chinese words."""

    dataset_name: str | None = field(
        default=None, metadata={"help": "A data set on the Hub, or a local folder of one."}
    )
    dataset_config_name: str | None = field(default=None, metadata={"help": "Its configuration."})
    train_file: str | None = field(default=None, metadata={"help": "json, jsonl, jsonl.gz, csv or parquet."})
    validation_file: str | None = field(
        default=None, metadata={"help": "The same; default: 5 %% of the training rows."}
    )
    test_file: str | None = field(default=None, metadata={"help": "The same; default: the validation rows."})
    unlabeled_file: str | None = field(
        default=None, metadata={"help": "The same without labels: more rows for the teacher to speak about."}
    )
    text_column: str = field(default="text", metadata={"help": "The column with the text."})
    text_pair_column: str | None = field(default=None, metadata={"help": "A column with a second text."})
    label_column: str = field(default="label", metadata={"help": "The column with the class: a name or a number."})
    max_train_samples: int | None = field(
        default=None, metadata={"help": "Use this many training rows, drawn by seed."}
    )
    max_eval_samples: int | None = field(default=None, metadata={"help": "Use this many rows of the other splits."})

    @property
    def source(self) -> str:
        """How to name the data in a report: a Hub id, a file's name, or the embedded words."""
        return self.dataset_name or (Path(self.train_file).name if self.train_file else "jieba dictionary")


def load_text(data: TextDataArguments, seed: int, order: Mapping[str, int] | None = None) -> DatasetDict:
    """Load the splits, with the text under its own column and the class under ``label`` as a ``ClassLabel``.

    Args:
        data: where the rows come from.
        seed: of the draw, where fewer rows are asked for than there are.
        order: class name -> number, of a teacher; it is taken over if the rows have the same names.

    Returns:
        ``train``, ``validation``, ``test`` and, if a file was given, ``unlabeled``: each text once, none that is a
        row of another split, with -100 for a class; how many were left out is its ``info.description``.

    Raises:
        ValueError: a missing file or column, an empty or unreadable file, a label that no training row has.
    """
    if data.train_file:
        files = {"train": data.train_file, "validation": data.validation_file, "test": data.test_file}
        splits = DatasetDict({name: _read(path) for name, path in files.items() if path})
    elif data.dataset_name:
        splits = load_dataset(data.dataset_name, data.dataset_config_name)
    elif data.validation_file or data.test_file:
        raise ValueError("validation_file or test_file was given without train_file: name the training rows as well.")
    else:
        splits = load_words()
    if "train" not in splits:
        raise ValueError(f"{data.source} has the splits {list(splits)} and no 'train': name another data set.")
    if "validation" not in splits:
        cut = splits["train"].train_test_split(test_size=0.05, seed=seed)
        splits["train"], splits["validation"] = cut["train"], cut["test"]
    if "test" not in splits:
        splits["test"] = splits["validation"]
    splits = DatasetDict({name: splits[name] for name in ("train", "validation", "test")})
    for name, rows in splits.items():
        wanted = [data.text_column, data.label_column, *([data.text_pair_column] if data.text_pair_column else [])]
        if missing := [column for column in wanted if column not in rows.column_names]:
            raise ValueError(
                f"the {name} rows of {data.source} have the columns {rows.column_names}, {missing} was asked for: "
                "name them with --text_column, --text_pair_column and --label_column."
            )
        splits[name] = rows.select_columns(wanted).rename_columns(
            {data.label_column: "label"} if data.label_column != "label" else {}
        )
    splits = _number_labels(splits)
    names = splits["train"].features["label"].names
    if order is not None and sorted(order) == sorted(names) and order != {name: i for i, name in enumerate(names)}:
        splits = DatasetDict({n: rows.align_labels_with_mapping(dict(order), "label") for n, rows in splits.items()})
    held = {name: set(_texts(data, splits[name])) for name in ("validation", "test")}  # all, whatever is measured
    for name, limit in (
        ("train", data.max_train_samples),
        *((n, data.max_eval_samples) for n in ("validation", "test")),
    ):
        if limit is not None and limit < len(splits[name]):
            splits[name] = splits[name].shuffle(seed=seed).select(range(limit))
    if data.unlabeled_file:
        splits["unlabeled"] = _unlabeled(data, splits["train"], held)
    return splits


def with_unlabeled(splits: DatasetDict, alpha: float | None) -> DatasetDict:
    """Put the unlabelled rows behind the training rows, for a student that has a teacher.

    Args:
        splits: as ``load_text`` returns them, tokenised or not.
        alpha: the teacher's share of the loss.

    Raises:
        ValueError: there are unlabelled rows and nobody who speaks about them.
    """
    if "unlabeled" not in splits:
        return splits
    if alpha == 0:
        raise ValueError(
            "unlabeled_file was given with alpha=0, where no teacher speaks about its rows: set alpha above 0, or "
            "leave the file out."
        )
    return DatasetDict({**splits, "train": concatenate_datasets([splits["train"], splits["unlabeled"]])})


def texts_to_read(splits: DatasetDict, columns: Sequence[str]) -> list[str]:
    """Return the texts that a student will meet in training.

    Args:
        splits: as ``load_text`` returns them.
        columns: with texts.
    """
    found = [splits[name] for name in ("train", "unlabeled") if name in splits]
    return [text for rows in found for column in columns for text in rows[column]]


def described(splits: DatasetDict) -> str:
    """Say how many rows there are, and which were left out.

    Args:
        splits: as ``load_text`` returns them.
    """
    left_out = splits["unlabeled"].info.description if "unlabeled" in splits else ""
    return f"{', '.join(f'{len(rows):,} {name}' for name, rows in splits.items())} rows{left_out}"


def _texts(data: TextDataArguments, rows: Dataset) -> list[tuple[str, ...]]:
    columns = [data.text_column, *([data.text_pair_column] if data.text_pair_column else [])]
    return list(zip(*(rows[column] for column in columns), strict=True))


def _unlabeled(data: TextDataArguments, train: Dataset, held: Mapping[str, set]) -> Dataset:
    """Read the rows without a label, and leave out what is measured, and what is taught already."""
    rows = _read(data.unlabeled_file)
    wanted = [data.text_column, *([data.text_pair_column] if data.text_pair_column else [])]
    if missing := [column for column in wanted if column not in rows.column_names]:
        raise ValueError(
            f"the unlabeled rows of {data.unlabeled_file} have the columns {rows.column_names}, {missing} was asked "
            "for: name them with --text_column and --text_pair_column, the same for all files."
        )
    measured, seen, kept = held["validation"] | held["test"], set(_texts(data, train)), []
    texts = _texts(data, rows)
    for number, text in enumerate(texts):
        if text not in measured and text not in seen:
            kept.append(number)
            seen.add(text)
    if not kept:
        raise ValueError(
            f"{data.unlabeled_file} has {len(texts)} rows, all of which are rows of the other files: give others."
        )
    rows = rows.select_columns(wanted).select(kept)
    rows = rows.add_column("label", [-100] * len(kept)).cast_column("label", train.features["label"])
    leaking = sum(text in measured for text in texts)
    rows.info.description = (
        f"; of {len(texts):,} unlabeled rows {leaking:,} were left out that are validation or test rows too, and "
        f"{len(texts) - leaking - len(kept):,} that are training rows or occur twice"
    )
    return rows


def _read(path: str) -> Dataset:
    suffixes = [suffix for suffix in Path(path).suffixes if suffix != ".gz"]
    reader = READERS.get(suffixes[-1] if suffixes else "")
    if not Path(path).is_file():
        raise ValueError(f"rows were asked from {path}, there is no such file: check the path.")
    if reader is None:
        raise ValueError(f"{path} is not {', '.join(READERS)} (or .gz of these): convert it.")
    try:
        rows = load_dataset(reader, data_files=path, split="train")
    except Exception as error:  # each reader raises its own kinds; all mean the same to the user
        reason = str(error.__cause__ or error).strip().splitlines() or [type(error).__name__]
        raise ValueError(f"{path} could not be read as {reader} ({reason[0]}): correct or convert it.") from error
    if not len(rows):
        raise ValueError(f"{path} has no rows: give a file with data.")
    return rows


def _number_labels(splits: DatasetDict) -> DatasetDict:
    """Turn names or bare numbers into a ``ClassLabel`` that all splits share, in the training rows' order."""
    feature = splits["train"].features["label"]
    if not isinstance(feature, ClassLabel):
        values = splits["train"].unique("label")
        if not all(isinstance(value, (str, int)) and not isinstance(value, bool) for value in values):
            raise ValueError(
                f"the labels are {type(values[0]).__name__}s such as {values[0]!r}: give each row one class, as a "
                "name or a whole number."
            )
        numbers = all(isinstance(value, int) for value in values)
        names = [f"LABEL_{i}" for i in range(max(values) + 1)] if numbers else sorted(map(str, values))
        feature = ClassLabel(names=names)
    for name, rows in splits.items():
        labels = rows.with_format("numpy")["label"][:]
        if np.asarray(labels).dtype.kind in "iu":
            wrong = np.flatnonzero((labels < 0) | (labels >= feature.num_classes))
        else:
            wrong = np.flatnonzero(~np.isin(labels, feature.names))
        if len(wrong):
            raise ValueError(
                f"row {wrong[0]} of the {name} rows has label {labels[wrong[0]]}, the training rows have "
                f"{_few(feature.names)}: correct the label, or add training rows with it."
            )
        if rows.features["label"] != feature:
            splits[name] = rows.cast_column("label", feature)
    return splits


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (f", ... ({len(names)} in all)" if len(names) > 8 else "")
