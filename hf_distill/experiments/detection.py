"""Models that find objects in images: how well they find them.

Knows: batches, what models show and Trainer predicts of them. Does not know: data sets, how a model is trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import torch
from accelerate.utils import gather_object
from datasets import Dataset
from torch import Tensor
from transformers import (
    EvalPrediction,
    Trainer,
    TrainingArguments,
)

from hf_distill.augmentation.box_collator import BoxCollator
from hf_distill.augmentation.image_collator import decoded
from hf_distill.experiments.scoring import Column, Measurement, Scoring, percent
from hf_distill.reports import Boxes, ap_shares, average_precision, plot_boxes
from hf_distill.signals import Signals
from hf_distill.tasks.alignment.tokenizers import PREFIX
from hf_distill.tasks.object_detection import BOXES

SHOWN = 4
"""So many images are drawn."""


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
    floor_said: ClassVar[str] = "{:.1f} %, who finds nothing"

    def __init__(self, collator: BoxCollator, names: Sequence[str]) -> None:
        self.collator, self.names, self._images = collator, list(names), []
        self._teachers: dict[str, Measurement] = {}  # the teacher is asked once for the same rows

    def floor(self, test: Dataset, train: Dataset) -> float:
        """Who finds nothing; see ``Scoring.floor``."""
        return 0.0

    def for_training(self, args: TrainingArguments) -> dict[str, Any]:
        """Return Trainer's ``compute_metrics``, where its predictions keep apart what each image has.

        Args:
            args: Trainer's.

        Raises:
            ValueError: batches are to be put together, which mixes the boxes of images up.
        """
        if args.eval_do_concat_batches:
            raise ValueError(
                "eval_do_concat_batches=True was given, which puts the boxes of one batch's images behind those of "
                "another's: leave it out."
            )
        # Several processes cannot gather what has another length on each.
        return {"compute_metrics": self.compute_metrics} if args.world_size == 1 else {}

    def compute_metrics(self, predicted: EvalPrediction) -> dict[str, float]:
        """Measure the validation rows, while a model is trained: Trainer's ``compute_metrics``."""
        found = average_precision(*boxes_of(predicted, self.collator.processor), len(self.names))
        return {"ap": found.ap, "ap50": found.ap50, "ap75": found.ap75}

    def evaluate(self, trainers: Mapping[str, Trainer], rows: Dataset, reference: Trainer) -> dict[str, Measurement]:
        """Let the teacher and the students find, on each process its share; see ``Scoring.measure``."""
        known = self._teachers.get(rows._fingerprint)
        found = {name: [] for name in ([] if known else ["teacher"]) + list(trainers)}
        truths: list[Boxes] = []
        ours, theirs = self.collator.processor, self.collator.teacher_processor or self.collator.processor
        for batch in reference.get_test_dataloader(rows):
            batch = reference._prepare_inputs(batch)
            sizes = torch.stack([one["orig_size"] for one in batch["labels"]]).cpu()
            with torch.no_grad():
                shown = {name: _read(trainer, batch) for name, trainer in trainers.items()}
                if known is None:
                    shown["teacher"] = reference.teacher(batch, frozenset({"heads", "values"}))
            for name, signals in shown.items():
                boxes = _found(*_queries(signals), sizes, theirs if name == "teacher" else ours)
                found[name] += gather_object(boxes)
            truths += gather_object([_truth(one) for one in batch["labels"]])
        # Over several processes some rows are repeated behind the last one, to give each process as many.
        truths = truths[: len(rows)]
        self._images = [rows[number]["image"] for number in _some(truths)]
        measured = {name: self.measurement(boxes[: len(rows)], truths) for name, boxes in found.items()}
        self._teachers = {rows._fingerprint: measured.pop("teacher") if known is None else known}
        return {"teacher": self._teachers[rows._fingerprint], **measured}

    def measurement(self, found: Sequence[Boxes], truths: Sequence[Boxes]) -> Measurement:
        """Measure one model's boxes.

        Args:
            found: of each image.
            truths: what is there.
        """
        whole = average_precision(found, truths, len(self.names))
        figures = {"ap50": whole.ap50, "ap75": whole.ap75}
        shares = ap_shares(found, truths, len(self.names))
        return Measurement({"ap": shares}, figures, (whole.classes, found, truths))

    def details(self, measurements: Mapping[str, Measurement]) -> dict[str, Any]:
        """The average precision of each class, of each model."""
        return {
            "class_ap": {
                name: {model: float(one.predictions[0][number]) for model, one in measurements.items()}
                for number, name in enumerate(self.names)
            }
        }

    def pictures(self, measurements: Mapping[str, Measurement], folder: Path) -> dict[str, str]:
        """Draw what the models find in a few images; see ``Scoring.pictures``."""
        truths = next(iter(measurements.values())).predictions[2]
        chosen = _some(truths)
        images = [decoded(image, f"image {number}") for number, image in zip(chosen, self._images, strict=True)]
        found = {
            name: [measurement.predictions[1][number] for number in chosen]
            for name, measurement in measurements.items()
        }
        plot_boxes(images, [truths[number] for number in chosen], found, self.names, folder / "boxes.png")
        return {"boxes.png": "What a few images show, and what each model finds in them and is surer of than not"}


def boxes_of(predicted: EvalPrediction, processor: Any) -> tuple[list[Boxes], list[Boxes]]:
    """Read the boxes that a model found, and those that are there, off what Trainer predicted.

    Args:
        predicted: with ``predictions`` and ``label_ids``, a list of batches each (``eval_do_concat_batches=False``).
        processor: the model's, which knows how its queries become boxes.
    """
    found, truths = [], []
    for outputs, labels in zip(predicted.predictions, predicted.label_ids, strict=True):
        logits, queries = [torch.from_numpy(one) for one in outputs if isinstance(one, np.ndarray)][:2]
        labels = [{name: torch.as_tensor(value) for name, value in one.items()} for one in labels]
        found += _found(logits, queries, torch.stack([one["orig_size"] for one in labels]), processor)
        truths += map(_truth, labels)
    return found, truths


def _some(truths: Sequence[Boxes]) -> list[int]:
    """A few images that have boxes, spread over all."""
    there = [number for number, one in enumerate(truths) if len(one.labels)]
    places = np.linspace(0, len(there) - 1, min(SHOWN, len(there)))
    return [there[place] for place in sorted({round(float(place)) for place in places})]


def _read(trainer: Trainer, batch: Mapping[str, Any]) -> Signals:
    """What a student shows; it is called as for a user, without labels."""
    fed = {
        name: value for name, value in batch.items() if not name.startswith(PREFIX) and name not in trainer.label_names
    }
    return trainer.task.read(trainer.model, batch, trainer.model.eval()(**fed))


def _queries(signals: Signals) -> tuple[Tensor, Tensor]:
    """Logits as a model gave them, [B, Q, C], and boxes [B, Q, 4]."""
    logits = signals.heads["logits"].logits.tensor.float().cpu()
    # Of a class that is there or not the task has two logits, of which the first is 0.
    return logits[..., 1] if logits.ndim == 4 else logits, signals.values[BOXES].tensor.float().cpu()


def _found(logits: Tensor, boxes: Tensor, sizes: Tensor, processor: Any) -> list[Boxes]:
    shown = SimpleNamespace(logits=logits, pred_boxes=boxes)
    found = processor.post_process_object_detection(shown, threshold=0.0, target_sizes=sizes)
    return [Boxes(one["boxes"].numpy(), one["labels"].numpy(), one["scores"].numpy()) for one in found]


def _truth(labels: Mapping[str, Tensor]) -> Boxes:
    height, width = labels["orig_size"].tolist()
    x, y, wide, high = labels["boxes"].cpu().double().numpy().reshape(-1, 4).T
    corners = np.stack([x - wide / 2, y - high / 2, x + wide / 2, y + high / 2], axis=1)
    return Boxes(corners * [width, height, width, height], labels["class_labels"].cpu().numpy())
