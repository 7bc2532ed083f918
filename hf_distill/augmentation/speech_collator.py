"""A collator of recordings: decodes them, and hands them to a model's feature extractor; classes or transcripts.

Knows: rows with a recording and a class or a transcript, feature extractors, tokenizers. Does not know: models,
losses, trainers, files' formats.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import xxhash
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from hf_distill.augmentation.extractors import (
    FAULTS,
    extractor_of,
    features_of,
    longest_of,
    made_by,
    refuse_short,
    unusable,
)
from hf_distill.augmentation.recordings import decoded
from hf_distill.models.texts import MASK
from hf_distill.tasks.alignment.tokenizers import PREFIX

LABELS = ("labels", "label")
LENGTH = "length"
"""The column that says how long a recording is, by which Trainer groups rows (``length_column_name``)."""
START = "<|startoftranscript|>"
NO_LABEL = -100


class SpeechCollator:
    """Makes batches of recordings, and of a class or a transcript for each.

    Recordings are brought to the feature extractor's rate, and several channels to their mean. Padding is left to the
    extractor, which also says whether the batch has an ``attention_mask`` (``return_attention_mask``).

    Args:
        processor: the student's feature extractor, as ``processing_class``; or its processor, whose tokenizer reads
            the transcripts.
        teacher_processor: the teacher's, if its own differs in what it makes of a recording: the batch then has
            ``teacher_input_values`` or ``teacher_input_features`` too, and its mask.
        audio_column: of the rows: paths, bytes of a file, arrays, or what ``datasets`` holds for one that it does not
            decode (``Audio(decode=False)``: it needs no torchcodec).
        text_column: of the rows: transcripts, read where the processor has a tokenizer; a row whose transcript is None
            has no label. In rows that are tokenised already ``labels`` are lists of ids.
        sampling_rate: samples a second of arrays that do not say theirs; None: such an array is refused.
        decoder_start: of an encoder-decoder, ``config.decoder_start_token_id``, which the model puts before the
            labels itself: labels that begin with it lose it. None: Whisper's, where the tokenizer has that token.
        max_seconds: longer recordings are cut to so many seconds; None: none is, and one is refused that is longer
            than the extractor reads.
        keep: whether the features of a recording, made of it alone and once, are kept in memory. It is for data sets
            that fit, and extractors that do not look at a recording's company: a wav2vec2's without a mask does.

    Raises:
        ValueError: a recording that cannot be read, is too short or too long; a row without one; a transcript with
            characters that the vocabulary lacks.
        TypeError: something else in the place of a feature extractor.
        ImportError: soundfile or scipy is not installed.

    Example:
        >>> from transformers import Wav2Vec2FeatureExtractor
        >>> rows = [{"audio": {"array": [0.1] * size, "sampling_rate": 16000}, "label": size % 3} for size in (8, 6)]
        >>> batch = SpeechCollator(Wav2Vec2FeatureExtractor(return_attention_mask=True))(rows)
        >>> batch["input_values"].shape, batch["attention_mask"].sum(1).tolist(), batch["labels"].tolist()
        (torch.Size([2, 8]), [8, 6], [2, 0])
    """

    def __init__(
        self,
        processor: Any,
        teacher_processor: Any = None,
        audio_column: str = "audio",
        text_column: str = "text",
        sampling_rate: int | None = None,
        decoder_start: int | None = None,
        max_seconds: float | None = None,
        keep: bool = False,
    ) -> None:
        if max_seconds is not None and max_seconds <= 0:
            raise ValueError(f"max_seconds={max_seconds} was given: give a number above 0, or leave it out.")
        self.processor, self.extractor = processor, extractor_of(processor)
        theirs = None if teacher_processor is None else extractor_of(teacher_processor)
        differs = theirs is not None and made_by(theirs) != made_by(self.extractor)
        self.teacher_processor, self.told_teacher = theirs if differs else None, theirs is not None
        self.tokenizer = getattr(processor, "tokenizer", None)
        self.audio_column, self.text_column, self.sampling_rate = audio_column, text_column, sampling_rate
        if decoder_start is None and self.tokenizer is not None and START in self.tokenizer.get_vocab():
            decoder_start = self.tokenizer.convert_tokens_to_ids(START)
        self.decoder_start, self.max_seconds = decoder_start, max_seconds
        self.known: dict[str, bool] = {" ": True}  # which characters the vocabulary has
        self.kept: dict[tuple[int, bytes], dict[str, Tensor]] | None = {} if keep else None

    @property
    def columns(self) -> frozenset[str]:
        """The columns of the data set that it reads, and the one by which Trainer groups rows."""
        text = () if self.tokenizer is None else (self.text_column,)
        return frozenset({self.audio_column, *LABELS, *text, LENGTH})

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Make a batch.

        Args:
            rows: what the data set gave for one micro-batch.

        Returns:
            ``input_values`` [B, T] or ``input_features`` [B, T, F] (or as the extractor makes them), its
            ``attention_mask`` if it has one, the same with ``teacher_`` where the teacher reads its own; ``labels``:
            classes [B] where all rows have one, or token ids [B, L], -100 behind.
        """
        batch = self._extracted(self.extractor, rows)
        if self.teacher_processor is not None:
            theirs = self._extracted(self.teacher_processor, rows)
            batch |= {PREFIX + name: value for name, value in theirs.items()}
        labels = self._labels(rows)
        return batch if labels is None else {**batch, "labels": labels}

    def check_texts(self, texts: Iterable[str | None], who: str) -> None:
        """Refuse transcripts with characters that the vocabulary lacks; each character is looked up once.

        Args:
            texts: the transcripts, one a row.
            who: names the rows in a message.

        Raises:
            ValueError: in one sentence, which names them and the first row that has some.
        """
        if self.tokenizer is None:
            return
        known, found = self.known, {}
        for row, text in enumerate(texts):
            for one in set(text or "") - known.keys():
                known[one] = self._knows(one)
            lacking = [one for one in set(text or "") if not known[one]]
            if lacking and not self._knows(text):  # a vocabulary of words may have a word and none of its letters
                found |= {one: row for one in lacking if one not in found}
        if found:
            first = min(found.values())
            missing = sorted(found)
            few = ", ".join(map(repr, missing[:12])) + (f", ... ({len(missing)} in all)" if len(missing) > 12 else "")
            other = next((kind for kind in ("upper", "lower") if self._knows(getattr(missing[0], kind)())), None)
            letters = f"write transcripts in {other} case" if other else "write transcripts in its letters"
            raise ValueError(
                f"row {first} of {who} has a transcript with characters that the vocabulary lacks ({few}): {letters}, "
                "or use a tokenizer that has them."
            )

    def _knows(self, text: str) -> bool:
        unknown = self.tokenizer.unk_token_id
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return not any(one is None or one == unknown for one in ids)

    # ---- Recordings ----

    def _extracted(self, extractor: Any, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        waves = [self._wave(row, f"row {number} of a batch", extractor) for number, row in enumerate(rows)]
        try:
            made = features_of(extractor, waves) if self.kept is None else self._once(extractor, waves)
        except FAULTS as error:
            self._name_short(extractor, waves, error)
            raise
        if (bad := unusable(made)) is not None:
            refuse_short(bad, waves[bad], extractor)
        return made

    def _once(self, extractor: Any, waves: Sequence[np.ndarray]) -> dict[str, Tensor]:
        """Make features of the recordings that were not met before, each alone, and pad all of them."""
        rows = []
        for wave in waves:
            key = (id(extractor), xxhash.xxh3_128_digest(np.ascontiguousarray(wave)))
            if key not in self.kept:
                self.kept[key] = {name: one[0] for name, one in features_of(extractor, [wave]).items()}
            rows.append(self.kept[key])
        padding = {name: 0 if name == MASK else extractor.padding_value for name in rows[0]}
        return {
            name: pad_sequence([row[name] for row in rows], batch_first=True, padding_value=value)
            for name, value in padding.items()
        }

    def _wave(self, row: Mapping[str, Any], who: str, extractor: Any) -> np.ndarray:
        if self.audio_column not in row:
            raise ValueError(
                f"{who} has no {self.audio_column!r}, only {sorted(row)}: name the column of the recordings "
                "(audio_column), and set remove_unused_columns=False if a transform makes it."
            )
        rate = extractor.sampling_rate
        wave = decoded(row[self.audio_column], who, rate, self.sampling_rate)
        if self.max_seconds is not None:
            wave = wave[: max(1, round(self.max_seconds * rate))]
        if (most := longest_of(extractor)) is not None and len(wave) > most:
            raise ValueError(
                f"{who} has a recording of {len(wave) / rate:.1f} seconds, {type(extractor).__name__} reads "
                f"{most / rate:.1f}: cut it into parts, or let all be cut with max_seconds={most / rate:g}."
            )
        return wave

    @staticmethod
    def _name_short(extractor: Any, waves: Sequence[np.ndarray], error: Exception) -> None:
        """Say of which recording alone no features can be made either."""
        for number, wave in enumerate(waves):
            try:
                features_of(extractor, [wave])
            except FAULTS:
                refuse_short(number, wave, extractor, error)

    # ---- Labels ----

    def _labels(self, rows: Sequence[Mapping[str, Any]]) -> Tensor | None:
        name = next((one for one in LABELS if all(row.get(one) is not None for row in rows)), None)
        given = None if name is None else [row[name] for row in rows]
        if self.tokenizer is not None and not (given and np.ndim(given[0])):
            texts = [row.get(self.text_column) for row in rows]
            # Where nobody told what is said in this batch, a recogniser by frames has labels nevertheless, all -100.
            told = self.decoder_start is None and any(self.text_column in row for row in rows)
            if told or any(text is not None for text in texts):
                self.check_texts(texts, "a batch")
                return self._padded([[] if text is None else self.tokenizer(text)["input_ids"] for text in texts])
        if given is None:
            return None
        return self._padded(given) if np.ndim(given[0]) else torch.tensor(np.asarray(given))

    def _padded(self, ids: Sequence[Any]) -> Tensor:
        ids = [np.asarray(one, dtype=np.int64) for one in ids]
        start = self.decoder_start
        if start is not None:
            ids = [one[1:] if len(one) and one[0] == start else one for one in ids]
        labels = torch.full((len(ids), max(1, *map(len, ids))), NO_LABEL)
        for row, one in enumerate(ids):
            labels[row, : len(one)] = torch.from_numpy(one)
        return labels
