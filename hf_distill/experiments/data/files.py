"""Where any recipe's rows come from: files, a Hub data set, or what the recipe brings with it.

Knows: files, splits, how to refuse bad ones in a sentence. Does not know: what the columns mean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from datasets import Dataset, DatasetDict, load_dataset

from hf_distill.experiments.data.text_rows import load_named, read_csv, with_texts

READERS = {".json": "json", ".jsonl": "json", ".csv": "csv", ".parquet": "parquet"}


FEW_ROWS, FEW_LABELS = 200, 20
"""What a quick run takes of few rows, and of few labels."""


@dataclass
class DataArguments:
    """Where the rows come from; with nothing given, what the recipe brings with it."""

    embedded: ClassVar[str] = ""
    """How to name, in a report, what the recipe brings with it."""
    tested: ClassVar[str] = "test"
    """The rows that models are measured on: ``test``, or where there are none ``validation``; reading finds out."""
    quick: ClassVar[bool] = False
    """Whether a tenth of the rows is enough; the settings of the training say so."""

    recipe: str | None = field(
        default=None, metadata={"help": "In a file: the recipe that its settings are for, such as bert_chinese."}
    )
    dataset_name: str | None = field(
        default=None, metadata={"help": "A data set on the Hub, or a local folder of one."}
    )
    dataset_config_name: str | None = field(default=None, metadata={"help": "Its configuration."})
    train_file: str | None = field(default=None, metadata={"help": "json, jsonl, jsonl.gz, csv or parquet."})
    validation_file: str | None = field(
        default=None, metadata={"help": "The same; default: 5 %% of the training rows."}
    )
    test_file: str | None = field(default=None, metadata={"help": "The same; default: the validation rows."})
    max_train_samples: int | None = field(
        default=None, metadata={"help": "Use this many training rows, drawn by seed."}
    )
    max_eval_samples: int | None = field(default=None, metadata={"help": "Use this many rows of the other splits."})

    @property
    def source(self) -> str:
        """How to name the data in a report: a Hub id, a file's name, or what the recipe brings with it."""
        if self.on_the_hub or not (named := self.dataset_name or self.train_file):
            return self.dataset_name or self.embedded
        return Path(named).name  # a card says nothing about the machine

    @property
    def measured(self) -> dict[str, str]:
        """For a report: the ``split`` that models are measured on, and the file or data set that it is of."""
        file = self.train_file and (self.test_file or self.validation_file)
        return {"split": self.tested, "measured_on": Path(file).name if file else self.source}

    @property
    def cells(self) -> list[str]:
        """The splits whose values are cells of a CSV file, texts all of them."""
        files = {"train": self.train_file, "validation": self.validation_file, "test": self.test_file}
        return [name for name, path in files.items() if path and suffix_of(path) == ".csv"]

    @property
    def on_the_hub(self) -> list[str]:
        """The data set's Hub id, for the card; empty where the rows are files or the recipe's own."""
        return [self.dataset_name] if self.dataset_name and not Path(self.dataset_name).exists() else []


class Splits(DatasetDict):
    """Splits of rows, and what was left out of them.

    Args:
        splits: name -> rows.
        left_out: in words; empty where nothing was.
    """

    def __init__(self, splits: Mapping[str, Dataset], left_out: str = "") -> None:
        super().__init__(splits)
        self.left_out = left_out


Own = Mapping[str, Callable[[str], Dataset]]
"""How a recipe reads formats of its own: suffix -> reader of a path."""


def read_splits(
    data: DataArguments, seed: int, embedded: Callable[[], DatasetDict], own: Own | None = None
) -> DatasetDict:
    """Read the splits, and cut off of the training rows what is missing.

    Args:
        data: where the rows come from.
        seed: of the cut.
        embedded: makes the splits where nothing is given.
        own: readers of further formats.

    Returns:
        ``train``, ``validation`` and ``test``, with the columns that they have.

    Raises:
        ValueError: a missing file, an empty or unreadable one, no training rows.
    """
    return cut(read_files(data, embedded, own), seed)


def read_files(data: DataArguments, embedded: Callable[[], DatasetDict], own: Own | None = None) -> DatasetDict:
    """Read the splits that there are.

    Args:
        data: where the rows come from.
        embedded: makes the splits where nothing is given.
        own: readers of further formats.

    Returns:
        ``train`` and, where they are given, ``validation`` and ``test``, with the columns that they have.

    Raises:
        ValueError: a missing file, an empty or unreadable one, no training rows.
    """
    if data.train_file:
        files = {"train": data.train_file, "validation": data.validation_file, "test": data.test_file}
        splits = DatasetDict({name: read_rows(path, own) for name, path in files.items() if path})
    elif data.dataset_name:
        splits = load_named(data.dataset_name, data.dataset_config_name)
    elif data.validation_file or data.test_file:
        raise ValueError("validation_file or test_file was given without train_file: name the training rows as well.")
    else:
        splits = embedded()
    if "train" not in splits:
        raise ValueError(f"{data.source} has the splits {list(splits)} and no 'train': name another data set.")
    data.tested = "test" if "test" in splits else "validation"
    return DatasetDict({name: splits[name] for name in ("train", "validation", "test") if name in splits})


def read_texts(
    data: DataArguments, seed: int, embedded: Callable[[], DatasetDict], columns: Sequence[str], flags: str
) -> Splits:
    """Read as many rows with texts as were asked for.

    Args:
        data: where the rows come from, and how many.
        seed: of the cut and of the draw.
        embedded: makes the splits where nothing is given.
        columns: with a text in each row; a row without one is left out.
        flags: the flags that name the columns.

    Returns:
        ``train``, ``validation`` and ``test``, with the columns that they have, and what was left out.

    Raises:
        ValueError: a missing file or column, an unreadable file, a column of something else.
    """
    splits = read_files(data, embedded)
    check_columns(data, splits, columns, flags)
    splits, left_out = with_texts(splits, columns, data.source)
    return Splits(limited(data, cut(splits, seed), seed), left_out)


def cut(splits: Mapping[str, Dataset], seed: int) -> DatasetDict:
    """Cut off of the training rows what is missing.

    Args:
        splits: as ``read_files`` returns them.
        seed: of the cut.

    Returns:
        ``train``, ``validation`` and ``test``; without rows of their own the latter are the validation rows.
    """
    splits = dict(splits)
    if "validation" not in splits:
        both = splits["train"].train_test_split(test_size=0.05, seed=seed)
        splits["train"], splits["validation"] = both["train"], both["test"]
    if "test" not in splits:
        splits["test"] = splits["validation"]
    return DatasetDict({name: splits[name] for name in ("train", "validation", "test")})


def limited(data: DataArguments, splits: DatasetDict, seed: int) -> DatasetDict:
    """Draw as many rows as were asked for, or a tenth of those for a quick run.

    Args:
        data: says how many.
        splits: as ``read_splits`` returns them.
        seed: of the draw.

    Raises:
        ValueError: less than one row was asked for.
    """
    for name in ("max_train_samples", "max_eval_samples"):
        if (asked := getattr(data, name)) is not None and asked < 1:
            raise ValueError(f"{name}={asked} was given: give 1 or more, or leave it out to take all rows.")
    limits = {"train": data.max_train_samples, "validation": data.max_eval_samples, "test": data.max_eval_samples}
    if data.quick:
        limits = {name: tenth(min(len(splits[name]), limit or len(splits[name]))) for name, limit in limits.items()}
        if labeled := getattr(data, "labeled_samples", None):
            data.labeled_samples = min(labeled, tenth(labeled, FEW_LABELS))
    drawn = {
        n: rows.shuffle(seed=seed).select(range(limits[n])) for n, rows in splits.items() if _above(rows, limits[n])
    }
    return DatasetDict({**splits, **drawn})


def tenth(rows: int, least: int = FEW_ROWS) -> int:
    """Count the rows of a quick run.

    Args:
        rows: how many there are.
        least: so many are taken even of few.

    Example:
        >>> tenth(120_000), tenth(1_300)
        (12000, 200)
    """
    return max(least, rows // 10)


def read_rows(path: str, own: Own | None = None) -> Dataset:
    """Read a file of rows.

    Args:
        path: json, jsonl, csv or parquet, or ``.gz`` of these.
        own: readers of further formats.

    Raises:
        ValueError: in one sentence, what is wrong with it.
    """
    suffix, own = suffix_of(path), own or {}
    if not Path(path).is_file():
        raise ValueError(f"rows were asked from {path}, there is no such file: check the path.")
    if suffix not in READERS and suffix not in own:
        raise ValueError(f"{path} is not {', '.join([*READERS, *own])} (or .gz of these): convert it.")
    own = {".csv": read_csv, **own}
    try:
        rows = own[suffix](path) if suffix in own else load_dataset(READERS[suffix], data_files=path, split="train")
    except Exception as error:  # each reader raises its own kinds; all mean the same to the user
        reason = str(error.__cause__ or error).strip().splitlines() or [type(error).__name__]
        kind = READERS.get(suffix, suffix[1:])
        raise ValueError(f"{path} could not be read as {kind} ({reason[0]}): correct or convert it.") from error
    if not len(rows):
        raise ValueError(f"{path} has no rows: give a file with data.")
    return rows


def suffix_of(path: str) -> str:
    """Say which kind of file it is, packed or not.

    Example:
        >>> suffix_of("my.rows.csv.gz"), suffix_of("rows")
        ('.csv', '')
    """
    suffixes = [suffix for suffix in Path(path).suffixes if suffix != ".gz"]
    return suffixes[-1] if suffixes else ""


def check_columns(data: DataArguments, splits: DatasetDict, wanted: Sequence[str], flags: str) -> None:
    """Refuse rows that lack a column.

    Args:
        data: where they come from.
        splits: the rows.
        wanted: the columns.
        flags: the flags that name them.

    Raises:
        ValueError: in one sentence.
    """
    for name, rows in splits.items():
        if missing := [column for column in wanted if column not in rows.column_names]:
            raise ValueError(
                f"the {name} rows of {data.source} have the columns {rows.column_names}, {missing} was asked for: "
                f"name them with {flags}."
            )


def texts_to_read(splits: DatasetDict, columns: Sequence[str]) -> list[str]:
    """Return the texts that a student will meet in training.

    Args:
        splits: as they were read.
        columns: with texts.
    """
    found = [splits[name] for name in ("train", "unlabeled") if name in splits]
    return [text for rows in found for column in columns for text in rows[column][:]]


def described(splits: DatasetDict, tested: str = "test") -> str:
    """Say how many rows there are, and which were left out.

    Args:
        splits: as they were read.
        tested: which of them models are measured on.
    """
    left_out = getattr(splits, "left_out", "")
    own = {name: rows for name, rows in splits.items() if name != "test" or tested == "test"}
    return f"{', '.join(f'{len(rows):,} {name}' for name, rows in own.items())} rows{left_out and '; '}{left_out}"


def few(names: Sequence[str]) -> str:
    """Name the first of some names, and say how many there are.

    Args:
        names: all.
    """
    return ", ".join(names[:8]) + (f", ... ({len(names)} in all)" if len(names) > 8 else "")


def _above(rows: Dataset, limit: int | None) -> bool:
    return limit is not None and limit < len(rows)
