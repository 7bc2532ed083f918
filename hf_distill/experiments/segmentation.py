"""Models that give each pixel a class: a teacher and a student that are made here, and how right they are.

Knows: shapes of UperNets, their processor, maps of classes as arrays. Does not know: files, training.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor
from torch.nn import functional as F
from transformers import PretrainedConfig, ResNetConfig, Trainer, UperNetConfig
from transformers.trainer_utils import PredictionOutput

from hf_distill.experiments.images import ImageModelArguments
from hf_distill.experiments.predictions import AGREES, PredictionScoring, teacher_predictions
from hf_distill.experiments.scoring import Measurement, percent
from hf_distill.reports import class_ious, iou_shares, pixel_counts, segmentation_scores
from hf_distill.reports.plot_maps import plot_maps
from hf_distill.tasks.processors import load_processor

IGNORED = 255
STAGES = 3


@dataclass
class SegmentationModelArguments(ImageModelArguments):
    """Which segmenters, and how large those are that are made here: UperNets over three residual stages."""

    teacher_layers: int = field(default=1, metadata={"help": "Blocks in each of three stages of a teacher made here."})
    teacher_hidden_size: int = field(
        default=64, metadata={"help": "Width of its last stage; those before it have a half and a quarter."}
    )
    teacher_epochs: float = field(default=30.0, metadata={"help": "Epochs of training or fine-tuning the teacher."})
    teacher_learning_rate: float = field(default=4e-3, metadata={"help": "Its peak learning rate."})
    student_layers: int = field(default=1, metadata={"help": "Blocks in each stage of a student made here."})
    student_hidden_size: int = field(default=32, metadata={"help": "Width of its last stage."})
    image_size: int = field(default=64, metadata={"help": "Height and width in pixels where no model is given."})

    def check_width(self, name: str) -> None:
        """Refuse a width that three stages cannot have; see the base."""
        if (width := getattr(self, name)) % 4 or width < 4:
            raise ValueError(f"{name}={width} was given: give a multiple of 4.")


def blank_upernet(recipe: SegmentationModelArguments, processor: Any) -> PretrainedConfig:
    """Shape a UperNet that is trained from nothing; it answers on every fourth pixel, and enlarges that.

    Args:
        recipe: its sizes.
        processor: of its images; three channels.
    """
    return _upernet(recipe.teacher_hidden_size, recipe.teacher_layers)


def small_upernet(recipe: SegmentationModelArguments, shape: Any) -> PretrainedConfig:
    """Shape a student of a teacher that is a UperNet.

    Args:
        recipe: its sizes.
        shape: the teacher.

    Raises:
        ValueError: the teacher is none.
    """
    if not isinstance(shape.config, UperNetConfig):
        raise ValueError(
            f"a student is made here of a UperNet teacher, the teacher is {type(shape).__name__}: name a student "
            "with --student_model_name_or_path, or cut one from the teacher with --student_from_teacher."
        )
    return _upernet(recipe.student_hidden_size, recipe.student_layers)


def _upernet(width: int, blocks: int) -> PretrainedConfig:
    widths, stages = [width // 4, width // 2, width], [f"stage{number}" for number in range(1, STAGES + 1)]
    backbone = ResNetConfig(
        embedding_size=widths[0],
        hidden_sizes=widths,
        depths=[blocks] * STAGES,
        layer_type="basic",
        out_features=stages,
    )
    return UperNetConfig(
        backbone_config=backbone, hidden_size=widths[1], pool_scales=[1, 2], use_auxiliary_head=False,
        loss_ignore_index=IGNORED,
    )  # fmt: skip


def map_processor(recipe: SegmentationModelArguments, reduce_labels: bool = False) -> Any:
    """Return the image processor of the given student, of the teacher, or one that is made here.

    Args:
        recipe: the models.
        reduce_labels: in maps 0 is no class and 1 is the first one.
    """
    asked = {"do_reduce_labels": True} if reduce_labels else {}
    if path := recipe.student_model_name_or_path or recipe.teacher_model_name_or_path:
        return load_processor(path, f"the model {path}", **asked)
    from transformers.models.segformer.image_processing_pil_segformer import SegformerImageProcessorPil

    size = {"height": recipe.image_size, "width": recipe.image_size}
    return SegformerImageProcessorPil(size=size, image_mean=[0.5] * 3, image_std=[0.5] * 3, **asked)


def chosen_classes(logits: Any, labels: Tensor) -> Tensor:
    """Choose the class of each pixel, at the labels' size: Trainer's ``preprocess_logits_for_metrics``.

    Args:
        logits: [B, C, height, width], or a tuple that begins with them.
        labels: [B, height, width], larger ones as a rule.

    Returns:
        uint8, the shape of the labels: logits of all pixels would be hundreds of times as large.

    Example:
        >>> chosen_classes(torch.tensor([[[[0.0]], [[1.0]]]]), torch.zeros(1, 2, 2)).tolist()
        [[[1, 1], [1, 1]]]
    """
    logits = logits[0] if isinstance(logits, (tuple, list)) else logits
    how = {"size": labels.shape[-2:], "mode": "bilinear", "align_corners": False}
    each = [F.interpolate(one.unsqueeze(0).float(), **how).argmax(1) for one in logits]  # one image at a time
    return torch.cat(each).to(torch.uint8)


class SegmentationScoring(PredictionScoring):
    """A class for each pixel: mean intersection over union, and the share of right pixels.

    Args:
        names: of the classes, in their order.
        reduce_labels: in maps 0 is no class and 1 is the first one.
    """

    score: ClassVar[str] = "mean_iou"
    plotted: ClassVar[tuple[str, str]] = ("mean_iou", "{split} mean IoU")
    hub: ClassVar[Mapping[str, str]] = {"mean_iou": "mean_iou"}
    each: ClassVar[str] = "images"
    speed_rows: ClassVar[int] = 256
    unit: ClassVar[str] = "images"
    floor_said: ClassVar[str] = "{:.1f} %, the most frequent class of the training maps on every pixel"

    def __init__(self, names: Sequence[str], reduce_labels: bool = False) -> None:
        super().__init__()
        self.names, self.reduce_labels = list(names), reduce_labels
        shares = {"mean IoU": "mean_iou", "pixel accuracy": "pixel_accuracy"}
        self.columns = {**{f"{heading} %": percent(key) for heading, key in shares.items()}, **AGREES}

    def floor(self, test: Dataset, train: Dataset) -> float:
        """The mean IoU of whoever says the most frequent class everywhere; see ``Scoring.floor``."""
        there = sum(np.bincount(one.ravel(), minlength=IGNORED + 1) for one in self._maps(train))
        most = there[: len(self.names)].argmax()
        said = (np.full_like(one, most) for one in self._maps(test))
        return segmentation_scores(pixel_counts(said, self._maps(test), len(self.names), IGNORED))["mean_iou"]

    def _maps(self, rows: Dataset) -> Iterator[np.ndarray]:
        """The maps of rows, one after the other, in the size of their images."""
        for row in rows.select_columns("map"):
            numbers = np.asarray(row["map"], dtype=np.uint8)
            yield np.where(numbers % IGNORED == 0, IGNORED, numbers - 1) if self.reduce_labels else numbers

    def counts(self, predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Count the pixels of each image and class.

        Args:
            predictions: classes [N, height, width], as ``chosen_classes`` gives them.
            labels: as large.
        """
        return pixel_counts(predictions, labels, len(self.names), IGNORED)

    def figures(self, predictions: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        """Mean IoU and pixel accuracy; see ``PredictionScoring.figures``."""
        return segmentation_scores(self.counts(predictions, labels))

    def units(self, predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """What each image adds to the mean IoU; see ``PredictionScoring.units``."""
        return iou_shares(self.counts(predictions, labels))

    def agreement(self, predictions: np.ndarray, teacher: np.ndarray, labels: np.ndarray) -> float:
        """The share of labelled pixels with the same class; see ``PredictionScoring.agreement``."""
        return float((predictions == teacher)[labels != IGNORED].mean())

    def of_teacher(self, reference: Trainer, rows: Dataset) -> PredictionOutput:
        """Choose as the students do, batch by batch; see ``PredictionScoring.of_teacher``."""
        return teacher_predictions(reference, rows, lambda grid, labels: chosen_classes(grid.movedim(-1, 1), labels))

    def details(self, measurements: Mapping[str, Measurement]) -> dict[str, Any]:
        """Intersection over union of each class, by model; see ``Scoring.details``."""
        ious = {name: class_ious(self.counts(*one.predictions)).tolist() for name, one in measurements.items()}
        return {"class_ious": {name: dict(zip(self.names, each, strict=True)) for name, each in ious.items()}}

    def pictures(self, measurements: Mapping[str, Measurement], folder: Path) -> dict[str, str]:
        """Draw the maps of a few images; see ``Scoring.pictures``."""
        labels = next(iter(measurements.values())).predictions[1]
        plot_maps(
            labels, {name: one.predictions[0] for name, one in measurements.items()}, self.names, folder / "maps.png"
        )
        return {"maps.png": "What is right, and what each model says, on a few test images"}
