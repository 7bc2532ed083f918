"""Which of the teacher's transcripts are learned from: none that is a loop, none that is far from what was said.

Knows: tokens of a text and of a transcript, how both become words. Does not know: who wrote, recordings, batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from hf_distill.reports.transcripts import normalizer
from hf_distill.reports.wer import character_edits, jiwer, word_edits
from hf_distill.rollouts.prompts import IGNORED
from hf_distill.rollouts.settings import Rollout

TIMES = 3
"""A text that did not end is a loop if its last tokens stand there so often, one after the other."""


class Filter:
    """Says which texts are kept.

    Args:
        asked: what is written, and ``keep_if``.
        tokenizer: turns tokens into text; None where ``keep_if`` is not asked for.
        ends: the tokens that end a text.
        loops: whether loops are kept.
        english: whether the transcripts are known to be English.

    Raises:
        ValueError: ``keep_if`` was asked for and nobody turns tokens into text.
        ImportError: it was asked for and jiwer is not installed.

    Example:
        >>> import torch
        >>> plain = Filter(Rollout(seq_kd=1.0), None, ends=[2], loops=False, english=True)
        >>> [plain.keeps(torch.tensor(text), None) for text in ([5, 6, 6, 6, 2], [5, 6, 6, 6], [5, 6, 7, 8])]
        [True, False, True]
    """

    def __init__(self, asked: Rollout, tokenizer: Any, ends: Sequence[int], loops: bool, english: bool) -> None:
        self.ends, self.loops, self.tokenizer = set(ends), loops, tokenizer
        limits = dict(asked.keep_if or {})
        how = limits.pop("normalizer", None)
        self.limits: dict[str, float] = limits
        if not limits:
            return
        if not hasattr(tokenizer, "decode"):
            raise ValueError(
                f"keep_if={asked.keep_if!r} compares what the teacher writes with transcripts, and there is no "
                "tokenizer that turns both into text: pass processing_class=processor."
            )
        jiwer()
        self.normalize = normalizer(tokenizer, how or ("english" if english else "basic"))

    def keeps(self, text: Tensor, labels: Tensor | None) -> bool:
        """Say whether a text is learned from.

        Args:
            text: its tokens [m].
            labels: of the row as it came [n], -100 where there is none; None: it has no transcript.
        """
        if not self.loops and self.ends.isdisjoint(text[-1:].tolist()) and is_loop(text.tolist()):
            return False
        known = None if labels is None else labels[labels != IGNORED]
        if not self.limits or known is None or not len(known):
            return True
        both = [
            [self.normalize(self.tokenizer.decode(one.tolist(), skip_special_tokens=True))] for one in (text, known)
        ]
        for measure, limit in self.limits.items():
            if measure == "wer":
                ((wrong, length),) = word_edits(*both).tolist()
            else:  # whitespace says little where words are not apart by it
                ((wrong, length),) = character_edits(
                    *([["".join(one.split()) for one in texts] for texts in both])
                ).tolist()
            if wrong > limit * length:
                return False
        return True


def is_loop(tokens: Sequence[int]) -> bool:
    """Say whether a text goes round in a circle at its end.

    Args:
        tokens: of a text that did not end by itself.

    Example:
        >>> is_loop([7, 5, 6, 5, 6, 5, 6, 5]), is_loop([5, 6, 5, 6, 7])
        (True, False)
    """
    tokens = list(tokens)
    for length in range(1, len(tokens) // TIMES + 1):
        again = (TIMES - 1) * length
        if tokens[-again:] == tokens[-again - length : -length]:
            return True
    return False
