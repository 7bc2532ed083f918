"""How wrong transcripts are: word and character error rates, as ratios of sums, with errors over utterances.

Knows: texts in pairs, counts. Does not know: models, recordings, how a text is normalised.

The edits are jiwer's (``pip install "hf_distill[speech]"``). A rate is a ratio of two sums over all utterances and no
mean of utterances' rates, so its error is that of a ratio, and the utterance is what it is found over, never the word.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

import numpy as np

from hf_distill.reports.intervals import LEVEL, Interval, mean_interval, ratio_shares


def word_edits(texts: Sequence[str], references: Sequence[str]) -> np.ndarray:
    """Count the words to insert, delete or replace, utterance by utterance.

    Args:
        texts: what was recognised, [N]; words are apart by whitespace, and are compared as they are.
        references: what was said, [N]. Of an empty one every recognised word is an edit, and its length is 0.

    Returns:
        int64 [N, 2]: edits, and words of the reference.

    Raises:
        ValueError: texts and references are not in pairs.
        ImportError: jiwer is not installed.

    Example:
        >>> word_edits(["the cat sat", "yes"], ["a cat sat down", ""]).tolist()
        [[2, 4], [1, 0]]
    """
    return _edits("process_words", texts, references)


def character_edits(texts: Sequence[str], references: Sequence[str]) -> np.ndarray:
    """Count the characters to insert, delete or replace, as Chinese and Japanese are measured; see ``word_edits``.

    Args:
        texts: what was recognised, [N]; spaces within are characters.
        references: what was said, [N].

    Returns:
        int64 [N, 2]: edits, and characters of the reference.

    Raises:
        ValueError: texts and references are not in pairs.
        ImportError: jiwer is not installed.

    Example:
        >>> character_edits(["你号", "ab"], ["你好", "a b"]).tolist()
        [[1, 2], [1, 3]]
    """
    return _edits("process_characters", texts, references)


def error_rate(counts: np.ndarray) -> float:
    """Divide all edits by the length of all references: the WER of ``word_edits``, the CER of ``character_edits``.

    Args:
        counts: [N, 2]: edits, and the reference's length, of each utterance.

    Returns:
        0 or more; over 1 where more was recognised than was said.

    Raises:
        ValueError: nothing was said in any reference.

    Example:
        >>> error_rate(np.array([[1, 2], [0, 2]]))
        0.25
    """
    edits, length = np.asarray(counts, dtype=np.float64).reshape(-1, 2).sum(axis=0)
    if not length:
        raise ValueError(
            f"an error rate was asked for {len(counts)} references without a word: give transcripts, or look whether "
            "they were normalised to nothing."
        )
    return float(edits / length)


def error_shares(counts: np.ndarray) -> np.ndarray:
    """What each utterance adds to the error rate: numbers whose mean it is, and whose spread is its own.

    They can be given to ``gap_closed``, with ``lower_is_better=True``; see ``ratio_shares``.

    Args:
        counts: [N, 2], as ``word_edits`` returns them.

    Returns:
        float64 [N]; single numbers may lie under 0.

    Raises:
        ValueError: nothing was said in any reference.

    Example:
        >>> error_shares(np.array([[1, 1], [0, 3]])).tolist()
        [0.625, -0.125]
    """
    error_rate(counts)  # refuses references in which nothing was said
    return ratio_shares(*np.asarray(counts, dtype=np.float64).reshape(-1, 2).T)


def error_rate_interval(counts: np.ndarray, level: float = LEVEL) -> Interval | None:
    """Bound an error rate by the spread of its utterances.

    Args:
        counts: [N, 2], as ``word_edits`` returns them.
        level: how often the bounds hold the true rate, between 0 and 1.

    Returns:
        Bounds, not under 0; None for one utterance, or where all are alike.

    Raises:
        ValueError: nothing was said in any reference.

    Example:
        >>> low, high = error_rate_interval(np.array([[1, 4], [0, 4], [2, 4], [1, 4]]))
        >>> round(low, 3), round(high, 3)
        (0.0, 0.575)
    """
    bounds = mean_interval(error_shares(counts), level)
    return bounds and Interval(max(0.0, bounds.low), bounds.high)


def jiwer() -> ModuleType:
    """Import jiwer.

    Raises:
        ImportError: it is not installed.
    """
    try:
        import jiwer
    except ImportError as error:
        raise ImportError('word error rates come with jiwer: pip install "hf_distill[speech]".') from error
    return jiwer


def _edits(process: str, texts: Sequence[str], references: Sequence[str]) -> np.ndarray:
    if len(texts) != len(references):
        raise ValueError(
            f"edits were asked for between {len(texts)} texts and {len(references)} references: give them in pairs."
        )
    if not len(texts):
        return np.zeros((0, 2), dtype=np.int64)
    found = getattr(jiwer(), process)(list(references), list(texts))
    wrong = [
        sum(
            max(part.ref_end_idx - part.ref_start_idx, part.hyp_end_idx - part.hyp_start_idx)
            for part in parts
            if part.type != "equal"
        )
        for parts in found.alignments
    ]
    return np.array([wrong, [len(one) for one in found.references]], dtype=np.int64).T
