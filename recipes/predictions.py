"""Models that predict one thing for each row or token: what the three of them said of the test rows.

Knows: predictions and labels as arrays. Does not know: files, tokenizers, how a model is trained.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from datasets import Dataset
from scoring import Column, Look, Scoring, percent
from transformers import Trainer
from transformers.trainer_pt_utils import nested_concat
from transformers.trainer_utils import EvalPrediction, PredictionOutput

from hf_distill.reports import ClassificationMetric, agreement

AGREES = {"agrees with teacher %": percent("agreement")}


class PredictionScoring(Scoring):
    """Predictions against labels, and against the teacher's predictions."""

    def __init__(self) -> None:
        self._told: dict[str, PredictionOutput] = {}  # the teacher is asked once for the same rows

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

    def on_the_way(self, predicted: EvalPrediction) -> dict[str, float]:
        """Measure the validation rows, while a model is trained: Trainer's ``compute_metrics``."""
        return self.figures(predicted.predictions, predicted.label_ids)

    def look(self, trainers: Mapping[str, Trainer], rows: Dataset, judge: Trainer) -> dict[str, Look]:
        """Predict the rows with each; see ``Scoring.look``."""
        if rows._fingerprint not in self._told:
            self._told = {rows._fingerprint: taught(judge, rows)}
        told = self._told[rows._fingerprint]
        shown = {"teacher": told, **{name: trainer.predict(rows) for name, trainer in trainers.items()}}
        return {name: self.seen(one.predictions, one.label_ids, told.predictions) for name, one in shown.items()}

    def seen(self, predictions: Any, labels: Any, told: Any) -> Look:
        """Measure one model's predictions.

        Args:
            predictions: its own.
            labels: the right ones.
            told: the teacher's predictions.
        """
        figures = {**self.figures(predictions, labels), "agreement": self.agreement(predictions, told, labels)}
        return Look({self.score: self.units(predictions, labels)}, figures, (predictions, labels))


class ClassScoring(PredictionScoring):
    """One class a row: accuracy, macro F1."""

    score: ClassVar[str] = "accuracy"
    drawn: ClassVar[tuple[str, str]] = ("accuracy", "test accuracy")
    columns: ClassVar[Mapping[str, Column]] = {
        "accuracy %": percent("accuracy"),
        "macro F1 %": percent("macro_f1"),
        **AGREES,
    }
    hub: ClassVar[Mapping[str, str]] = {"accuracy": "accuracy", "f1": "macro_f1"}

    def figures(self, predictions: Any, labels: Any) -> dict[str, float]:
        """Accuracy and macro F1; see ``PredictionScoring.figures``."""
        return ClassificationMetric().compute(predictions=predictions.argmax(-1), references=labels)

    def units(self, predictions: Any, labels: Any) -> np.ndarray:
        """Right or wrong; see ``PredictionScoring.units``."""
        return (predictions.argmax(-1) == labels).astype(float)

    def agreement(self, predictions: Any, teacher: Any, labels: Any) -> float:
        """The share of rows with the same class; see ``PredictionScoring.agreement``."""
        return agreement(predictions, teacher)


def taught(judge: Trainer, rows: Dataset) -> PredictionOutput:
    """Predict rows with a trainer's teacher, where it is and as it teaches.

    Args:
        judge: a trainer with the teacher.
        rows: tokenised rows with labels.
    """
    logits, labels, accelerator = None, None, judge.accelerator
    for batch in judge.get_test_dataloader(rows):
        batch = judge._prepare_inputs(batch)
        heads = judge.teacher(batch, frozenset({"heads"})).heads
        found = [head.logits.tensor.float().contiguous() for head in heads.values()]
        found = (found, [batch[name] for name in judge.label_names])
        if judge.task.positions:  # as wide as the longest row of the batch, on each process another
            found = accelerator.pad_across_processes(found, dim=1, pad_index=-100)
        both = accelerator.gather_for_metrics(found)
        shown, known = ([part.cpu().numpy() for part in parts] for parts in both)
        logits = shown if logits is None else nested_concat(logits, shown, padding_index=-100)
        labels = known if labels is None else nested_concat(labels, known, padding_index=-100)
    return PredictionOutput(*(parts[0] if len(parts) == 1 else tuple(parts) for parts in (logits, labels)), {})
