"""Windows of long texts, from their logits to answers, and how many are right: exact match, and F1 over characters.

Knows: windows, offsets, answers as words. Does not know: models, files, where questions come from.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from hf_distill.experiments.predictions import AGREES, PredictionScoring
from hf_distill.experiments.scoring import Column, Measurement, percent
from hf_distill.reports.samples import Samples, text_samples

PIECE = re.compile(r"[a-z0-9]+|\S")
"""A word of Latin letters and figures, or one character of any other script."""
CANDIDATES = 20
"""The likeliest beginnings and ends of a window, among which an answer is looked for."""


@dataclass
class Window:
    """A part of a text that a model reads at once.

    Args:
        question: the number of its question.
        offsets: for each token, its characters in the text; None for a token that is none of the text's.
    """

    question: int
    offsets: list[tuple[int, int] | None]


class AnswerScoring(PredictionScoring):
    """Exact match and F1 of answers, after the windows of a text are joined.

    F1 is SQuAD's, over characters of Chinese and words of Latin letters, punctuation left out, the best of several
    answers. The evaluation script of CMRC counts a longest common part instead: figures are not the same.

    Args:
        questions: rows with ``context`` and ``answers``.
        windows: of the same rows, in the order in which a model is shown them.
        longest: an answer has at most so many tokens.
    """

    score: ClassVar[str] = "f1"
    plotted: ClassVar[tuple[str, str]] = ("f1", "{split} F1 of answers")
    each: ClassVar[str] = "questions"
    columns: ClassVar[Mapping[str, Column]] = {
        "F1 %": percent("f1"),
        "exact match %": percent("exact_match"),
        **AGREES,
    }
    hub: ClassVar[Mapping[str, str]] = {"f1": "f1", "exact_match": "exact_match"}

    def __init__(self, questions: Sequence[Mapping[str, Any]], windows: Sequence[Window], longest: int = 50) -> None:
        super().__init__()
        self.questions, self.windows, self.longest = list(questions), windows, longest

    def counted(self, rows: Dataset) -> str:
        """Of how many questions, which are shown in windows; see ``Scoring.counted``."""
        return f"{len(self.questions):,} questions in {len(rows):,} windows"

    def answers(self, predictions: tuple[np.ndarray, np.ndarray]) -> list[str]:
        """Answer each question with the likeliest span of all its windows.

        Args:
            predictions: logits of the beginning and the end, [windows, T] each.
        """
        best: list[tuple[float, str]] = [(-np.inf, "") for _ in self.questions]
        for window, begins, ends in zip(self.windows, *predictions, strict=True):
            text = np.array([offset is not None for offset in window.offsets])
            begins, ends = (np.where(text, part[: len(text)], -np.inf) for part in (begins, ends))
            first, last = (np.argsort(-part)[:CANDIDATES] for part in (begins, ends))
            sums = begins[first][:, None] + ends[last][None, :]
            length = last[None, :] - first[:, None]
            sums[(length < 0) | (length >= self.longest)] = -np.inf
            i, j = np.unravel_index(sums.argmax(), sums.shape)
            if sums[i, j] > best[window.question][0]:
                start, stop = window.offsets[first[i]][0], window.offsets[last[j]][1]
                best[window.question] = (sums[i, j], self.questions[window.question]["context"][start:stop])
        return [answer for _, answer in best]

    def figures(self, predictions: Any, labels: Any) -> dict[str, float]:
        """F1 and exact match over questions; see ``PredictionScoring.figures``."""
        said = self.answers(predictions)
        exact = [any(pieces(text) == pieces(one) for text in right) for one, right in self._pairs(said)]
        return {"f1": float(self.units(predictions, labels).mean()), "exact_match": float(np.mean(exact))}

    def units(self, predictions: Any, labels: Any) -> np.ndarray:
        """The F1 of each question; see ``PredictionScoring.units``."""
        said = self.answers(predictions)
        return np.array([max((overlap(one, text) for text in right), default=0.0) for one, right in self._pairs(said)])

    def agreement(self, predictions: Any, teacher: Any, labels: Any) -> float:
        """The share of questions with the same answer; see ``PredictionScoring.agreement``."""
        both = zip(self.answers(predictions), self.answers(teacher), strict=True)
        return float(np.mean([ours == theirs for ours, theirs in both]))

    def disagreements(self, measurements: Mapping[str, Measurement], rows: Dataset) -> Samples:
        """Where the answers differ most, below question and text; see ``Scoring.disagreements``."""
        texts = {name: self.answers(one.predictions[0]) for name, one in measurements.items()}
        right = [row["answers"]["text"] for row in self.questions]

        def fits(row: int, text: str) -> bool:
            return any(pieces(text) == pieces(one) for one in right[row])

        def shown(row: int) -> tuple[str, None]:
            return f"{self.questions[row]['question']}\n{self.questions[row]['context']}", None

        return text_samples(texts, [" / ".join(dict.fromkeys(one)) for one in right], shown, fits)

    def _pairs(self, said: list[str]) -> list[tuple[str, list[str]]]:
        return [(one, row["answers"]["text"]) for one, row in zip(said, self.questions, strict=True)]


def windows(
    questions: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int, stride: int
) -> tuple[Dataset, list[Window]]:
    """Cut texts into windows, and say where in each the answer is: at its first token where it is not in the window.

    Args:
        questions: with ``question``, ``context``, ``start`` and ``stop``.
        tokenizer: of the models.
        max_length: tokens of a window, the question included.
        stride: how many tokens two neighbouring windows share.

    Returns:
        A row for each window, and where its tokens are in the text.

    Raises:
        ValueError: the tokenizer does not say where its tokens are, or a question leaves its text no room.
    """
    if not tokenizer.is_fast:
        raise ValueError(
            f"{type(tokenizer).__name__} does not say where its tokens are: use a model with a fast tokenizer."
        )
    asked, texts = questions["question"][:], questions["context"][:]
    longest = max(map(len, tokenizer(asked, add_special_tokens=False)["input_ids"]))
    if (room := max_length - longest - tokenizer.num_special_tokens_to_add(pair=True)) <= stride:
        raise ValueError(
            f"max_length={max_length} leaves {room} tokens of the text beside the longest question, and two windows "
            f"shall share {stride}: raise --max_length or lower --stride."
        )
    pieces = tokenizer(
        asked, texts, truncation="only_second", max_length=max_length, stride=stride,
        return_overflowing_tokens=True, return_offsets_mapping=True,
    )  # fmt: skip
    numbers, offsets = pieces.pop("overflow_to_sample_mapping"), pieces.pop("offset_mapping")
    starts, stops, made = questions["start"][:], questions["stop"][:], []
    rows: dict[str, list] = {**pieces, "start_positions": [], "end_positions": []}
    for row, (number, places) in enumerate(zip(numbers, offsets, strict=True)):
        sides = pieces.sequence_ids(row)
        own = [tuple(place) if side == 1 else None for place, side in zip(places, sides, strict=True)]
        made.append(Window(number, own))
        start, stop = starts[number], stops[number]
        first = next((i for i, place in enumerate(own) if place and place[0] <= start < place[1]), None)
        last = next((i for i, place in enumerate(own) if place and place[0] < stop <= place[1]), None)
        inside = first is not None and last is not None
        rows["start_positions"].append(first if inside else 0)
        rows["end_positions"].append(last if inside else 0)
    return Dataset.from_dict(rows), made


def fitting(name: str, questions: Dataset, rows: Dataset, own: list[Window]) -> str:
    """Say how many texts are longer than a window, and how many answers are longer than what two windows share.

    Args:
        name: of the split.
        questions: its rows.
        rows: its windows, as ``windows`` returns them.
        own: the same.
    """
    longer = len({own[i].question for i in range(1, len(own)) if own[i - 1].question == own[i].question})
    shown = {window.question for window, start in zip(own, rows["start_positions"][:], strict=True) if start}
    cut = sum(start >= 0 for start in questions["start"][:]) - len(shown)
    if not longer and not cut:
        return ""
    cut = f", {cut:,} answers are whole in no window" if cut else ""
    return f"{name}: {longer:,} of {len(questions):,} texts are longer than a window{cut}"


def pieces(text: str) -> list[str]:
    """Take an answer apart, without punctuation.

    Example:
        >>> pieces("《魔兽世界》 III")
        ['魔', '兽', '世', '界', 'iii']
    """
    return [piece for piece in PIECE.findall(text.lower()) if not unicodedata.category(piece[0]).startswith("P")]


def overlap(said: str, right: str) -> float:
    """The F1 of two answers' pieces; 1 where both have none.

    Example:
        >>> overlap("北京市", "北京")
        0.8
    """
    ours, theirs = Counter(pieces(said)), Counter(pieces(right))
    size = ours.total() + theirs.total()
    return 2 * (ours & theirs).total() / size if size else 1.0
