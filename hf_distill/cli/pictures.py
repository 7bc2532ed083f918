"""What a command reads where the teacher reads images: the pixels of a folder or a file.

Knows: files of images, columns of images, image processors. Does not know: what is done with the pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from datasets import Dataset, Image
from torch import Tensor

from hf_distill.cli.arguments import SourceArguments, StudentArguments
from hf_distill.cli.sources import load_rows

BATCH = 16


def pixels_of(path: str, args: StudentArguments, processor: Any) -> list[dict[str, Tensor]]:
    """Make batches of the images of a folder, or of a file with an image column.

    Args:
        path: of either.
        args: which column, how many rows.
        processor: the teacher's.

    Raises:
        ValueError: there is no such path or column, no image in it, or one that cannot be decoded.
    """
    from hf_distill.augmentation.image_collator import PIXELS, decoded  # needs Pillow, as images do

    found = islice(_images(path, args), args.calibration_samples)
    images = [decoded(image, who) for image, who in found]
    if not images:
        raise ValueError(f"images were asked from {path}, which has none: name a folder or a file that has.")
    parts = [images[start : start + BATCH] for start in range(0, len(images), BATCH)]
    return [{PIXELS: processor(part, return_tensors="pt")[PIXELS]} for part in parts]


def _images(path: str, args: StudentArguments) -> Iterator[tuple[Any, str]]:
    """What a folder or a file holds for each image, and how a message names it."""
    place = Path(path)
    if not place.exists():
        raise ValueError(f"images were asked from {path}, there is no such file or folder: check the path.")
    if place.is_dir() and not (place / "dataset_info.json").is_file():
        yield from ((file, str(file)) for file in _files(place))
        return
    rows, column = load_rows(SourceArguments(args.teacher, path)), args.image_column
    if not isinstance(rows.features.get(column), Image):
        raise ValueError(
            f"{path} has the columns {rows.column_names}, and images were asked from {column!r}: name a column of "
            "images (datasets.Image) with --image_column, or a folder of images."
        )
    yield from ((row[column], f"row {number} of {path}") for number, row in enumerate(_undecoded(rows, column)))


def _files(folder: Path) -> Iterator[Path]:
    from PIL import Image as Pictures

    known = Pictures.registered_extensions()
    return (file for file in sorted(folder.rglob("*")) if file.is_file() and file.suffix.lower() in known)


def _undecoded(rows: Dataset, column: str) -> Dataset:
    """The rows with the bytes of each image, which are decoded where a fault can be named."""
    return rows.select_columns(column).cast_column(column, Image(decode=False))
