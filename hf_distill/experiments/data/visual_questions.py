"""Pictures with a question and a short answer each: of a data set, or of handwritten digits on a grid.

Knows: columns, pictures, which answers a student is told. Does not know: processors, models, training.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from datasets import Dataset, DatasetDict, Features, Image, Value

from hf_distill.experiments.data.canvases import CONTRAST, NOISE, PAPER
from hf_distill.experiments.data.files import DataArguments, Splits, check_columns, cut, limited, read_files
from hf_distill.experiments.data.images import check_pictures, digits
from hf_distill.experiments.data.text_rows import with_texts

IMAGE, QUESTION, ANSWER, KIND, HIDDEN = "image", "question", "answer", "kind", "hidden_answer"
CELL, GRID, DIGITS = 8, 2, (2, 4)
"""Pixels of a digit along a side; cells of a picture along a side; how many digits it has at least and at most."""
COUNTS = {"train": 12_000, "validation": 1000, "test": 2000}
"""How many questions each split has, each about a picture of its own."""


@dataclass
class VisualQuestionArguments(DataArguments):
    """Where the questions come from; with nothing given, pictures of the digits of scikit-learn."""

    embedded: ClassVar[str] = "scikit-learn digits, questions"

    image_column: str = field(
        default=IMAGE, metadata={"help": "The column with the image, or with its path beside the file."}
    )
    question_column: str = field(default=QUESTION, metadata={"help": "The column with the question."})
    answer_column: str = field(
        default=ANSWER,
        metadata={"help": "The column with the answer: a text, or a list, of which the first is learned."},
    )
    labeled_samples: int | None = field(
        default=None,
        metadata={
            "help": "The student is told the answers of so many training questions, drawn by seed; the teacher writes "
            "those of all others. A teacher that is trained here learns from all. Default: of all."
        },
    )


def load_visual_questions(data: VisualQuestionArguments, seed: int) -> Splits:
    """Load the splits, with ``image``, ``question``, ``answer`` and, of the embedded ones, the ``kind`` of question.

    Args:
        data: where the questions come from.
        seed: of the draw, where fewer rows or answers are asked for than there are.

    Returns:
        ``train``, ``validation`` and ``test`` and, if some answers only are told or known, ``unlabeled``, whose rows
        have None under ``answer``, and what they hide under ``hidden_answer``.

    Raises:
        ValueError: a missing file or column, a column without images, questions or answers.
    """
    limits = {"train": data.max_train_samples, "validation": data.max_eval_samples, "test": data.max_eval_samples}
    counts = {name: min(count, limits[name] or count) for name, count in COUNTS.items()}  # none is drawn for nothing
    splits = read_files(data, lambda: questions_about_digits(seed, counts))
    wanted = {data.image_column: IMAGE, data.question_column: QUESTION, data.answer_column: ANSWER}
    check_columns(data, splits, [*wanted], "--image_column, --question_column and --answer_column")
    for name, rows in splits.items():
        kept = [*wanted, *([KIND] if data.source == data.embedded else [])]
        rows = rows.select_columns(kept).rename_columns({old: new for old, new in wanted.items() if old != new})
        whose = f"the {name} rows of {data.source}"
        file = {"train": data.train_file, "validation": data.validation_file, "test": data.test_file}[name]
        splits[name] = _first_answers(_pictures(rows, whose, Path(file).parent if file else Path()), whose)
    splits, left_out = with_texts(splits, [QUESTION], data.source)
    splits = limited(data, cut(splits, seed), seed)
    return Splits(_told(data, splits, seed), left_out)


def _pictures(rows: Dataset, whose: str, folder: Path) -> Dataset:
    """See that the column of images holds some; paths are read beside their file. Who collates rows decodes them."""
    feature = rows.features[IMAGE]
    if not isinstance(feature, Image) and str(getattr(feature, "dtype", "")).endswith("string"):
        paths = [None if path is None else folder / path for path in rows[IMAGE][:]]
        if (
            missing := next((n for n, path in enumerate(paths) if path is None or not path.is_file()), None)
        ) is not None:
            raise ValueError(
                f"row {missing} of {whose} names the image {paths[missing]}, there is no such file: give paths beside "
                "the file of the rows, or name the column of images with --image_column."
            )
        rows = rows.remove_columns(IMAGE).add_column(IMAGE, [str(path) for path in paths])
        return rows.cast_column(IMAGE, Image(decode=False))
    check_pictures(rows, IMAGE, f"the column of images of {whose}")
    return rows.cast_column(IMAGE, Image(decode=False))


def _first_answers(rows: Dataset, whose: str) -> Dataset:
    """Take the first of several answers; one without letters is none."""
    found = []
    for number, answer in enumerate(rows[ANSWER][:]):
        one = next(iter(answer), None) if isinstance(answer, list) else answer
        if not isinstance(one, (str, int, float, type(None))):
            raise ValueError(
                f"row {number} of {whose} has an answer that is neither a text nor a list of texts: name another "
                "column with --answer_column."
            )
        found.append(None if one is None else str(one).strip() or None)
    if not any(found):
        raise ValueError(f"none of {whose} has an answer: name their column with --answer_column.")
    return rows.remove_columns(ANSWER).add_column(ANSWER, found, feature=Value("string"))


def _told(data: VisualQuestionArguments, splits: DatasetDict, seed: int) -> DatasetDict:
    """Leave out what cannot be scored, and hide the answers that the student is not told."""
    known = {name: np.array([one is not None for one in rows[ANSWER][:]]) for name, rows in splits.items()}
    splits = DatasetDict({
        name: rows if name == "train" or known[name].all() else rows.select(np.flatnonzero(known[name]))
        for name, rows in splits.items()
    })  # fmt: skip
    train, places = splits["train"], np.flatnonzero(known["train"])
    if (asked := data.labeled_samples) is not None:
        if not 1 <= asked < len(places):
            raise ValueError(
                f"labeled_samples={asked} was given for {len(places)} training questions with an answer: give 1 or "
                "more and fewer than there are, or leave it out."
            )
        places = np.sort(np.random.default_rng(seed).permutation(places)[:asked])
    if len(places) == len(train):
        return splits
    hidden = train.select(np.setdiff1d(np.arange(len(train)), places)).rename_column(ANSWER, HIDDEN)
    hidden = hidden.add_column(ANSWER, [None] * len(hidden), feature=Value("string"))
    return DatasetDict({**splits, "train": train.select(places), "unlabeled": hidden})


def questions_about_digits(seed: int = 0, counts: dict[str, int] | None = None) -> DatasetDict:
    """Draw pictures of 16 x 16 pixels with two to four handwritten digits, and ask one question about each.

    The digits are the 1,797 that come with scikit-learn, as large as they are, each in a cell of a grid of 2 x 2. No
    digit of one split is on a picture of another.

    Args:
        seed: of what is drawn and asked.
        counts: how many questions each split has; None: as ``COUNTS`` has it.

    Returns:
        ``train``, ``validation`` and ``test`` with the columns ``image``, ``question``, ``answer`` and ``kind``, a key
        of ``KINDS``.

    Raises:
        ImportError: scikit-learn or Pillow is not installed.

    Example:
        >>> row = questions_about_digits(counts={"train": 1, "validation": 1, "test": 1})["train"][0]
        >>> row["image"].size, row["kind"] in KINDS
        ((16, 16), True)
    """
    features = Features({IMAGE: Image(), **{name: Value("string") for name in (QUESTION, ANSWER, KIND)}})
    splits = {}
    for number, (name, count) in enumerate((counts or COUNTS).items()):
        pool = _pools()[name]
        draw = np.random.default_rng([seed, number])
        splits[name] = Dataset.from_list([_row(draw, pool) for _ in range(count)], features=features)
    return DatasetDict(splits)


@cache
def _pools() -> dict[str, list[tuple[np.ndarray, int]]]:
    """The pixels of each split's digits, of 1, and which digit it is."""
    return {name: [(np.asarray(row["image"]) / 255, row["label"]) for row in rows] for name, rows in digits().items()}


def _row(draw: np.random.Generator, pool: list[tuple[np.ndarray, int]]) -> dict[str, Any]:
    """Draw a picture, and ask about it."""
    from PIL import Image as Picture

    kind, many = [*KINDS][draw.integers(len(KINDS))], draw.integers(DIGITS[0], DIGITS[1] + 1)
    cells = draw.choice(GRID * GRID, many, replace=False)
    chosen = [pool[one] for one in draw.integers(len(pool), size=many)]
    placed = [(cell // GRID, cell % GRID, label) for cell, (_, label) in zip(cells, chosen, strict=True)]
    question, answer = KINDS[kind](draw, placed)
    ink = np.zeros((GRID * CELL, GRID * CELL))
    for (top, left, _), (image, _) in zip(placed, chosen, strict=True):
        ink[CELL * top : CELL * (top + 1), CELL * left : CELL * (left + 1)] = image
    brightness = np.clip(PAPER + CONTRAST * ink + draw.normal(0, NOISE, ink.shape), 0, 1)
    picture = Picture.fromarray((255 * brightness).round().astype(np.uint8))
    return {IMAGE: picture, QUESTION: question, ANSWER: answer, KIND: kind}


Placed = list[tuple[int, int, int]]
"""Of each digit its row, its column, and which it is."""
Asked = Callable[[np.random.Generator, Placed], tuple[str, str]]


def _which(draw: np.random.Generator, placed: Placed) -> tuple[str, str]:
    top, left, label = placed[draw.integers(len(placed))]
    return f"which digit is {('top', 'bottom')[top]} {('left', 'right')[left]} ?", str(label)


def _there(draw: np.random.Generator, placed: Placed) -> tuple[str, str]:
    seen = {label for *_, label in placed}
    yes = bool(draw.integers(2))
    asked = draw.choice(sorted(seen if yes else {*range(10)} - seen))
    return f"is there a {asked} ?", "yes" if yes else "no"


KINDS: dict[str, Asked] = {
    "which": _which,
    "there": _there,
    "count": lambda draw, placed: ("how many digits are there ?", str(len(placed))),
    "largest": lambda draw, placed: ("which digit is the largest ?", str(max(label for *_, label in placed))),
    "sum": lambda draw, placed: ("what is the sum ?", str(sum(label for *_, label in placed))),
}
"""Kind of question -> asks it of a picture, and answers."""
