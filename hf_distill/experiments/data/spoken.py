"""Recordings of one word or sentence each, joined into longer ones, and transcripts that are hidden from a student.

Knows: waves, transcripts, speakers. Does not know: models, tokenizers, files.
"""

from __future__ import annotations

import io
import wave
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict, Features, Value

from hf_distill.augmentation.recordings import decoded
from hf_distill.experiments.data.recordings import AUDIO, FRAMES, SPEAKER, STORED, TEXT

PAUSES, LOUDNESS, SILENCE = (0.0125, 0.15), (0.3, 1.0), 1e-3
"""Seconds between two recordings, what each is multiplied by, how loud the noise of a pause is: all drawn evenly."""


@dataclass
class SpokenArguments:
    """What is made of the recordings, and what the student is told of them."""

    joined_samples: int | None = field(
        default=None,
        metadata={
            "help": "Learn from so many sequences of recordings of one speaker (by --speaker_column, where there is "
            "one), a fifth as many for validation and test. Default: from the recordings as they are."
        },
    )
    joined_lengths: list[int] = field(
        default_factory=lambda: [2, 5], metadata={"help": "Of how many recordings: at least, at most."}
    )
    joined_with: str = field(default=" ", metadata={"help": "What stands between the transcripts of two of them."})
    text_case: str | None = field(default=None, metadata={"help": "Write all transcripts in upper or lower case."})
    characters_to_ignore: str = field(default="", metadata={"help": "Characters that are left out of transcripts."})

    def check_spoken(self) -> None:
        """Refuse lengths of sequences that are none, and a case that letters do not have.

        Raises:
            ValueError: one of these.
        """
        if len(self.joined_lengths) != 2 or not 1 <= self.joined_lengths[0] <= self.joined_lengths[1]:
            raise ValueError(f"joined_lengths={self.joined_lengths} was given: give the least and the most, as 2 5.")
        if self.joined_samples is not None and self.joined_samples < 1:
            raise ValueError(f"joined_samples={self.joined_samples} was given: give 1 or more, or leave it out.")
        if self.text_case not in (None, "upper", "lower"):
            raise ValueError(f"text_case={self.text_case!r} was given: use upper or lower, or leave it out.")

    def written(self, text: str | None) -> str | None:
        """Write a transcript as it was asked for.

        Args:
            text: as it stands in the data; None: there is none.

        Example:
            >>> SpokenArguments(text_case="upper", characters_to_ignore=",.").written("One, two.")
            'ONE TWO'
        """
        if text is None:
            return None
        text = "".join(one for one in text if one not in self.characters_to_ignore)
        return " ".join((getattr(text, self.text_case)() if self.text_case else text).split())


def joined(
    rows: Dataset, count: int, lengths: Sequence[int], separator: str, seed: int, rate: int, who: str
) -> Dataset:
    """Join recordings of one speaker into sequences, with pauses, each recording as loud as chance has it.

    Args:
        rows: with ``audio``, ``text`` and, if it is known, ``speaker``; those without a transcript are left out.
        count: how many sequences are made.
        lengths: of how many recordings each is, at least and at most; evenly drawn.
        separator: what stands between two transcripts.
        seed: of the draws.
        rate: samples a second of the sequences.
        who: names the rows in a message.

    Returns:
        ``count`` rows with ``audio``, ``text``, ``length`` and ``speaker``, as ``load_transcripts`` returns them.

    Raises:
        ValueError: a recording that cannot be read, or no transcript at all.
    """
    draw, texts = np.random.default_rng(seed), rows[TEXT][:]
    speakers = rows[SPEAKER][:] if SPEAKER in rows.column_names else [None] * len(rows)
    by: dict[str, list[int]] = {}
    for number, (one, text) in enumerate(zip(speakers, texts, strict=True)):
        if text:
            by.setdefault(str(one), []).append(number)
    if not by:
        raise ValueError(f"{who} have no transcript to join: name the column with --text_column.")
    found = {n: decoded(rows[n][AUDIO], f"row {n} of {who}", rate) for several in by.values() for n in several}
    waves = {number: one / max(float(np.abs(one).max()), 1e-6) for number, one in found.items()}
    names, made = sorted(by), {AUDIO: [], TEXT: [], "length": [], SPEAKER: []}
    for _ in range(count):
        name = names[draw.integers(len(names))]
        chosen = [by[name][n] for n in draw.integers(0, len(by[name]), draw.integers(lengths[0], lengths[1] + 1))]
        parts = [_pause(draw, rate)]
        for number in chosen:
            parts += [waves[number] * draw.uniform(*LOUDNESS), _pause(draw, rate)]
        samples = np.concatenate(parts)
        made[AUDIO].append({"bytes": _file(samples, rate), "path": None})
        made[TEXT].append(separator.join(texts[number] for number in chosen))
        made["length"].append(max(1, round(FRAMES * len(samples) / rate)))
        made[SPEAKER].append(name)
    kinds = {AUDIO: STORED, TEXT: Value("string"), "length": Value("int64"), SPEAKER: Value("string")}
    return Dataset.from_dict(made, features=Features(kinds))


def few_transcripts(splits: DatasetDict, asked: int, seed: int) -> DatasetDict:
    """Hide the transcripts of all training rows but a few.

    Args:
        splits: with ``text``.
        asked: how many keep theirs.
        seed: of the draw.

    Returns:
        The splits, and ``unlabeled``, whose rows have their transcript under ``hidden_text`` and None under ``text``;
        ``few_labels.everything`` puts them together.

    Raises:
        ValueError: there are not as many training rows.
    """
    train = splits["train"]
    if not 0 < asked < len(train):
        raise ValueError(
            f"labeled_samples={asked} was given for {len(train)} training recordings: give at least one and fewer "
            "than there are, or leave it out."
        )
    order = np.random.default_rng(seed).permutation(len(train))
    told, hidden = train.select(np.sort(order[:asked])), train.select(np.sort(order[asked:]))
    hidden = hidden.rename_column(TEXT, f"hidden_{TEXT}").add_column(TEXT, [None] * len(hidden))
    hidden = hidden.cast_column(TEXT, train.features[TEXT])
    return DatasetDict({**splits, "train": told, "unlabeled": hidden})


def spoken_splits(data: Any, splits: DatasetDict, seed: int, rate: int) -> DatasetDict:
    """Write transcripts as they were asked for, join recordings, and hide all transcripts but a few.

    Args:
        data: the recipe's arguments: ``SpokenArguments`` and where the rows come from.
        splits: as ``load_transcripts`` returns them.
        seed: of the draws.
        rate: samples a second of joined recordings.
    """
    made = {}
    for number, (name, rows) in enumerate(splits.items()):
        texts = [data.written(text) for text in rows[TEXT][:]]
        rows = rows.remove_columns(TEXT).add_column(TEXT, texts)
        if data.joined_samples is not None:
            count = data.joined_samples if name == "train" else max(1, data.joined_samples // 5)
            who = f"the {name} rows of {data.source}"
            rows = joined(rows, count, data.joined_lengths, data.joined_with, seed + number, rate, who)
        made[name] = rows
    found = DatasetDict(made)
    return found if data.labeled_samples is None else few_transcripts(found, data.labeled_samples, seed)


def _pause(draw: np.random.Generator, rate: int) -> np.ndarray:
    return draw.normal(0.0, SILENCE, round(draw.uniform(*PAUSES) * rate))


def _file(samples: np.ndarray, rate: int) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as written:
        written.setparams((1, 2, rate, 0, "NONE", "not compressed"))
        written.writeframes((samples.clip(-1, 1) * 32767).astype("<i2").tobytes())
    return file.getvalue()
