"""A collator of images with boxes: decodes them, turns some over in training, hands them to a detector's processor.

Knows: rows with an image and objects as COCO has them, image processors. Does not know: models, losses, trainers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from PIL import ImageOps

from hf_distill.augmentation.image_collator import PIXELS, ImageCollator
from hf_distill.augmentation.views import Flip
from hf_distill.tasks.alignment.tokenizers import PREFIX


class BoxCollator(ImageCollator):
    """Makes batches of images and boxes by an image processor, which makes labels of COCO's annotations.

    Args:
        processor: the student's.
        teacher_processor: the teacher's, if it makes something else of an image.
        flip: whether every other training image is turned over, its boxes with it; see ``ImageCollator`` for what
            that hangs on.
        seed: of what is drawn.

    Example:
        >>> from PIL import Image
        >>> from transformers.models.rt_detr.image_processing_pil_rt_detr import RTDetrImageProcessorPil
        >>> processor = RTDetrImageProcessorPil(size={"height": 32, "width": 32})
        >>> rows = [{"image": Image.new("RGB", (8, 4)), "objects": {"bbox": [[2, 1, 4, 2]], "category": [3]}}]
        >>> batch = BoxCollator(processor)(rows)
        >>> batch["pixel_values"].shape, batch["labels"][0]["class_labels"].tolist(), batch["labels"][0]["boxes"]
        (torch.Size([1, 3, 32, 32]), [3], tensor([[0.5000, 0.5000, 0.5000, 0.5000]]))
    """

    def __init__(self, processor: Any, teacher_processor: Any = None, flip: bool = False, seed: int = 0) -> None:
        super().__init__(processor, teacher_processor, [Flip()] if flip else [], seed=seed)

    @property
    def columns(self) -> frozenset[str]:
        """The columns of the data set that it reads."""
        return frozenset({self.image_column, "objects"})

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Make a batch.

        Args:
            rows: with ``image`` and, where they are known, ``objects``: lists ``bbox`` ([x, y, width, height] in
                pixels) and ``category``.

        Returns:
            What the processor makes: ``pixel_values`` and perhaps ``pixel_mask``; ``labels``, a dict for each image,
            where all rows have objects; ``teacher_pixel_values`` where the teacher reads its own.
        """
        images = [self._image(row, number) for number, row in enumerate(rows)]
        known = all(row.get("objects") is not None for row in rows)
        found = [_annotations(row["objects"]) for row in rows] if known else None
        for number, image in enumerate(images if self.training else ()):
            if Random(self._chance(image)).random() >= 0.5:
                images[number] = ImageOps.mirror(image)
                for one in found[number] if known else ():
                    one["bbox"][0] = image.width - one["bbox"][0] - one["bbox"][2]
        told = [{"image_id": number, "annotations": one} for number, one in enumerate(found)] if known else None
        made = self.processor(images=images, annotations=told, return_tensors="pt")
        batch = {name: value for name, value in made.items() if name != "labels"}
        if known:
            batch["labels"] = [dict(one) for one in made["labels"]]
        if self.teacher_processor is not None:
            batch[PREFIX + PIXELS] = self.teacher_processor(images=images, return_tensors="pt")[PIXELS]
        return batch


def _annotations(objects: Mapping[str, Sequence]) -> list[dict[str, Any]]:
    """COCO's annotations of one image."""
    boxes, classes = objects["bbox"], objects["category"]
    areas = objects.get("area") or [box[2] * box[3] for box in boxes]
    return [
        {"bbox": list(box), "category_id": label, "area": area, "iscrowd": 0}
        for box, label, area in zip(boxes, classes, areas, strict=True)
    ]
