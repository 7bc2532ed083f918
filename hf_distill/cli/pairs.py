"""Rows for a teacher that does not read texts alone: pairs of an image and a text, or a sentence of what to do.

Knows: columns of images and captions, processors, what a model reads. Does not know: how a teacher is asked, keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from datasets import Dataset, Image, LargeList, List, Value
from transformers import PreTrainedModel

from hf_distill.augmentation.image_text_collator import ImageTextCollator
from hf_distill.cli.arguments import CacheArguments
from hf_distill.cli.sources import load_reader
from hf_distill.models.classes import reads_text, strangers_of
from hf_distill.models.meta import IMAGES
from hf_distill.models.texts import IDS
from hf_distill.tasks.pairing import kind_of, placeholders_of

INSTEAD = "let a training with teacher_cache=FOLDER and teacher_prepass=True fill the folder"
TEXTS = [kind for one in map(Value, ("string", "large_string")) for kind in (one, List(one), LargeList(one))]
PATCH = 16 * 16
"""So many pixels of an image are counted as a token."""


class Pairs(Sequence):
    """Rows of an image and one text each, of rows whose image has a text or several.

    Args:
        rows: with a column of images.
        column: of texts, or of lists of them.

    Raises:
        ValueError: a row without a text.
    """

    def __init__(self, rows: Dataset, column: str) -> None:
        self.rows, self.column = rows, column
        texts = rows.select_columns(column).with_format(None)[column]
        listed = [[one] if isinstance(one, str) else list(one or ()) for one in texts]
        if (row := next((n for n, some in enumerate(listed) if not some or None in some), None)) is not None:
            raise ValueError(f"row {row} has no text under {column!r}, or not each of them: leave such rows out.")
        self.pairs = [(row, text) for row, some in enumerate(listed) for text in some]

    def __len__(self) -> int:
        """Count the pairs."""
        return len(self.pairs)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return a pair; its image is decoded here."""
        row, text = self.pairs[index]
        return {**self.rows[row], self.column: text}


def pairs_of(rows: Dataset, model: PreTrainedModel, args: CacheArguments) -> tuple[Pairs, ImageTextCollator]:
    """Make of a data set the pairs that a training may see, and the collator that it uses; no image is changed.

    Args:
        rows: with images and texts.
        model: of two towers.
        args: which columns; how long texts are.

    Returns:
        An image with several texts is several pairs.

    Raises:
        ValueError: no such column, or no processor of both beside the teacher.
    """
    columns = {args.image_column: "--image_column", args.text_column: "--text_column"}
    if missing := [name for name in columns if name not in rows.column_names]:
        raise ValueError(
            f"{args.dataset_name} has the columns {rows.column_names}, {missing[0]!r} was asked for: name one with "
            f"{columns[missing[0]]}."
        )
    if not isinstance(rows.features[args.image_column], Image):
        raise ValueError(
            f"the column {args.image_column!r} of {args.dataset_name} holds {rows.features[args.image_column]}, no "
            "images (datasets.Image): name another with --image_column, or cast it."
        )
    if rows.features[args.text_column] not in TEXTS:
        raise ValueError(
            f"the column {args.text_column!r} of {args.dataset_name} holds {rows.features[args.text_column]}, no "
            "texts or lists of them: name another with --text_column."
        )
    name = args.tokenizer_name or args.teacher_model_name_or_path
    padding = {"padding": "max_length"} if args.pad_to_max_length else {}
    texts = {"image_column": args.image_column, "text_column": args.text_column, "max_length": args.max_length}
    try:
        collator = ImageTextCollator(load_reader(name, model), **texts, **padding)
    except TypeError as error:
        raise ValueError(str(error)) from error
    return Pairs(rows.select_columns([*columns]), args.text_column), collator


def lengths_in(pairs: Pairs, collator: ImageTextCollator) -> list[int]:
    """Say how much a pair is, in tokens; all alike, as the first one.

    Args:
        pairs: at least one.
        collator: makes batches of them.
    """
    first = collator([pairs[0]])
    return [first[IDS].shape[1] + first[IMAGES][0, 0].numel() // PATCH] * len(pairs)


def check_texts_alone(model: PreTrainedModel, rows: Dataset, name: str) -> None:
    """Refuse what is no text, in a model that reads none or in rows that hold more.

    Args:
        model: the teacher.
        rows: as they are loaded, or tokenised.
        name: the teacher's.

    Raises:
        ValueError: in one sentence.
    """
    if not (others := strangers_of(model)):
        return
    if not reads_text(model):
        raise ValueError(
            f"{name} reads {' and '.join(others)}, hf-distill cache reads texts, and pairs of an image and a text for "
            f"models of two towers: {INSTEAD}."
        )
    held = [n for n, one in rows.features.items() if "Image(" in repr(one) or kind_of(n) is not None]
    places = torch.tensor([*placeholders_of(model).values()])
    if not held and IDS in rows.column_names:
        held = [IDS] if any(torch.isin(torch.tensor(ids), places).any() for ids in rows[IDS]) else []
    if held:
        raise ValueError(
            f"{name} reads images among texts, of which the rows hold some ({held[0]}), hf-distill cache reads texts "
            f"alone: {INSTEAD}."
        )
