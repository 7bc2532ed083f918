"""Rows on which the student and its teacher differ most: what was to be said, and what each model says.

Knows: logits and labels as arrays, texts, small pictures. Does not know: models, files, how a page shows them.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

import numpy as np

from hf_distill.reports.probabilities import log_probabilities, row_kl

MOST = 200
"""So many rows are kept: enough to see what goes wrong, few enough for a page."""
SIDE = 128
"""Pixels of the longer side of a picture."""
LONG = 1500
"""Characters of a text; the rest is left out."""
TEACHER, STUDENT = "teacher", "distilled"


@dataclass(frozen=True)
class Answer:
    """What one model says of a row.

    Args:
        text: a class, a transcript, spans.
        probability: how sure it is, from 0 to 1; None where it does not say.
        right: whether that is right.
    """

    text: str
    probability: float | None
    right: bool


@dataclass(frozen=True)
class Sample:
    """One row.

    Args:
        row: its place among the test rows, from 0.
        text: what the models read; empty where that is no text.
        picture: what they see, as a ``data:`` URI; empty where there is none.
        right: what was to be said.
        answers: model -> what it says.
        apart: how far the student is from the teacher.
    """

    row: int
    text: str
    picture: str
    right: str
    answers: Mapping[str, Answer]
    apart: float

    @property
    def kind(self) -> str:
        """Who of teacher and student is right: ``both``, ``teacher``, ``student`` or ``neither``."""
        teacher, student = (self.answers[name].right for name in (TEACHER, STUDENT))
        return {(1, 1): "both", (1, 0): "teacher", (0, 1): "student", (0, 0): "neither"}[teacher, student]


@dataclass(frozen=True)
class Samples:
    """The rows that differ most, the most different first.

    Args:
        rows: up to ``MOST``.
        total: how many test rows there are.
        apart: what their order is by, in words.
    """

    rows: Sequence[Sample]
    total: int
    apart: str


Shown = Callable[[int], tuple[str, Any]]
"""A row's place -> its text, and its picture as Pillow has it; an empty text, or None, where there is none."""


def class_samples(
    logits: Mapping[str, np.ndarray], labels: np.ndarray, names: Sequence[str], shown: Shown, most: int = MOST
) -> Samples:
    """Choose rows with one class each.

    Args:
        logits: model -> [N, C]; ``teacher`` and ``distilled`` are among them.
        labels: [N]; a negative one does not count.
        names: of the classes, in their order.
        shown: what a person sees of a row.
        most: how many.

    Returns:
        The rows whose KL(teacher || student) is largest.

    Example:
        >>> said = {"teacher": np.array([[2.0, 0.0], [0.0, 2.0]]), "distilled": np.array([[0.0, 2.0], [0.0, 2.0]])}
        >>> found = class_samples(said, np.array([0, 1]), ["体育", "财经"], lambda row: ("ab"[row], None), most=1)
        >>> one = found.rows[0]
        >>> one.text, one.right, one.answers["distilled"].text, one.kind
        ('a', '体育', '财经', 'teacher')
    """
    apart = row_kl(logits[STUDENT], logits[TEACHER])
    order = [row for row in np.argsort(-apart, kind="stable").tolist() if labels[row] >= 0][:most]
    sure = {name: np.exp(log_probabilities(one[order])) for name, one in logits.items()}

    def answer(probabilities: np.ndarray, label: int) -> Answer:
        chosen = int(probabilities.argmax())
        return Answer(names[chosen], float(probabilities[chosen]), chosen == label)

    rows = [
        _sample(
            row, shown, names[labels[row]], {n: answer(one[place], labels[row]) for n, one in sure.items()}, apart[row]
        )
        for place, row in enumerate(order)
    ]
    return Samples(rows, len(labels), "KL(teacher || student) in nats")


def text_samples(
    texts: Mapping[str, Sequence[str]],
    right: Sequence[str],
    shown: Shown,
    is_right: Callable[[int, str], bool] | None = None,
    most: int = MOST,
) -> Samples:
    """Choose rows for which each model wrote a text.

    Args:
        texts: model -> [N]; ``teacher`` and ``distilled`` are among them.
        right: what was to be written, [N].
        shown: what a person sees of a row.
        is_right: given a row's place and a text, whether it is right. Default: it is the one that was to be written.
        most: how many.

    Returns:
        The rows whose two texts differ in most of their characters; those with equal ones are left out.

    Example:
        >>> said = {"teacher": ["one two", "three"], "distilled": ["one too", "three"]}
        >>> found = text_samples(said, ["one two", "three"], lambda row: ("", None))
        >>> len(found.rows), round(found.rows[0].apart, 2), found.rows[0].answers["distilled"].text
        (1, 0.14, 'one too')
    """
    fits = is_right or (lambda row, text: text == right[row])
    teacher, student = texts[TEACHER], texts[STUDENT]
    apart = {
        row: 1 - SequenceMatcher(None, teacher[row][:LONG], student[row][:LONG], autojunk=False).ratio()
        for row in range(len(right))
        if teacher[row] != student[row]
    }
    order = sorted(apart, key=lambda row: -apart[row])[:most]
    rows = [
        _sample(
            row, shown, right[row],
            {name: Answer(_cut(one[row]), None, fits(row, one[row])) for name, one in texts.items()}, apart[row],
        )
        for row in order
    ]  # fmt: skip
    return Samples(rows, len(right), "the share of characters in which the student's text is not the teacher's")


def data_uri(content: bytes, kind: str = "image/png") -> str:
    """Write a file as an address that a page holds itself.

    Example:
        >>> data_uri(b"hello", "text/plain")
        'data:text/plain;base64,aGVsbG8='
    """
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def thumbnail(image: Any) -> str:
    """Make an image small, without what its file says of cameras and places.

    Args:
        image: Pillow's.

    Returns:
        A ``data:`` URI: PNG of an image that was as small, else JPEG.
    """
    small, buffer = image.convert("RGB"), io.BytesIO()
    lossless = max(small.size) <= SIDE
    small.thumbnail((SIDE, SIDE))
    small.info = {}
    small.save(buffer, "PNG" if lossless else "JPEG")
    return data_uri(buffer.getvalue(), "image/png" if lossless else "image/jpeg")


def _sample(row: int, shown: Shown, right: str, answers: Mapping[str, Answer], apart: float) -> Sample:
    text, picture = shown(row)
    return Sample(row, _cut(text), "" if picture is None else thumbnail(picture), _cut(right), answers, float(apart))


def _cut(text: str) -> str:
    return text if len(text) <= LONG else text[:LONG] + "…"
