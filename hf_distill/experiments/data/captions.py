"""Pairs of an image and captions: of a data set, or made of classes' names by templates; digits in two languages.

Knows: columns, class names, templates. Does not know: processors, models, training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from datasets import DatasetDict, Value
from datasets import Sequence as ListOf

from hf_distill.experiments.data.files import Splits, check_columns, cut, limited, read_files
from hf_distill.experiments.data.images import ImageDataArguments, check_pictures, digits, load_images

CAPTIONS = "captions"
"""The column of the texts of an image: a list, of which the first is taken in evaluation."""
DIGITS = {
    "0": ("zero", "零"), "1": ("one", "一"), "2": ("two", "二"), "3": ("three", "三"), "4": ("four", "四"),
    "5": ("five", "五"), "6": ("six", "六"), "7": ("seven", "七"), "8": ("eight", "八"), "9": ("nine", "九"),
}  # fmt: skip
ENGLISH = ("a handwritten {}", "the digit {}", "a scan of the number {}")
CHINESE = ("数字{}", "手写的{}", "一张写着{}的图片")
PLAIN = ("a photo of a {}", "a picture of a {}", "{}")
"""Of classes whose names are words."""


@dataclass
class CaptionDataArguments(ImageDataArguments):
    """Where pairs come from; with nothing given, digits with captions in English and Chinese."""

    embedded: ClassVar[str] = "scikit-learn digits with captions"

    text_column: str | None = field(
        default=None,
        metadata={"help": "The column with a caption, or a list of them. Default: made of the label by templates."},
    )
    templates: list[str] | None = field(
        default=None, metadata={"help": "Captions of a class, {} stands for its name. Default: 'a photo of a {}', ..."}
    )
    labeled_samples: int | None = field(
        default=None,
        metadata={"help": "The students learn from so many pairs; a teacher that is trained here learns from all."},
    )


def texts_of(names: Sequence[str], templates: Sequence[str] | None = None) -> list[list[str]]:
    """Write the captions of classes: as many for each.

    Args:
        names: of the classes; ``"0"`` to ``"9"`` are written out in English and Chinese.
        templates: with ``{}`` for the name; None: the usual ones.

    Returns:
        For each class its captions.

    Raises:
        ValueError: a template without a place for the name.

    Example:
        >>> texts_of(["3"])[0][3:5], texts_of(["cat"], ["a {}"])
        (['数字三', '手写的三'], [['a cat']])
    """
    if templates is None and set(names) <= set(DIGITS):
        words = [DIGITS[name] for name in names]
        return [[*(one.format(en) for one in ENGLISH), *(one.format(zh) for one in CHINESE)] for en, zh in words]
    templates = PLAIN if templates is None else templates
    if strangers := [one for one in templates if "{}" not in one]:
        raise ValueError(f"the template {strangers[0]!r} has no {{}} for the name of a class: write one there.")
    return [[one.replace("{}", name.replace("_", " ")) for one in templates] for name in names]


def load_pairs(data: CaptionDataArguments, seed: int) -> tuple[Splits, list[list[str]] | None]:
    """Load the splits, with images under ``image`` and a list of texts under ``captions``.

    Args:
        data: where the pairs come from.
        seed: of the draw, where fewer rows are asked for than there are.

    Returns:
        ``train``, ``validation`` and ``test``, with the class under ``label`` where captions are made of it; and the
        captions of each class, None where there are none.

    Raises:
        ValueError: a missing file or column, a column without images or without texts.
    """
    if data.text_column is not None:
        return _captioned(data, seed), None
    told, data.labeled_samples = data.labeled_samples, None  # it counts pairs here
    try:
        splits = load_images(data, seed)
    finally:
        data.labeled_samples = told
    texts = texts_of(splits["train"].features["label"].names, data.templates)

    def written(rows: dict[str, list]) -> dict[str, list]:
        return {CAPTIONS: [texts[label] for label in rows["label"]]}

    made = {name: rows.map(written, batched=True, input_columns=None) for name, rows in splits.items()}
    return Splits(made, splits.left_out), texts


def _captioned(data: CaptionDataArguments, seed: int) -> Splits:
    splits = read_files(data, digits)
    wanted = [data.image_column, data.text_column]
    check_columns(data, splits, wanted, "--image_column and --text_column")
    for name, rows in splits.items():
        rows = rows.select_columns(wanted)
        check_pictures(rows, data.image_column, f"the column {data.image_column!r} of the {name} rows")
        feature = rows.features[data.text_column]
        if feature not in (Value("string"), Value("large_string"), ListOf(Value("string"))):
            raise ValueError(
                f"the column {data.text_column!r} of the {name} rows holds {feature}, no texts: name another with "
                "--text_column."
            )
        new = {old: new for old, new in zip(wanted, ("image", CAPTIONS), strict=True) if old != new}
        splits[name] = rows.rename_columns(new)
    return Splits(limited(data, cut(DatasetDict(splits), seed), seed))
