"""A collator of images: decodes them, lets chance change them in training, and hands them to a model's processor.

Knows: rows with an image and a label or a map of classes, image processors, chance that hangs on an image's content
and the epoch alone. Does not know: models, losses, trainers, what a view makes of an image.
"""

from __future__ import annotations

import copy
import inspect
import re
from array import array
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
import xxhash
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from hf_distill.augmentation.mixing import Mixing, mixed
from hf_distill.augmentation.views import NOTHING, Image, View, seen, seen_map
from hf_distill.tasks.alignment.tokenizers import PREFIX
from hf_distill.tasks.processors import prepares

PIXELS = "pixel_values"
LABELS = ("labels", "label")


class ImageCollator:
    """Makes batches of images and classes, with the same view of an image for the teacher and the student.

    In training (``for_training``, which the trainer asks for its training batches) an image is changed by ``views``.
    What becomes of it hangs on ``seed``, its own pixels and the epoch: not on ranks, workers, the order of the rows or
    the step at which a run was resumed. With ``recurring=K`` only on the epoch modulo K: each image then has K views,
    and a teacher whose answers are kept is asked K times for it, however long the training is.

    Args:
        processor: the student's image processor, as ``processing_class``.
        teacher_processor: the teacher's, if its own differs in what it makes of an image: the batch then has
            ``teacher_pixel_values`` too.
        views: what changes images in training; none: nothing does.
        recurring: how many views an image has; None: a new one in every epoch.
        mixup: blends each image with another of its micro-batch, by a share drawn from Beta(mixup, mixup); such a row
            has no label, so a teacher alone speaks about it. 0: none is blended.
        cutmix: likewise pastes a part of another one, of an area drawn from Beta(cutmix, cutmix); with both, each row
            goes through one of the two, by chance.
        image_column: of the rows: images, arrays, or bytes of an encoded image.
        map_column: of the rows: images or arrays of one channel, the class of each pixel, as large as the image; they
            are moved as it is, the processor brings them to its size, and they are the labels [B, height, width].
            None: a row has one class. A row whose map is None has pixels without a class.
        seed: of what is drawn.

    Raises:
        ValueError: an image that cannot be decoded, or a row without one; a map that is none, or not as large; views
            that cannot move one, or a processor that makes no labels of it.
        TypeError: a tokenizer in the place of a processor.

    Reference:
        Beyer et al.: Knowledge Distillation: A Good Teacher is Patient and Consistent, arXiv:2106.05237 (the same view
        for both models, mixup, long schedules); Wu et al.: TinyViT, arXiv:2207.10666 (views that recur).

    Example:
        >>> from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil
        >>> processor = ViTImageProcessorPil(size={"height": 8, "width": 8})
        >>> rows = [{"image": Image.new("L", (4, 4), 10 * number), "label": number} for number in range(3)]
        >>> batch = ImageCollator(processor)(rows)
        >>> batch["pixel_values"].shape, batch["labels"].tolist()
        (torch.Size([3, 3, 8, 8]), [0, 1, 2])
    """

    def __init__(
        self,
        processor: Any,
        teacher_processor: Any = None,
        views: Sequence[View] = (),
        recurring: int | None = None,
        mixup: float = 0.0,
        image_column: str = "image",
        seed: int = 0,
        cutmix: float = 0.0,
        map_column: str | None = None,
    ) -> None:
        if recurring is not None and (isinstance(recurring, bool) or not isinstance(recurring, int) or recurring < 1):
            raise ValueError(f"recurring={recurring!r} was given: give how many views an image has, at least 1.")
        if recurring is not None and not views:
            raise ValueError("recurring was given without views, so there is nothing that could recur: name views.")
        fixed = [one for one in views if map_column is not None and not hasattr(one, "on_map")]
        if fixed:
            raise ValueError(
                f"the view {getattr(fixed[0], '__name__', type(fixed[0]).__name__)} was given with maps, which it "
                "cannot move as it moves their images: give it a method on_map(map, draw), or leave it out."
            )
        for one in (processor, teacher_processor):
            if isinstance(one, PreTrainedTokenizerBase):
                raise TypeError(
                    f"ImageCollator was given a {type(one).__name__}, which reads texts: pass the image processor of "
                    "the model (AutoImageProcessor.from_pretrained)."
                )
        differs = teacher_processor is not None and prepares(teacher_processor) != prepares(processor)
        self.processor, self.teacher_processor = processor, teacher_processor if differs else None
        self.views, self.recurring, self.image_column = tuple(views), recurring, image_column
        self.mixing = Mixing(mixup, cutmix)
        self.map_column, self.seed, self.epoch, self.training, self.copies = map_column, seed, 0, False, 0

    @property
    def columns(self) -> frozenset[str]:
        """The columns of the data set that it reads."""
        return frozenset({self.image_column, *(LABELS if self.map_column is None else (self.map_column,))})

    def for_training(self, taught: bool = True) -> ImageCollator | None:
        """Return the collator of training batches; None where they are made as all others are.

        Args:
            taught: whether a teacher is heard, who alone can speak about a mixed image; without one none is mixed.
        """
        changing = copy.copy(self)
        changing.training, changing.mixing = True, self.mixing if taught else Mixing()
        return changing if changing.views or changing.mixing else None

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Make a batch.

        Args:
            rows: what the data set gave for one micro-batch.

        Returns:
            ``pixel_values`` [B, 3, height, width], ``labels`` [B], or [B, height, width] of maps, where all rows have
            some, and where the teacher reads its own ``teacher_pixel_values``.
        """
        images = [self._image(row, number) for number, row in enumerate(rows)]
        maps = self._maps(rows, images)
        draws = [Random(self._chance(image)) for image in images] if self.training else []
        if self.training:
            states = [draw.getstate() for draw in draws]
            images = [seen(image, self.views, draw) for image, draw in zip(images, draws, strict=True)]
            for number, state in enumerate(states if maps else ()):
                (again := Random()).setstate(state)
                maps[number] = seen_map(maps[number], self.views, again)
        batch = {PIXELS: _pixels(self.processor, images)} if not maps else _labelled(self.processor, images, maps)
        if self.teacher_processor is not None:
            batch[PREFIX + PIXELS] = _pixels(self.teacher_processor, images)
        name = next((one for one in LABELS if all(row.get(one) is not None for row in rows)), None)
        if name is not None and self.map_column is None:
            batch["labels"] = torch.tensor(np.stack([np.asarray(row[name]) for row in rows]))
        if self.training and self.mixing and len(rows) > 1:
            self._mix(batch, draws)
        return batch

    def _mix(self, batch: dict[str, Tensor], draws: Sequence[Random]) -> None:
        plan = self.mixing.plan(draws)
        for name in (PIXELS, PREFIX + PIXELS):
            if name in batch:
                batch[name] = mixed(batch[name], plan)
        if "labels" in batch:
            nothing = torch.nan if batch["labels"].is_floating_point() else -100
            nothing = nothing if self.map_column is None else NOTHING
            batch["labels"] = torch.full_like(batch["labels"], nothing)

    def _chance(self, image: Image.Image) -> int:
        epoch = self.epoch if self.recurring is None else self.epoch % self.recurring
        return xxhash.xxh3_64_intdigest(array("q", [self.seed, epoch, *image.size]).tobytes() + image.tobytes())

    def _image(self, row: Mapping[str, Any], number: int) -> Image.Image:
        if (found := row.get(self.image_column)) is None:
            raise ValueError(
                f"row {number} of a batch has no {self.image_column!r}, only {sorted(row)}: name the column of the "
                "images (image_column), and set remove_unused_columns=False if a transform makes it."
            )
        return decoded(found, f"row {number} of a batch")

    def _maps(self, rows: Sequence[Mapping[str, Any]], images: Sequence[Image.Image]) -> list[Image.Image]:
        """The maps, as large as their images, where rows have some: without a class where there is None."""
        if self.map_column is None or not any(self.map_column in row for row in rows):
            return []
        maps = []
        for number, (row, image) in enumerate(zip(rows, images, strict=True)):
            found = row.get(self.map_column)
            one = (
                Image.new("L", image.size, NOTHING) if found is None else classes_in(found, f"row {number} of a batch")
            )
            maps.append(one)
            if one.size != image.size:
                raise ValueError(
                    f"row {number} of a batch has a map of {one.width} x {one.height} pixels for an image of "
                    f"{image.width} x {image.height}: give each image a map that is as large."
                )
        return maps


def decoded(found: Any, who: str) -> Image.Image:
    """Make an image of three colours of what a data set holds for one.

    Args:
        found: an image, an array [H, W] or [H, W, C] of bytes, a file, its bytes, or what datasets holds for one.
        who: names the row in a message.

    Raises:
        ValueError: it is no image.

    Example:
        >>> image = decoded(np.zeros((2, 3), dtype=np.uint8), "row 0")
        >>> image.size, image.mode
        ((3, 2), 'RGB')
    """
    try:
        return opened(found).convert("RGB")  # which reads a file to its end
    except UNREADABLE as error:
        reason = _reason(error, found)
        raise ValueError(
            f"{who} has an image that cannot be decoded ({reason}): correct the file, or leave the row out."
        ) from error


def classes_in(found: Any, who: str) -> Image.Image:
    """Make a map of classes, a number for each pixel, of what a data set holds for one.

    Args:
        found: an image of one channel, its numbers or a palette's; an array [H, W] of whole numbers; the bytes of a
            file, or what datasets holds for one.
        who: names the row in a message.

    Returns:
        An image of the mode ``L``, of bytes.

    Raises:
        ValueError: it is none, or has a number that image processors do not take.

    Example:
        >>> one = classes_in(np.array([[0, 149]]), "row 0")
        >>> one.size, one.mode, one.getpixel((1, 0))
        ((2, 1), 'L', 149)
    """
    try:
        numbers = np.asarray(found if isinstance(found, np.ndarray) else opened(found))
    except UNREADABLE as error:
        reason = _reason(error, found)
        raise ValueError(
            f"{who} has a map that cannot be decoded ({reason}): correct the file, or leave the row out."
        ) from error
    if numbers.ndim != 2 or numbers.dtype.kind not in "iub":
        raise ValueError(
            f"{who} has a map of shape {list(numbers.shape)} and type {numbers.dtype}: give one channel of whole "
            "numbers, the class of each pixel."
        )
    if numbers.size and not 0 <= numbers.min() <= numbers.max() <= NOTHING:
        wrong = int(numbers.min() if numbers.min() < 0 else numbers.max())
        raise ValueError(
            f"{who} has the class {wrong} in its map, image processors take 0 to {NOTHING}, which is none: give the "
            "classes other numbers."
        )
    return Image.fromarray(numbers.astype(np.uint8))


UNREADABLE = (OSError, SyntaxError, TypeError, ValueError, Image.DecompressionBombError)
"""What Pillow cannot identify is an OSError, a torn PNG bad syntax."""


def _reason(error: Exception, found: Any) -> str:
    """What is wrong with a file, and which it is; where its bytes lie says nothing."""
    reason = " ".join(re.sub(r"<_io\.BytesIO.*?>", "", str(error)).split())[:80]
    named = isinstance(found, Mapping) and found.get("path") and found["path"] not in reason
    return f"{found['path']}: {reason}" if named else reason


def opened(found: Any) -> Image.Image:
    """Open what a data set holds for an image, with the channels that it has.

    Args:
        found: as ``decoded`` takes it.
    """
    data = found
    if isinstance(found, Mapping):  # as datasets holds an image that is not decoded yet
        data = found.get("bytes") if found.get("bytes") is not None else Path(found.get("path") or "")
    if isinstance(data, (bytes, bytearray, Path)):
        return Image.open(BytesIO(data.read_bytes() if isinstance(data, Path) else data))
    return data if isinstance(data, Image.Image) else Image.fromarray(np.asarray(data, dtype=np.uint8))


def _labelled(processor: Any, images: Sequence[Image.Image], maps: Sequence[Image.Image]) -> dict[str, Tensor]:
    """Pixels and maps of the same size, as a processor of segmenters makes them."""
    if "segmentation_maps" not in inspect.signature(processor.preprocess).parameters:
        raise ValueError(
            f"{type(processor).__name__} was given maps of classes, of which it makes no labels: use the image "
            "processor of a segmenter, such as SegformerImageProcessor."
        )
    made = processor(list(images), segmentation_maps=[np.array(one) for one in maps], return_tensors="pt")
    return {PIXELS: made[PIXELS], "labels": made["labels"]}


def _pixels(processor: Any, images: Sequence[Image.Image]) -> Tensor:
    return processor(list(images), return_tensors="pt")[PIXELS]
