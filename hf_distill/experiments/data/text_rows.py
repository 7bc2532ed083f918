"""Rows with texts: a CSV file whose cells are texts, and rows without one, which are left out and counted.

Knows: files, columns. Does not know: what the texts are for, tokenizers, labels.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as arrow_csv
from datasets import Dataset, DatasetDict, LargeList, List, Value, load_dataset, load_dataset_builder
from datasets.packaged_modules.csv.csv import CsvConfig

NUMBERS = ("int", "uint", "float", "bool", "decimal")
"""How the names of types begin whose values are written as texts where a text was asked for."""


def read_csv(path: str) -> Dataset:
    r"""Read a CSV file as it stands: every cell is a text, an empty one is None.

    Readers that guess take "NA", "null" and "None" for missing values, "007" for the number 7, and a column for
    numbers in one file and for texts in the next.

    Args:
        path: a file with a header, in UTF-8, or ``.gz`` of one.

    Returns:
        Its rows.

    Raises:
        ValueError: a row with more or fewer cells than the header, or a name that is there twice.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile("w", suffix=".csv") as file:
        ...     _ = file.write("text,label\nNA,007\n,x\n")
        ...     file.flush()
        ...     read_csv(file.name)[:]
        {'text': ['NA', None], 'label': ['007', 'x']}
    """
    with pa.input_stream(path, compression="detect") as file:
        names = next(csv.reader(io.TextIOWrapper(file, encoding="utf-8-sig", newline="")), [])
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"the header has {twice[0]!r} twice")
    texts = dict.fromkeys(names, pa.string())
    with pa.input_stream(path, compression="detect") as file:
        found = arrow_csv.read_csv(
            file,
            arrow_csv.ReadOptions(use_threads=False),  # with more, an error does not say which row it is
            arrow_csv.ParseOptions(newlines_in_values=True),
            arrow_csv.ConvertOptions(column_types=texts, strings_can_be_null=True, null_values=[""]),
        )
    return Dataset(found)


def load_named(name: str, config: str | None = None, split: str | None = None) -> Dataset | DatasetDict:
    """Load a data set of the Hub or of a folder; "NA", "null" and "None" in a folder's CSV files are texts.

    Args:
        name: an id on the Hub, or a folder.
        config: its configuration.
        split: which one; None: all.
    """
    cells = {}
    # Of the Hub's the cache of an earlier run is used, which is found by what was asked.
    if Path(name).exists() and isinstance(load_dataset_builder(name, config).config, CsvConfig):
        cells = {"keep_default_na": False, "na_values": [""]}
    return load_dataset(name, config, split=split, **cells)


def with_texts(splits: Mapping[str, Dataset], columns: Sequence[str], source: str) -> tuple[dict[str, Dataset], str]:
    """Keep the rows that have a text in each of some columns; a number becomes the text of it.

    Args:
        splits: name -> rows, all with these columns.
        columns: which are to hold a text.
        source: how to name the data in a message.

    Returns:
        The rows, and in words how many were left out and which is the first of them, counted from 0; empty where
        none was.

    Raises:
        ValueError: a column holds lists or mappings, or no row is left.

    Example:
        >>> rows = Dataset.from_dict({"text": ["a", None, "b"], "label": [0, 1, 0]})
        >>> kept, said = with_texts({"train": rows}, ["text"], "reviews")
        >>> kept["train"]["text"][:], said
        (['a', 'b'], '1 of 3 train rows has no text and is left out (row 1)')
    """
    kept, said = {}, []
    for name, rows in splits.items():
        missing = np.zeros(len(rows), dtype=bool)
        rows = as_texts(rows, columns, f"the {name} rows of {source}")
        for column in columns:
            missing |= pc.is_null(_arrow(rows, column)).to_numpy(zero_copy_only=False)
        if missing.all() and len(rows):
            raise ValueError(
                f"none of the {len(rows)} {name} rows of {source} has a text in {', '.join(columns)}: give rows with "
                "texts, or name other columns."
            )
        if count := int(missing.sum()):
            first, many = int(missing.argmax()), count > 1
            said.append(
                f"{count:,} of {len(rows):,} {name} rows {'have' if many else 'has'} no text and "
                f"{'are' if many else 'is'} left out ({'the first is ' if many else ''}row {first})"
            )
            rows = rows.select(np.flatnonzero(~missing))
        kept[name] = rows
    return kept, "; ".join(said)


def as_texts(rows: Dataset, columns: Sequence[str], whose: str) -> Dataset:
    """Write the numbers of some columns as texts, and refuse columns of something else.

    Args:
        rows: with these columns.
        columns: which are to hold a text or None.
        whose: how to name the rows in a message.

    Returns:
        The same rows.

    Raises:
        ValueError: a column holds lists or mappings.

    Example:
        >>> as_texts(Dataset.from_dict({"text": [4.5, None]}), ["text"], "the rows")["text"][:]
        ['4.5', None]
    """
    for column in columns:
        feature = rows.features[column]
        kind = feature.dtype if isinstance(feature, Value) else ""
        if kind in ("string", "large_string", "string_view"):
            continue
        if kind == "null" or kind.startswith(NUMBERS):
            rows = rows.cast_column(column, Value("string"))
            continue
        strange = ValueError(
            f"{whose} have no text in {column!r} but {_named(feature)}: give each row one text, or name another "
            "column."
        )
        if kind or isinstance(feature, (List, LargeList, dict, list)):
            raise strange
        values = list(map(partial(_written, error=strange), rows[column][:]))  # numbers and texts, mixed
        rows = replaced(rows, column, values, Value("string"))
    return rows


def replaced(rows: Dataset, column: str, values: Sequence[Any], feature: Any) -> Dataset:
    """Put other values into a column, which comes last then.

    Args:
        rows: with this column.
        column: which one.
        values: as many as there are rows.
        feature: of what type they are.
    """
    new = f"{column} new"
    added = rows.add_column(new, pa.array(values, feature.pa_type), feature=feature)
    return added.remove_columns(column).rename_column(new, column)


def _written(value: Any, error: ValueError) -> str | None:
    if not isinstance(value, (str, int, float, type(None))):
        raise error
    return value if isinstance(value, (str, type(None))) else str(value)


def _named(feature: Any) -> str:
    if isinstance(feature, (Value, dict)):
        return f"values of the type {feature.dtype}" if isinstance(feature, Value) else "mappings"
    return "lists" if isinstance(feature, (List, LargeList, list)) else "values of several kinds"


def _arrow(rows: Dataset, column: str) -> pa.ChunkedArray:
    return rows.select_columns(column).with_format("arrow")[:][column]
