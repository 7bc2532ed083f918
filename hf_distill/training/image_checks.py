"""What must hold of images: before the first step that pixels will be made, and in a batch which image was none.

Knows: data sets with pictures, image processors, what decoders and processors raise. Does not know: labels, tasks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import datasets
from torch import nn
from transformers import PreTrainedTokenizerBase

from hf_distill.models.context import check_form
from hf_distill.models.meta import IMAGES, form_of, reads_images_alone
from hf_distill.models.outputs import core_of
from hf_distill.tasks.processors import prepares
from hf_distill.training.data_checks import data_sets, is_transformed

CHANNELS = re.compile("mean must have|std must have|channel dimension")
"""What image processors of transformers say of a picture that has no three colours."""
SIZES = re.compile("stack expects each tensor to be equal size|could not broadcast input array|inhomogeneous shape")
"""What is said where images of several sizes are put into one batch."""


def check_images(
    model: nn.Module,
    processor: Any,
    collator: Any,
    train: Any,
    evaluation: Any,
    kept: Callable[[], Collection[str] | None],
) -> None:
    """Refuse a processor of another kind of model, and pictures of which nobody makes pixels.

    Args:
        model: the student; one that reads other things than images is not looked at.
        processor: the trainer's processing class, or None.
        collator: the data collator.
        train: the training set, or None.
        evaluation: the evaluation set, several by name, or None.
        kept: names the columns that Trainer leaves in a row; None: all of them.

    Raises:
        ValueError: in one sentence.
    """
    if not reads_images_alone(model):
        return
    name = type(core_of(model)).__name__
    if isinstance(processor, PreTrainedTokenizerBase):
        raise ValueError(
            f"processing_class is a {type(processor).__name__}, which reads texts, the student {name} reads images: "
            "pass its image processor (AutoImageProcessor.from_pretrained)."
        )
    own = {"processing_class": processor, "data_collator's processor": getattr(collator, "processor", None)}
    for who, one in own.items():
        if (size := size_of(one)) is not None:
            meant = f"leave {who} out if it is meant so" if who == "processing_class" else "use another model"
            check_form(model, f"the student {name}", (form_of(model)[0], *size), f"the {who} makes", meant)
    for which, rows in data_sets(train, evaluation):
        _check_pictures(which, rows, collator, kept)


def size_of(processor: Any) -> tuple[int, int] | None:
    """Say how large the images are that a processor makes; None: it does not say, or they have several sizes.

    Args:
        processor: an image processor, or anything else.

    Example:
        >>> size_of(type("Own", (), {"do_resize": True, "size": {"height": 8, "width": 6}})()), size_of(None)
        ((8, 6), None)
    """
    told = prepares(processor)
    crops, resizes = told.get("do_center_crop"), told.get("do_resize")
    size = told.get("crop_size") if crops else told.get("size") if resizes else None
    both = [size.get(side) for side in ("height", "width")] if isinstance(size, Mapping) else [None]
    return tuple(both) if all(isinstance(side, int) for side in both) else None


def _check_pictures(which: str, rows: Any, collator: Any, kept: Callable[[], Collection[str] | None]) -> None:
    """Refuse a data set of pictures that no transform and no collator reads."""
    if not isinstance(rows, datasets.Dataset) or is_transformed(rows) or IMAGES in rows.column_names:
        return
    pictures, reads = _pictures_of(rows), getattr(collator, "columns", frozenset())
    if not pictures or set(pictures) & reads:
        return
    from hf_distill.training.label_checks import PASSING, default_data_collator

    makes = "pass data_collator=ImageCollator(processor), or a transform (dataset.with_transform) and"
    if collator is default_data_collator or type(collator) in PASSING:
        raise ValueError(
            f"{which} has pictures under {pictures[0]!r}, of which nothing makes {IMAGES}: {makes} "
            "remove_unused_columns=False."
        )
    left = kept()
    if left is not None and not set(pictures) & set(left):
        raise ValueError(
            f"{which} has pictures under {pictures[0]!r}, which remove_unused_columns=True takes away before the "
            "data_collator: set remove_unused_columns=False."
        )


def _pictures_of(rows: Any) -> list[str]:
    if not isinstance(rows, datasets.Dataset):
        return []
    return [name for name, feature in rows.features.items() if isinstance(feature, datasets.Image)]


def _holds_images(rows: Any) -> bool:
    listed = isinstance(rows, (list, tuple)) and len(rows) > 0 and isinstance(rows[0], Mapping)
    return bool(_pictures_of(rows)) or IMAGES in (rows[0] if listed else getattr(rows, "column_names", None) or ())


@contextmanager
def naming_bad_images(rows: Any, which: str) -> Iterator[None]:
    """While batches are drawn, say which row has the image that cannot be decoded, or has other colours.

    Only once something has failed are the images looked through: a look before would decode each of them once more.

    Args:
        rows: the data set that is read; only a ``datasets.Dataset`` with pictures is looked through.
        which: how to name it.

    Raises:
        ValueError: in one sentence, which names the first such row and its file.
    """
    try:
        yield
    except Exception as error:
        said = str(error)
        torn = isinstance(error, (OSError, SyntaxError)) or type(error).__name__ == "DecompressionBombError"
        if torn or "DecompressionBombError" in said:
            _raise_undecodable(rows, which, error)
        elif CHANNELS.search(said) and isinstance(error, ValueError):
            _raise_colours(rows, which, error)
        elif SIZES.search(said) and _holds_images(rows):
            raise ValueError(
                f"images of {which} have several sizes in one batch ({_last(said)}): resize them (do_resize and size= "
                "of the image processor)."
            ) from error
        raise


def _undecoded(rows: datasets.Dataset) -> Iterator[tuple[int, Any]]:
    """What stands in the table for each picture."""
    for name in _pictures_of(rows):
        column = rows.with_format(None).select_columns(name).cast_column(name, datasets.Image(decode=False))
        yield from ((number, row[name]) for number, row in enumerate(column) if row[name] is not None)


def _raise_undecodable(rows: Any, which: str, error: Exception) -> None:
    from hf_distill.augmentation.image_collator import decoded  # needs Pillow, as images do

    for number, found in _undecoded(rows):
        try:
            decoded(found, f"row {number} of {which}")
        except ValueError as told:
            raise ValueError(str(told)) from error


def _raise_colours(rows: Any, which: str, error: Exception) -> None:
    from PIL import Image

    for number, found in _undecoded(rows):
        with Image.open(found["path"] if found["bytes"] is None else BytesIO(found["bytes"])) as picture:
            if picture.mode != "RGB":
                raise ValueError(
                    f"row {number} of {which} has a picture of the mode {picture.mode!r}, of which no pixels could "
                    f'be made ({_last(str(error))}): convert pictures first (image.convert("RGB")), as ImageCollator '
                    "does."
                ) from error


def _last(said: str) -> str:
    """The last line of what was said: a worker of a loader puts its traceback before it."""
    return said.strip().splitlines()[-1][:120].rstrip(".")
