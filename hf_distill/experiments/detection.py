"""Models that find objects in images: their batches, how well they find, and small ones that are made here.

Knows: image processors, what Trainer predicts, shapes of RT-DETR. Does not know: data sets, how a model is trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import torch
from datasets import Dataset
from transformers import AutoImageProcessor, EvalPrediction, RTDetrConfig, RTDetrResNetConfig, Trainer

from hf_distill.augmentation.image_collator import ImageCollator
from hf_distill.experiments.models import ModelArguments
from hf_distill.experiments.scoring import Column, Measurement, Scoring, percent
from hf_distill.experiments.settings import arguments_for
from hf_distill.experiments.without_autocast import plainly
from hf_distill.models.sharding import unsharded
from hf_distill.reports.detection import Boxes, ap_shares, average_precision

TEACHER = "teacher_pixel_values"


@dataclass
class DetectorArguments(ModelArguments):
    """Which detectors, and how large those are that are made here: RT-DETR with a residual network of four stages."""

    teacher_layers: int = field(default=2, metadata={"help": "Layers of the decoder of a teacher made here."})
    teacher_hidden_size: int = field(default=32, metadata={"help": "Its width, a multiple of 8."})
    teacher_epochs: float = field(default=20.0, metadata={"help": "Epochs of training or fine-tuning the teacher."})
    teacher_learning_rate: float = field(default=2e-3, metadata={"help": "Its peak learning rate."})
    student_layers: int = field(default=1, metadata={"help": "Layers of the decoder of a student made here."})
    student_hidden_size: int = field(default=16, metadata={"help": "Its width, a multiple of 8."})
    queries: int = field(default=10, metadata={"help": "How many objects a detector made here can find in an image."})
    image_size: int = field(
        default=64, metadata={"help": "Height and width in pixels where no model is given, a multiple of 32."}
    )
    flip: bool = field(default=False, metadata={"help": "In training every other image is turned over."})

    def check(self) -> None:
        """Refuse settings that contradict each other; see the base."""
        for name in ("lora_rank", "student_from_teacher"):
            if value := getattr(self, name):
                raise ValueError(
                    f"{name}={value} was given, which this recipe does not do: leave it out, or pass a model of your "
                    "own to DistillationTrainer in a script."
                )
        if self.queries < 1:
            raise ValueError(f"queries={self.queries} was given: give 1 or more.")
        if self.image_size < 32 or self.image_size % 32:
            raise ValueError(f"image_size={self.image_size} was given: give a multiple of 32.")
        super().check()

    def check_width(self, name: str) -> None:
        """Refuse a width that four heads and half as many channels cannot have; see the base."""
        if (width := getattr(self, name)) < 8 or width % 8:
            raise ValueError(f"{name}={width} was given: give a multiple of 8.")


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
        >>> rows = [{"image": Image.new("RGB", (8, 4)), "objects": {"bbox": [[2, 1, 4, 2]], "category": [3]}}]
        >>> batch = BoxCollator(made_processor(32))(rows)
        >>> batch["pixel_values"].shape, batch["labels"][0]["class_labels"].tolist(), batch["labels"][0]["boxes"]
        (torch.Size([1, 3, 32, 32]), [3], tensor([[0.5000, 0.5000, 0.5000, 0.5000]]))
    """

    def __init__(self, processor: Any, teacher_processor: Any = None, flip: bool = False, seed: int = 0) -> None:
        super().__init__(processor, teacher_processor, [_mirror] if flip else [], seed=seed)

    @property
    def columns(self) -> frozenset[str]:
        """The columns of the data set that it reads."""
        return frozenset({self.image_column, "objects"})

    @property
    def teachers(self) -> BoxCollator:
        """A collator of what the teacher reads."""
        return BoxCollator(self.teacher_processor or self.processor)

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
                images[number] = _mirror(image)
                for one in found[number] if known else ():
                    one["bbox"][0] = image.width - one["bbox"][0] - one["bbox"][2]
        told = [{"image_id": number, "annotations": one} for number, one in enumerate(found)] if known else None
        made = self.processor(images=images, annotations=told, return_tensors="pt")
        batch = {name: value for name, value in made.items() if name != "labels"}
        if known:
            batch["labels"] = [dict(one) for one in made["labels"]]
        if self.teacher_processor is not None:
            batch[TEACHER] = self.teacher_processor(images=images, return_tensors="pt")["pixel_values"]
        return batch


class DetectionScoring(Scoring):
    """COCO's average precision: over overlaps, at .5, at .75, and of each class.

    Args:
        collator: of the batches; its processors read what the models show.
        names: of the classes, in their order.
    """

    score: ClassVar[str] = "ap"
    plotted: ClassVar[tuple[str, str]] = ("ap", "{split} AP")
    columns: ClassVar[Mapping[str, Column]] = {
        "AP %": percent("ap"),
        "AP50 %": percent("ap50"),
        "AP75 %": percent("ap75"),
    }
    hub: ClassVar[Mapping[str, str]] = {"mean_average_precision": "ap"}
    speed_rows: ClassVar[int] = 512
    unit: ClassVar[str] = "images"
    each: ClassVar[str] = "images"

    def __init__(self, collator: BoxCollator, names: Sequence[str]) -> None:
        self.collator, self.names = collator, list(names)

    def compute_metrics(self, predicted: EvalPrediction) -> dict[str, float]:
        """Measure the validation rows, while a model is trained: Trainer's ``compute_metrics``."""
        found = average_precision(*boxes_of(predicted, self.collator.processor), len(self.names))
        return {"ap": found.ap, "ap50": found.ap50, "ap75": found.ap75}

    def evaluate(self, trainers: Mapping[str, Trainer], rows: Dataset, reference: Trainer) -> dict[str, Measurement]:
        """Let the teacher and the students find; see ``Scoring.measure``."""
        own = arguments_for(reference.args, "", eval_strategy="no")  # nothing is written: no folder of its own
        theirs = self.collator.teachers
        teacher = type(reference)(unsharded(reference.teacher.model), own, data_collator=theirs)
        processors = {"teacher": theirs.processor, **dict.fromkeys(trainers, self.collator.processor)}
        with plainly(teacher):  # as its students are, by whoever looks at them
            shown = {name: one.predict(rows) for name, one in {"teacher": teacher, **trainers}.items()}
        return {name: self.measurement(*boxes_of(one, processors[name], len(rows))) for name, one in shown.items()}

    def measurement(self, found: Sequence[Boxes], truths: Sequence[Boxes]) -> Measurement:
        """Measure one model's boxes.

        Args:
            found: of each image.
            truths: what is there.
        """
        whole = average_precision(found, truths, len(self.names))
        figures = {"ap50": whole.ap50, "ap75": whole.ap75}
        return Measurement({"ap": ap_shares(found, truths, len(self.names))}, figures, whole.classes)

    def details(self, measurements: Mapping[str, Measurement]) -> dict[str, Any]:
        """The average precision of each class, of each model."""
        return {
            "class_ap": {
                name: {model: float(one.predictions[number]) for model, one in measurements.items()}
                for number, name in enumerate(self.names)
            }
        }


def boxes_of(predicted: Any, processor: Any, images: int | None = None) -> tuple[list[Boxes], list[Boxes]]:
    """Read the boxes that a model found, and those that are there, off what Trainer predicted.

    Args:
        predicted: with ``predictions`` and ``label_ids``, a list of batches each (``eval_do_concat_batches=False``).
        processor: the model's, which knows how its queries become boxes.
        images: how many there are: over several processes Trainer may repeat some behind the last one; None: all.

    Raises:
        ValueError: the batches were put together, which mixes the boxes of images up.
    """
    if not isinstance(predicted.predictions, list):
        raise ValueError(
            "eval_do_concat_batches=True was given, which puts the boxes of one batch's images behind those of "
            "another's: set eval_do_concat_batches=False."
        )
    found, truths = [], []
    for outputs, labels in zip(predicted.predictions, predicted.label_ids, strict=True):
        logits, queries = [torch.from_numpy(one) for one in outputs if isinstance(one, np.ndarray)][:2]
        sizes = torch.tensor(np.stack([one["orig_size"] for one in labels]))
        shown = SimpleNamespace(logits=logits, pred_boxes=queries)
        for one in processor.post_process_object_detection(shown, threshold=0.0, target_sizes=sizes):
            found.append(Boxes(one["boxes"].numpy(), one["labels"].numpy(), one["scores"].numpy()))
        for one in labels:
            (height, width), (x, y, wide, high) = one["orig_size"], one["boxes"].reshape(-1, 4).T
            corners = np.stack([x - wide / 2, y - high / 2, x + wide / 2, y + high / 2], axis=1)
            truths.append(Boxes(corners * [width, height, width, height], one["class_labels"]))
    return found[:images], truths[:images]


def blank_detector(recipe: DetectorArguments, processor: Any) -> RTDetrConfig:
    """Shape an RT-DETR that is trained from nothing.

    Args:
        recipe: its sizes.
        processor: of its images; three channels.
    """
    return _rt_detr(recipe.teacher_hidden_size, recipe.teacher_layers, recipe.queries)


def small_detector(recipe: DetectorArguments, shape: Any) -> RTDetrConfig:
    """Shape a student of a teacher that is an RT-DETR.

    Args:
        recipe: its sizes.
        shape: the teacher.

    Raises:
        ValueError: the teacher is none.
    """
    if not isinstance(shape.config, RTDetrConfig):
        raise ValueError(
            f"a student is made here of an RT-DETR teacher, the teacher is {type(shape).__name__}: name a student "
            "with --student_model_name_or_path."
        )
    return _rt_detr(recipe.student_hidden_size, recipe.student_layers, recipe.queries)


def _rt_detr(width: int, layers: int, queries: int) -> RTDetrConfig:
    """A detector for small images: maps at a quarter, an eighth and a sixteenth of their size."""
    widths = [width // 2, width, width]
    backbone = RTDetrResNetConfig(
        embedding_size=width // 2, hidden_sizes=widths, depths=[1] * 3, layer_type="basic",
        out_features=["stage1", "stage2", "stage3"],
    )  # fmt: skip
    return RTDetrConfig(
        backbone_config=backbone, freeze_backbone_batch_norms=False, encoder_in_channels=widths,
        feat_strides=[4, 8, 16], encoder_hidden_dim=width, encoder_layers=1, encoder_attention_heads=4,
        encoder_ffn_dim=2 * width, hidden_expansion=0.5, eval_size=None, d_model=width, num_queries=queries,
        decoder_in_channels=[width] * 3, decoder_layers=layers, decoder_attention_heads=4, decoder_ffn_dim=2 * width,
        num_denoising=0,
    )  # fmt: skip


def shared_processor(recipe: DetectorArguments) -> Any:
    """Return the image processor of the given student, of the teacher, or one that is made here.

    Args:
        recipe: the models.
    """
    path = recipe.student_model_name_or_path or recipe.teacher_model_name_or_path
    return AutoImageProcessor.from_pretrained(path) if path else made_processor(recipe.image_size)


def made_processor(side: int) -> Any:
    """Make an image processor of RT-DETR.

    Args:
        side: height and width of its images.
    """
    from transformers.models.rt_detr.image_processing_pil_rt_detr import RTDetrImageProcessorPil

    size = {"height": side, "width": side}
    return RTDetrImageProcessorPil(size=size, do_normalize=True, image_mean=[0.5] * 3, image_std=[0.5] * 3)


def _mirror(image: Any, draw: Any = None) -> Any:
    from PIL import ImageOps

    return ImageOps.mirror(image)


def _annotations(objects: Mapping[str, Sequence]) -> list[dict[str, Any]]:
    """COCO's annotations of one image."""
    boxes, classes = objects["bbox"], objects["category"]
    areas = objects.get("area") or [box[2] * box[3] for box in boxes]
    return [
        {"bbox": list(box), "category_id": label, "area": area, "iscrowd": 0}
        for box, label, area in zip(boxes, classes, areas, strict=True)
    ]
