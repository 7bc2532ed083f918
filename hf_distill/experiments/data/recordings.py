"""Recordings with a class or a transcript each: folders, files with a column of recordings or of their paths.

Knows: columns, labels, speakers, and how to refuse bad ones in a sentence. Does not know: feature extractors,
tokenizers, models, training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from datasets import Audio, Dataset, DatasetDict, Value, concatenate_datasets

from hf_distill.augmentation.recordings import seconds_of
from hf_distill.augmentation.speech_collator import LENGTH
from hf_distill.experiments.data.class_labels import number_labels
from hf_distill.experiments.data.few_labels import few_labels
from hf_distill.experiments.data.files import DataArguments, Splits, check_columns, cut, few, limited, read_files
from hf_distill.experiments.data.text_rows import as_texts

AUDIO, LABEL, TEXT, SPEAKER = "audio", "label", "text", "speaker"
STORED = {"bytes": Value("binary"), "path": Value("string")}
"""How a recording is held, as ``Audio(decode=False)`` holds it: ``Audio`` itself writes no row without torchcodec."""
SUFFIXES = (
    ".aif", ".aifc", ".aiff", ".au", ".caf", ".flac", ".m4a", ".mp3", ".mp4", ".oga", ".ogg", ".opus", ".rf64", ".snd",
    ".w64", ".wav", ".wma",
)  # fmt: skip
"""How the names of recordings end, also of kinds that soundfile refuses: then that is told."""
FRAMES = 100
"""Of 10 ms in a second, in which the column ``length`` counts."""


@dataclass
class RecordingDataArguments(DataArguments):
    """Where the recordings come from; none come with a package, so they have to be named."""

    train_file: str | None = field(
        default=None,
        metadata={
            "help": "Parquet with a column of recordings, csv or jsonl with a column of their paths, or a folder with "
            "one folder a class."
        },
    )
    audio_column: str = field(default=AUDIO, metadata={"help": "The column with the recording, or its path."})
    label_column: str = field(default=LABEL, metadata={"help": "The column with the class: a name or a number."})
    text_column: str = field(default=TEXT, metadata={"help": "The column with the transcript."})
    speaker_column: str | None = field(
        default=None, metadata={"help": "The column that says who speaks, for --held_out_speakers."}
    )
    held_out_speakers: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Nothing of these is trained on: of all rows, in whichever file, those of the first half of them "
            "are the validation rows, those of the others the test rows."
        },
    )
    labeled_samples: int | None = field(
        default=None,
        metadata={
            "help": "The student is told the labels of so many training recordings, the teacher speaks about all of "
            "them. A teacher that is trained here learns from all labels. Default: of all."
        },
    )


def load_spoken_classes(data: RecordingDataArguments, seed: int, order: Mapping[str, int] | None = None) -> Splits:
    """Load the splits of recordings that have a class each.

    Args:
        data: where they come from.
        seed: of the draw, where fewer rows or labels are asked for than there are.
        order: class name -> number, of a teacher; it is taken over if the rows have the same names.

    Returns:
        ``train``, ``validation``, ``test``, with the recording under ``audio`` (its ``bytes`` or its ``path``), the
        class under ``label`` (``ClassLabel``), how long it is under ``length``, in hundredths of a second, and
        ``speaker``, where that column was named. If some labels only are told also ``unlabeled``, see ``few_labels``.

    Raises:
        ValueError: nothing was named; a missing file or column, a recording that cannot be read, a label that no
            training row has, a speaker who is not there.
    """
    read = _read(data, {data.label_column: LABEL}, "--label_column")
    splits = number_labels(read, order, data.cells)
    splits = limited(data, cut(_by_speaker(data, splits), seed), seed)
    if data.labeled_samples is not None:
        splits = few_labels(splits, data.labeled_samples, seed, "recordings")
    return Splits(splits, getattr(read, "left_out", ""))


def load_transcripts(data: RecordingDataArguments, seed: int) -> Splits:
    """Load the splits of recordings that have a transcript each.

    Args:
        data: where they come from.
        seed: of the draw, where fewer rows are asked for than there are.

    Returns:
        ``train``, ``validation``, ``test`` as ``load_spoken_classes`` returns them, with the transcript under ``text``
        in the place of a class; it is None where a row has none.

    Raises:
        ValueError: see ``load_spoken_classes``; or a column of something else than texts.
    """
    splits = _read(data, {data.text_column: TEXT}, "--text_column")
    texts = {name: as_texts(rows, [TEXT], f"the {name} rows of {data.source}") for name, rows in splits.items()}
    return Splits(limited(data, cut(_by_speaker(data, DatasetDict(texts)), seed), seed))


def as_recordings(rows: Dataset, column: str, who: str, folder: str | Path | None = None) -> Dataset:
    """Make a column of recordings of one that holds recordings or their paths, and see that each can be opened.

    Args:
        rows: with the column.
        column: its name.
        who: how a message names the rows.
        folder: what relative paths are looked for in, where they are not found from the current folder.

    Returns:
        The rows, whose recordings ``datasets`` does not decode (``STORED``), with the column ``length``.

    Raises:
        ValueError: the column holds something else, or a recording is missing, empty or torn; the row and the path
            are named.
        ImportError: soundfile is not installed.
    """
    feature = rows.features[column]
    paths = isinstance(feature, Value) and feature.dtype in ("string", "large_string", "string_view")
    stored = isinstance(feature, dict) and {"bytes", "path"} <= set(feature)
    if not (isinstance(feature, Audio) or paths or stored):
        raise ValueError(
            f"{who} have no recordings in {column!r} but {feature}: give paths, or parquet of datasets.Audio, or name "
            "another with --audio_column."
        )
    if paths and folder is not None:
        found = [_beside(path, Path(folder)) for path in rows[column][:]]
        at = rows.column_names.index(column)
        names = list(rows.column_names)
        rows = rows.remove_columns(column).add_column(column, found).select_columns([*names[:at], *names[at:]])
    rows = rows.cast_column(column, Audio(decode=False)).cast_column(column, STORED)
    only = rows.select_columns(column)
    lengths = [seconds_of(row[column], f"row {number} of {who}") for number, row in enumerate(only)]
    frames = [max(1, round(FRAMES * one)) for one in lengths]
    rows = rows.remove_columns(LENGTH) if LENGTH in rows.column_names else rows
    return rows.add_column(LENGTH, frames)


def _beside(path: str | None, folder: Path) -> str | None:
    """A path as it is found: from the current folder, or from that of the file which names it."""
    if path and not Path(path).exists() and (folder / path).exists():
        return str(folder / path)
    return path


def _read(data: RecordingDataArguments, renamed: Mapping[str, str], flags: str) -> DatasetDict:
    """Read the splits that there are, with the columns under the names that are used here."""
    if not (data.train_file or data.dataset_name):
        raise ValueError(
            "no recordings come with this recipe: name some with --train_file, parquet with the columns "
            f"{data.audio_column!r} and {next(iter(renamed))!r} (or --dataset_name, or csv or jsonl with paths, or a "
            "folder with one folder a class)."
        )
    if data.held_out_speakers and data.speaker_column is None:
        raise ValueError("held_out_speakers was given without speaker_column: name the column that says who speaks.")
    named = [
        (data.audio_column, AUDIO),
        *renamed.items(),
        *([(data.speaker_column, SPEAKER)] * bool(data.speaker_column)),
    ]
    wanted = dict(named)
    if len(wanted) < len(named):
        raise ValueError(f"one column was named twice among {[one for one, _ in named]}: name each once.")
    splits = _folders(data) or read_files(data, DatasetDict)
    also = " and --speaker_column" if data.speaker_column else ""
    check_columns(data, splits, list(wanted), f"--audio_column, {flags}{also}")
    files = {"train": data.train_file, "validation": data.validation_file, "test": data.test_file}
    for name, rows in list(splits.items()):
        rows = rows.select_columns(list(wanted))
        rows = rows.rename_columns({old: new for old, new in wanted.items() if old != new})
        folder = Path(files[name]).parent if data.train_file and files[name] else None
        splits[name] = as_recordings(rows, AUDIO, f"the {name} rows of {data.source}", folder)
    return splits


def _folders(data: RecordingDataArguments) -> DatasetDict | None:
    """Read folders of recordings, one folder a class; None where the rows are no folders."""
    if not data.train_file or not Path(data.train_file).is_dir():
        return None
    given = {"train": data.train_file, "validation": data.validation_file, "test": data.test_file}
    found, others = {}, []
    for name, path in given.items():
        if path is None:
            continue
        if not Path(path).is_dir():
            raise ValueError(
                f"{name} recordings were asked from {path}, which is no folder as {data.train_file} is: give one."
            )
        files = [one for one in sorted(Path(path).glob("*/**/*")) if one.is_file() and not one.name.startswith(".")]
        waves = [one for one in files if one.suffix.lower() in SUFFIXES]
        if not waves:
            raise ValueError(f"{path} has no recordings in folders: give one folder a class, with its recordings.")
        others += [one for one in files if one not in set(waves)]
        classes = [one.relative_to(path).parts[0] for one in waves]
        found[name] = Dataset.from_dict({data.audio_column: list(map(str, waves)), data.label_column: classes})
    data.tested = "test" if "test" in found else "validation"
    said = f"{len(others):,} files are no recordings and are left out (the first is {others[0]})" if others else ""
    return Splits(found, said)


def _by_speaker(data: RecordingDataArguments, splits: DatasetDict) -> DatasetDict:
    """Divide all rows by who speaks, where speakers are held out."""
    held = list(dict.fromkeys(map(str, data.held_out_speakers)))
    if not held:
        return splits
    rows = concatenate_datasets(list(splits.values()))
    who = np.array([str(one) for one in rows[SPEAKER][:]])
    if missing := sorted(set(held) - set(who)):
        raise ValueError(
            f"the speaker {missing[0]} is to be held out, {data.source} has {few(sorted(set(who)))}: name some of "
            "these."
        )
    if not (kept := sorted(set(who) - set(held))):
        raise ValueError(f"all {len(held)} speakers of {data.source} are to be held out: leave some to learn from.")
    half = len(held) // 2
    parts: dict[str, Sequence[str]] = {"train": kept, "validation": held[:half], "test": held[half:]}
    data.tested = "test"
    return DatasetDict({n: rows.select(np.flatnonzero(np.isin(who, part))) for n, part in parts.items() if len(part)})
