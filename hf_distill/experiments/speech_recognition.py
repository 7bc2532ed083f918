"""Models that recognise speech frame by frame (CTC): their letters, and their processors.

Knows: tokenizers of letters, processors. Does not know: files, how a model is trained or measured.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from transformers import (
    AutoProcessor,
    PretrainedConfig,
    PreTrainedTokenizerBase,
    Wav2Vec2BertProcessor,
    Wav2Vec2CTCTokenizer,
)

from hf_distill.experiments.models import ModelKind
from hf_distill.experiments.recordings import RecordingModelArguments, log_mels

PAD, UNKNOWN, DELIMITER = "<pad>", "<unk>", "|"


def letters_of(texts: Iterable[str | None]) -> Wav2Vec2CTCTokenizer:
    """Make a tokenizer of the characters of transcripts; the padding is the blank.

    Args:
        texts: the transcripts; None: there is none.

    Example:
        >>> tokenizer = letters_of(["no on", None])
        >>> tokenizer("on no")["input_ids"], tokenizer.decode([4, 4, 0, 3, 3])
        ([4, 3, 2, 3, 4], 'on')
    """
    found = sorted({one for text in texts for one in text or ""} - {" "})
    vocabulary = {one: number for number, one in enumerate([PAD, UNKNOWN, DELIMITER, *found])}
    with TemporaryDirectory() as folder:
        file = Path(folder, "vocab.json")
        file.write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
        return Wav2Vec2CTCTokenizer(
            str(file), unk_token=UNKNOWN, pad_token=PAD, word_delimiter_token=DELIMITER, bos_token=None, eos_token=None
        )


def speech_processor(recipe: RecordingModelArguments, texts: Iterable[str | None]) -> Any:
    """Return the processor of the given student, of the teacher, or one of log-mel features and of texts' letters.

    Args:
        recipe: the models.
        texts: the transcripts of the training rows.

    Raises:
        ValueError: there is no processor with a tokenizer beside the model.
    """
    if path := recipe.student_model_name_or_path or recipe.teacher_model_name_or_path:
        return load_processor_of(path, f"the model {path}")
    return Wav2Vec2BertProcessor(log_mels(recipe.sampling_rate, recipe.mel_bins), letters_of(texts))


def load_processor_of(name: str, who: str) -> Any:
    """Load the processor beside a model: its feature extractor and its tokenizer.

    Args:
        name: a path or Hub id.
        who: how a message names the model.

    Raises:
        ValueError: there is none.
    """
    try:
        processor = AutoProcessor.from_pretrained(name)
    except (OSError, ValueError, KeyError, TypeError) as error:  # what each version raises where a part is missing
        processor, cause = None, error
    else:
        cause = None
    if not hasattr(processor, "tokenizer") or not hasattr(processor, "feature_extractor"):
        raise ValueError(
            f"{who} writes down recordings, and there is no processor with a feature extractor and a tokenizer beside "
            "it: save the one that it was trained with there (processor.save_pretrained)."
        ) from cause
    return processor


@dataclass
class CTCKind(ModelKind):
    """Models of frames, whose classes are the letters of a tokenizer; see ``ModelKind``.

    Args:
        tokenizer: of the letters.
    """

    tokenizer: PreTrainedTokenizerBase | None = None

    def labelled(self, config: PretrainedConfig) -> PretrainedConfig:
        """Write the letters and the blank into a configuration; each transcript counts by its letters."""
        config.vocab_size, config.pad_token_id = len(self.tokenizer), self.tokenizer.pad_token_id
        config.ctc_loss_reduction = "mean"
        return config
