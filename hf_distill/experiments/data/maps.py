"""Images with a class for each pixel: folders in pairs, files with a column of maps, canvases of handwritten digits.

Knows: columns of images and of maps, names of classes, and how to refuse bad ones in a sentence. Does not know:
processors, models, training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
from datasets import Dataset, DatasetDict, Features, Image

from hf_distill.experiments.data.canvases import canvases
from hf_distill.experiments.data.files import DataArguments, Splits, check_columns, cut, limited, read_files
from hf_distill.experiments.data.images import check_pictures

NOTHING = 255
"""The number of a pixel without a class."""

DIGITS = ("background", *map(str, range(10)))
IMAGES, MAPS = "images", "maps"


@dataclass
class MapDataArguments(DataArguments):
    """Where the images and their maps come from; with nothing given, canvases of scikit-learn's digits."""

    embedded: ClassVar[str] = "canvases of scikit-learn digits"

    train_file: str | None = field(
        default=None,
        metadata={
            "help": "parquet with a column of images and one of maps, or a folder with images/ and maps/, whose files "
            "have the same names."
        },
    )
    image_column: str = field(default="image", metadata={"help": "The column with the image."})
    map_column: str = field(
        default="map",
        metadata={"help": "The column with its map: an image of one channel, the class of each pixel, 255 for none."},
    )
    class_names: str | None = field(
        default=None,
        metadata={"help": "A file with the name of a class on each line, in their order. Default: of the teacher, or"
        " numbers."},
    )  # fmt: skip
    reduce_labels: bool = field(
        default=False, metadata={"help": "In maps 0 is no class and 1 is the first one, as in ADE20k."}
    )
    labeled_samples: int | None = field(
        default=None,
        metadata={
            "help": "The student is told the maps of so many training images, the teacher speaks about all of them. "
            "A teacher that is trained here learns from all maps. Default: of all."
        },
    )


def load_maps(data: MapDataArguments, seed: int) -> Splits:
    """Load the splits, with images under ``image`` and their maps under ``map``.

    Args:
        data: where they come from.
        seed: of the draw, where fewer rows or maps are asked for than there are.

    Returns:
        ``train``, ``validation``, ``test`` and, if some maps only are told, ``unlabeled``, whose rows have theirs.

    Raises:
        ValueError: a missing file or column, a column without images, images and maps that are not in pairs.
    """
    splits = _folders(data) or read_files(data, canvases)
    wanted = [data.image_column, data.map_column]
    check_columns(data, splits, wanted, "--image_column and --map_column")
    for name, rows in splits.items():
        rows = rows.select_columns(wanted).rename_columns(
            {old: new for old, new in zip(wanted, ("image", "map"), strict=True) if old != new}
        )
        for column, asked in zip(("image", "map"), wanted, strict=True):
            check_pictures(rows, column, f"the column {asked!r} of the {name} rows")
        splits[name] = rows
    splits = limited(data, cut(splits, seed), seed)
    if (asked := data.labeled_samples) is not None:
        train = splits["train"]
        if not 0 < asked < len(train):
            raise ValueError(
                f"labeled_samples={asked} was given for {len(train)} training images: give at least one and fewer "
                "than there are, or leave it out."
            )
        order = np.random.default_rng(seed).permutation(len(train))
        told, others = np.sort(order[:asked]), np.sort(order[asked:])
        splits = DatasetDict({**splits, "train": train.select(told), "unlabeled": train.select(others)})
    return Splits(splits)


def names_of(data: MapDataArguments, rows: Dataset, teachers: Sequence[str] | None = None) -> list[str]:
    """Name the classes: as a file does, as a teacher does, or by the numbers that the maps have.

    Args:
        data: says where the names are.
        rows: of training; they are looked through where nothing else tells how many classes there are.
        teachers: the names of a finished teacher's classes, in its order.

    Raises:
        ValueError: a missing file, fewer names than a teacher has, or one class alone.
    """
    if data.class_names:
        if not Path(data.class_names).is_file():
            raise ValueError(f"class_names={data.class_names} was given, there is no such file: check the path.")
        names = Path(data.class_names).read_text(encoding="utf-8").splitlines()
        names = [name.strip() for name in names if name.strip()]
        if teachers is not None and len(names) != len(teachers):
            raise ValueError(
                f"{data.class_names} names {len(names)} classes, the teacher has {len(teachers)}: name as many."
            )
    elif teachers is not None:
        names = list(teachers)
    elif data.source == data.embedded:
        names = list(DIGITS)
    else:
        found = [numbers for row in rows.select_columns("map") if row["map"] is not None
                 for numbers in np.unique(np.asarray(row["map"])).tolist() if numbers != NOTHING]  # fmt: skip
        names = [f"LABEL_{number}" for number in range(max(found, default=0) + 1 - data.reduce_labels)]
    if len(names) < 2:
        raise ValueError(
            f"the maps have {len(names)} class, so there is nothing to learn: give maps of two classes or more, 255 "
            "being none."
        )
    return names


def _folders(data: MapDataArguments) -> DatasetDict | None:
    """Read folders of images and maps; None where the rows are no folders."""
    if not data.train_file or not Path(data.train_file).is_dir():
        return None
    given = {"train": data.train_file, "validation": data.validation_file, "test": data.test_file}
    found = {name: _pairs(Path(path)) for name, path in given.items() if path is not None}
    data.image_column, data.map_column = "image", "map"
    data.tested = "test" if "test" in found else "validation"
    return DatasetDict(found)


def _pairs(folder: Path) -> Dataset:
    both = [{path.stem: path for path in sorted((folder / part).glob("*.*"))} for part in (IMAGES, MAPS)]
    if not both[0] or (alone := sorted(both[0].keys() ^ both[1].keys())):
        lacking = f"{alone[0]} has no partner" if both[0] else f"{folder / IMAGES} holds no image"
        raise ValueError(
            f"{folder} was given as a folder of images and maps, and {lacking}: give each file in {IMAGES}/ one of "
            f"the same name in {MAPS}/."
        )
    features = Features({"image": Image(), "map": Image()})
    columns = {"image": [str(path) for path in both[0].values()], "map": [str(both[1][stem]) for stem in both[0]]}
    return Dataset.from_dict(columns, features=features)
