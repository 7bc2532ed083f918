"""Texts with a class each: the columns that hold them, and further texts without a class.

Knows: columns, labels, and how to refuse bad ones in a sentence. Does not know: models or training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from datasets import Dataset, DatasetDict, concatenate_datasets

from hf_distill.experiments.data.chinese_words import load_words
from hf_distill.experiments.data.class_labels import number_labels
from hf_distill.experiments.data.files import DataArguments, Splits, check_columns, cut, limited, read_files, read_rows
from hf_distill.experiments.data.text_rows import with_texts


@dataclass
class TextDataArguments(DataArguments):
    """Where the text comes from; with nothing given, the embedded Chinese words."""

    embedded: ClassVar[str] = "jieba dictionary"

    unlabeled_file: str | None = field(
        default=None, metadata={"help": "The same without labels: more rows for the teacher to speak about."}
    )
    text_column: str = field(default="text", metadata={"help": "The column with the text."})
    text_pair_column: str | None = field(default=None, metadata={"help": "A column with a second text."})
    label_column: str = field(default="label", metadata={"help": "The column with the class: a name or a number."})

    @property
    def text_columns(self) -> list[str]:
        """The columns with texts, one or two."""
        return [self.text_column, *([self.text_pair_column] if self.text_pair_column else [])]


def load_text(data: TextDataArguments, seed: int, order: Mapping[str, int] | None = None) -> Splits:
    """Load the splits, with the text under its own column and the class under ``label`` as a ``ClassLabel``.

    Args:
        data: where the rows come from.
        seed: of the draw, where fewer rows are asked for than there are.
        order: class name -> number, of a teacher; it is taken over if the rows have the same names.

    Returns:
        ``train``, ``validation``, ``test`` and, if a file was given, ``unlabeled``: each text once, none that is a
        row of another split, with -100 for a class; and what was left out, in words.

    Raises:
        ValueError: a missing file or column, an empty or unreadable file, a label that no training row has.
    """
    splits, columns = read_files(data, load_words), data.text_columns
    wanted = [data.text_column, data.label_column, *columns[1:]]
    check_columns(data, splits, wanted, "--text_column, --text_pair_column and --label_column")
    for name, rows in splits.items():
        splits[name] = rows.select_columns(wanted).rename_columns(
            {data.label_column: "label"} if data.label_column != "label" else {}
        )
    # Before rows are cut off or left out, so that a message counts them as the file does.
    splits = number_labels(splits, order, data.cells)
    splits, empty = with_texts(splits, columns, data.source)
    splits = cut(splits, seed)
    held = {name: set(_texts(data, splits[name])) for name in ("validation", "test")}  # all, whatever is measured
    splits, left_out = limited(data, splits, seed), [empty] if empty else []
    if data.unlabeled_file:
        splits["unlabeled"], said = _unlabeled(data, splits["train"], held)
        left_out += said
    return Splits(splits, "; ".join(left_out))


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


def _texts(data: TextDataArguments, rows: Dataset) -> list[tuple[str, ...]]:
    return list(zip(*(rows[column] for column in data.text_columns), strict=True))


def _unlabeled(data: TextDataArguments, train: Dataset, held: Mapping[str, set]) -> tuple[Dataset, list[str]]:
    """Read the rows without a label, and leave out what is measured, and what is taught already."""
    rows, wanted = read_rows(data.unlabeled_file), data.text_columns
    if missing := [column for column in wanted if column not in rows.column_names]:
        raise ValueError(
            f"the unlabeled rows of {data.unlabeled_file} have the columns {rows.column_names}, {missing} was asked "
            "for: name them with --text_column and --text_pair_column, the same for all files."
        )
    found, empty = with_texts({"unlabeled": rows.select_columns(wanted)}, wanted, data.unlabeled_file)
    rows = found["unlabeled"]
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
    rows = rows.select(kept)
    rows = rows.add_column("label", [-100] * len(kept)).cast_column("label", train.features["label"])
    leaking = sum(text in measured for text in texts)
    told = (
        f"of {len(texts):,} unlabeled rows {leaking:,} were left out that are validation or test rows too, and "
        f"{len(texts) - leaking - len(kept):,} that are training rows or occur twice"
    )
    return rows, [*([empty] if empty else []), told]
