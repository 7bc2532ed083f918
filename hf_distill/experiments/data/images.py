"""Images with a class each: folders, files with an image column, the handwritten digits that come with scikit-learn.

Knows: columns, labels, and how to refuse bad ones in a sentence. Does not know: processors, models, training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, load_dataset

from hf_distill.experiments.data.class_labels import number_labels
from hf_distill.experiments.data.few_labels import few_labels
from hf_distill.experiments.data.files import DataArguments, Splits, check_columns, cut, limited, read_files

TEST, VALIDATION = 450, 197
"""Of the 1,797 digits, which no split of their own divides."""


@dataclass
class ImageDataArguments(DataArguments):
    """Where the images come from; with nothing given, the digits of scikit-learn."""

    embedded: ClassVar[str] = "scikit-learn digits"

    train_file: str | None = field(
        default=None, metadata={"help": "parquet with an image column, or a folder with one folder a class."}
    )
    image_column: str = field(default="image", metadata={"help": "The column with the image."})
    label_column: str = field(default="label", metadata={"help": "The column with the class: a name or a number."})
    labeled_samples: int | None = field(
        default=None,
        metadata={
            "help": "The student is told the labels of so many training images, the teacher speaks about all of them. "
            "A teacher that is trained here learns from all labels. Default: of all."
        },
    )


def load_images(data: ImageDataArguments, seed: int, order: Mapping[str, int] | None = None) -> Splits:
    """Load the splits, with images under ``image`` and the class under ``label`` as a ``ClassLabel``.

    Args:
        data: where the images come from.
        seed: of the draw, where fewer rows or labels are asked for than there are.
        order: class name -> number, of a teacher; it is taken over if the rows have the same names.

    Returns:
        ``train``, ``validation``, ``test`` and, if some labels only are told, ``unlabeled``, whose rows have their
        label under ``hidden_label`` and -100 under ``label``.

    Raises:
        ValueError: a missing file or column, a column without images, a label that no training row has.
    """
    splits = _folders(data) or read_files(data, digits)
    wanted = [data.image_column, data.label_column]
    check_columns(data, splits, wanted, "--image_column and --label_column")
    for name, rows in splits.items():
        rows = rows.select_columns(wanted).rename_columns(
            {old: new for old, new in zip(wanted, ("image", "label"), strict=True) if old != new}
        )
        check_pictures(rows, "image", f"the column {data.image_column!r} of the {name} rows")
        splits[name] = rows
    splits = limited(data, cut(number_labels(splits, order, data.cells), seed), seed)
    if data.labeled_samples is not None:
        splits = few_labels(splits, data.labeled_samples, seed, "images")
    return Splits(splits)


def check_pictures(rows: Dataset, column: str, who: str) -> None:
    """Refuse a column that holds no images.

    Args:
        rows: with the column.
        column: its name, after which the flag that names another is called.
        who: how a message names it.

    Raises:
        ValueError: in one sentence.
    """
    if not isinstance(rows.features[column], Image):
        raise ValueError(
            f"{who} holds {rows.features[column]}, no images: cast it (dataset.cast_column(name, datasets.Image())), "
            f"or name another with --{column}_column."
        )


def digits() -> DatasetDict:
    """Make splits of the handwritten digits that come with scikit-learn: 1,797 images of 8 x 8 pixels.

    Raises:
        ImportError: scikit-learn or Pillow is not installed.
    """
    try:
        from PIL import Image as Picture
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(
            'the embedded digits come with scikit-learn and need Pillow: pip install "hf_distill[recipes]".'
        ) from error
    found = load_digits()
    order = np.random.default_rng(0).permutation(len(found.target))
    ends = np.cumsum([len(order) - TEST - VALIDATION, VALIDATION, TEST])
    features = Features({"image": Image(), "label": ClassLabel(names=[str(number) for number in range(10)])})
    pictures = [Picture.fromarray((image * 255 / 16).astype(np.uint8)) for image in found.images]
    splits = {
        name: Dataset.from_dict(
            {"image": [pictures[i] for i in chosen], "label": found.target[chosen].tolist()}, features=features
        )
        for name, chosen in zip(("train", "validation", "test"), np.split(order, ends[:-1]), strict=True)
    }
    return DatasetDict(splits)


def _folders(data: ImageDataArguments) -> DatasetDict | None:
    """Read folders of images, one folder a class; None where the rows are no folders."""
    if not data.train_file or not Path(data.train_file).is_dir():
        return None
    given = {"train": data.train_file, "validation": data.validation_file, "test": data.test_file}
    found = {}
    for name, path in given.items():
        if path is None:
            continue
        if not Path(path).is_dir():
            raise ValueError(
                f"{name} images were asked from {path}, which is no folder as {data.train_file} is: give one."
            )
        try:
            found[name] = load_dataset("imagefolder", data_dir=path, split="train")
        except Exception as error:  # datasets raises its own kinds; all mean the same to the user
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ValueError(
                f"{path} could not be read as folders of images ({reason}): give one folder a class."
            ) from error
    data.tested = "test" if "test" in found else "validation"
    return DatasetDict(found)
