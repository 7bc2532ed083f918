"""Transcripts out of what a model predicted, and how wrong they are: Trainer's ``compute_metrics``.

Knows: processors, predictions and labels as Trainer gives them. Does not know: models, recordings, trainers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch import Tensor
from transformers import EvalPrediction
from transformers.models.whisper.english_normalizer import BasicTextNormalizer, EnglishTextNormalizer

from hf_distill.reports.frames import blank_share, collapse
from hf_distill.reports.wer import character_edits, error_rate, jiwer, word_edits

PADDING = -100


def wer_metrics(
    processor: Any, ctc: bool = False, normalize: str | Callable[[str], str] | None = None, blank: int | None = None
) -> Callable[[EvalPrediction], dict[str, float]]:
    """Return what computes ``wer`` and ``cer``: give it to a trainer as ``compute_metrics``.

    With ``ctc=True`` give ``preprocess_logits_for_metrics=chosen_frames`` too: only the likeliest class of each frame
    is then kept, and not the logits of all recordings. With ``predict_with_generate=True`` predictions are tokens.

    Args:
        processor: the model's, or its tokenizer.
        ctc: whether predictions are the frames of a CTC model; ``blank_share`` is then computed too.
        normalize: what is done to both texts before they are compared: ``"english"`` or ``"basic"``, both Whisper's,
            or a function; None: nothing.
        blank: the class of a frame that says nothing. Default: the tokenizer's padding.

    Returns:
        A function of what was predicted.

    Raises:
        ValueError: the processor turns no tokens into text, or a row was given no transcript.
        ImportError: jiwer is not installed.

    Example:
        >>> from transformers import BertTokenizer
        >>> words = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "one", "two", "six"])}
        >>> frames, labels = np.array([[0, 4, 4, 0, 5]]), np.array([[4, 6, -100]])
        >>> wer_metrics(BertTokenizer(words), ctc=True)(EvalPrediction(frames, labels))["wer"]
        0.5
    """
    tokenizer = getattr(processor, "tokenizer", processor)
    if not hasattr(tokenizer, "decode"):
        raise ValueError(
            f"word error rates were asked for with a {type(processor).__name__}, which turns no tokens into text: "
            "give the model's processor, or its tokenizer."
        )
    jiwer()
    read = transcripts(processor, normalize)
    nothing = tokenizer.pad_token_id if blank is None else blank

    def compute(predicted: EvalPrediction) -> dict[str, float]:
        said, right = predicted.predictions, predicted.label_ids
        said = said[0] if isinstance(said, (tuple, list)) else said
        if right is None:
            raise ValueError("word error rates were asked for rows without labels: give each row its transcript.")
        if said.ndim == 3:
            said = _likeliest(said)
        texts, references = read(collapse(said, nothing) if ctc else said), read(right)
        edits = {"wer": word_edits(texts, references), "cer": character_edits(texts, references)}
        rates = {name: error_rate(counts) for name, counts in edits.items()}
        return {**rates, "blank_share": blank_share(said, nothing)} if ctc else rates

    return compute


def transcripts(
    processor: Any, normalize: str | Callable[[str], str] | None = None
) -> Callable[[Sequence[Any]], list[str]]:
    """Return what turns tokens into texts, as many letters as there are: a tokenizer of CTC would make one of two.

    Args:
        processor: the model's, or its tokenizer.
        normalize: what is done to the texts; see ``wer_metrics``.

    Returns:
        Of the tokens of several texts, -100 where they are padding.
    """
    tokenizer = getattr(processor, "tokenizer", processor)
    spelled = normalizer(tokenizer, normalize) if normalize is not None else str
    how = {"skip_special_tokens": True, "group_tokens": False}

    def read(rows: Sequence[Any]) -> list[str]:
        tokens = ([int(one) for one in row if one != PADDING] for row in rows)
        return [spelled(tokenizer.decode(row, **how).strip()) for row in tokens]

    return read


def chosen_frames(logits: Any, labels: Any = None) -> Tensor:
    """Choose the likeliest class of each frame: Trainer's ``preprocess_logits_for_metrics``.

    Args:
        logits: [B, T, V], or a tuple that begins with them; frames that are -100 throughout are padding.
        labels: not looked at.

    Returns:
        int64 [B, T].

    Example:
        >>> import torch
        >>> chosen_frames(torch.tensor([[[0.0, 1.0], [-100.0, -100.0]]]))
        tensor([[   1, -100]])
    """
    logits = logits[0] if isinstance(logits, (tuple, list)) else logits
    return logits.argmax(dim=-1).masked_fill((logits == PADDING).all(dim=-1), PADDING)


def normalizer(tokenizer: Any, how: str | Callable[[str], str]) -> Callable[[str], str]:
    """Return what makes two spellings of the same words one.

    Args:
        tokenizer: Whisper's knows the English spellings, British and American; any other has none.
        how: ``"english"``, ``"basic"`` (lower case, without punctuation), or a function of the user's own.

    Raises:
        ValueError: it is none of these.

    Example:
        >>> normalizer(None, "english")("It's nine!"), normalizer(None, "basic")("Grüß Gott!").strip()
        ('it is 9', 'grüß gott')
    """
    if callable(how):
        return how
    if how not in ("english", "basic"):
        raise ValueError(f"the normaliser {how!r} is not known: give 'english', 'basic' or a function of a text.")
    if how == "english":
        return EnglishTextNormalizer(getattr(tokenizer, "english_spelling_normalizer", None) or {})
    return BasicTextNormalizer()


def _likeliest(logits: np.ndarray) -> np.ndarray:
    return np.where((logits == PADDING).all(axis=-1), PADDING, logits.argmax(axis=-1))
