"""Models that predict one thing for each row or token: what the three of them said of the test rows.

Knows: predictions and labels as arrays. Does not know: files, tokenizers, how a model is trained.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from datasets import Dataset
from torch import Tensor
from transformers import Trainer
from transformers.trainer_pt_utils import nested_concat
from transformers.trainer_utils import EvalPrediction, PredictionOutput

from hf_distill.experiments.scoring import Measurement, Scoring, percent
from hf_distill.reports import (
    calibration,
    mean_kl,
)
from hf_distill.training.metrics import of_recordings

AGREES = {"agrees with teacher %": percent("agreement")}
PROBABILITIES = {
    "KL to teacher": lambda row: f"{row['kl']:.3f}",
    "calibration error %": percent("calibration_error"),
}


class PredictionScoring(Scoring):
    """Predictions against labels, and against the teacher's predictions."""

    def __init__(self) -> None:
        self._teacher_outputs: dict[str, PredictionOutput] = {}  # the teacher is asked once for the same rows

    @abstractmethod
    def figures(self, predictions: Any, labels: Any) -> dict[str, float]:
        """Measure predictions.

        Args:
            predictions: as ``Trainer.predict`` gives them.
            labels: the same.
        """

    @abstractmethod
    def units(self, predictions: Any, labels: Any) -> np.ndarray:
        """Return one number for each row, whose mean is the score: [N]. Its error is found from them."""

    @abstractmethod
    def agreement(self, predictions: Any, teacher: Any, labels: Any) -> float:
        """Say how often a model decides as the teacher does, from 0 to 1."""

    def probabilities(self, predictions: Any, labels: Any, teacher: Any) -> dict[str, float]:
        """Measure the probabilities, where predictions are logits of classes; nothing by default."""
        return {}

    def compute_metrics(self, predicted: EvalPrediction) -> dict[str, float]:
        """Measure the validation rows, while a model is trained: Trainer's ``compute_metrics``."""
        return self.figures(predicted.predictions, predicted.label_ids)

    def of_teacher(self, reference: Trainer, rows: Dataset) -> PredictionOutput:
        """Predict rows with the teacher, in the form in which ``Trainer.predict`` gives the students' predictions.

        Args:
            reference: a trainer with the teacher.
            rows: tokenised rows with labels.
        """
        return teacher_predictions(reference, rows)

    def evaluate(self, trainers: Mapping[str, Trainer], rows: Dataset, reference: Trainer) -> dict[str, Measurement]:
        """Predict the rows with each; see ``Scoring.measure``."""
        if rows._fingerprint not in self._teacher_outputs:
            self._teacher_outputs = {rows._fingerprint: self.of_teacher(reference, rows)}
        teacher = self._teacher_outputs[rows._fingerprint]
        shown = {"teacher": teacher, **{name: trainer.predict(rows) for name, trainer in trainers.items()}}
        return {
            name: self.measurement(one.predictions, one.label_ids, teacher.predictions) for name, one in shown.items()
        }

    def measurement(self, predictions: Any, labels: Any, teacher: Any) -> Measurement:
        """Measure one model's predictions.

        Args:
            predictions: its own.
            labels: the right ones.
            teacher: the teacher's predictions.
        """
        figures = {**self.figures(predictions, labels), "agreement": self.agreement(predictions, teacher, labels)}
        figures |= self.probabilities(predictions, labels, teacher)
        return Measurement({self.score: self.units(predictions, labels)}, figures, (predictions, labels))


def compare_probabilities(logits: np.ndarray, labels: np.ndarray, teacher: np.ndarray) -> dict[str, float]:
    """Compare probabilities with the teacher's and with what was right.

    Args:
        logits: [..., C].
        labels: [...]; negative ones do not count.
        teacher: the teacher's logits, [..., C].

    Returns:
        ``kl``, in nats, and ``calibration_error``, from 0 to 1.
    """
    return {"kl": mean_kl(logits, teacher, labels >= 0), "calibration_error": calibration(logits, labels).error}


def teacher_predictions(
    reference: Trainer, rows: Dataset, kept: Callable[[Tensor, Tensor], Tensor] | None = None
) -> PredictionOutput:
    """Predict rows with a trainer's teacher, where it is; as it is published, within ``as_published``.

    Args:
        reference: a trainer with the teacher.
        rows: tokenised rows with labels.
        kept: what of a batch's logits is kept, given its labels, where all would be too many; None: all.
    """
    logits, labels, accelerator = None, None, reference.accelerator
    for batch in reference.get_test_dataloader(rows):
        batch = reference._prepare_inputs(batch)
        heads = reference.teacher(batch, frozenset({"heads"})).heads
        found = [head.logits.tensor.float().contiguous() for head in heads.values()]
        if reference.task.frames:  # what is said behind the end of a recording is no word
            found = [of_recordings(one, head.rows) for one, head in zip(found, heads.values(), strict=True)]
        if kept is not None:
            found = [kept(one, batch[reference.label_names[0]]) for one in found]
        found = (found, [batch[name] for name in reference.label_names])
        if reference.task.positions:  # as wide as the longest row of the batch, on each process another
            found = accelerator.pad_across_processes(found, dim=1, pad_index=-100)
        both = accelerator.gather_for_metrics(found)
        shown, known = ([part.cpu().numpy() for part in parts] for parts in both)
        logits = shown if logits is None else nested_concat(logits, shown, padding_index=-100)
        labels = known if labels is None else nested_concat(labels, known, padding_index=-100)
    return PredictionOutput(*(parts[0] if len(parts) == 1 else tuple(parts) for parts in (logits, labels)), {})
