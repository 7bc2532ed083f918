"""Models that give a text one class: how right they are, how sure, and what each class won or lost.

Knows: predictions and labels as arrays. Does not know: files, tokenizers, how a model is trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from datasets import Dataset

from hf_distill.experiments.predictions import AGREES, PROBABILITIES, PredictionScoring, compare_probabilities
from hf_distill.experiments.scoring import Column, Measurement, percent
from hf_distill.experiments.shown_rows import shown_rows
from hf_distill.reports import (
    ClassChange,
    ClassificationMetric,
    agreement,
    calibration,
    class_changes,
    plot_classes,
    plot_reliability,
)
from hf_distill.reports.samples import Samples, class_samples


class ClassScoring(PredictionScoring):
    """One class a row: accuracy, macro F1, calibration, what each class won or lost.

    Args:
        names: of the classes, in their order.
        texts: the test rows' columns of texts, for the page of the report; None: rows have images, or are not shown.
    """

    score: ClassVar[str] = "accuracy"
    plotted: ClassVar[tuple[str, str]] = ("accuracy", "{split} accuracy")
    share: ClassVar[bool] = True
    columns: ClassVar[Mapping[str, Column]] = {
        "accuracy %": percent("accuracy"),
        "macro F1 %": percent("macro_f1"),
        **AGREES,
        **PROBABILITIES,
    }
    hub: ClassVar[Mapping[str, str]] = {"accuracy": "accuracy", "f1": "macro_f1"}
    floor_said: ClassVar[str] = "{:.1f} %, the most frequent class of the training labels"

    def __init__(self, names: Sequence[str], texts: Dataset | None = None) -> None:
        super().__init__()
        self.names, self.rows_shown = list(names), texts

    def floor(self, test: Dataset, train: Dataset) -> float:
        """The accuracy of whoever always says the most frequent class; see ``Scoring.floor``."""
        learnt, asked = (np.asarray(rows["label"][:]) for rows in (train, test))
        return float((asked == np.bincount(learnt[learnt >= 0]).argmax()).mean())

    def probabilities(self, predictions: Any, labels: Any, teacher: Any) -> dict[str, float]:
        """KL to the teacher and calibration error; see ``PredictionScoring``."""
        return compare_probabilities(predictions, labels, teacher)

    def details(self, measurements: Mapping[str, Measurement]) -> dict[str, Any]:
        """What each class won or lost, against the student alone or else the teacher; see ``Scoring.details``."""
        return {"classes": [asdict(one) for one in self._changes(measurements)]} if "distilled" in measurements else {}

    def disagreements(self, measurements: Mapping[str, Measurement], rows: Dataset) -> Samples | None:
        """Where the probabilities differ most, with texts or images; see ``Scoring.disagreements``."""
        if (shown := shown_rows(rows if self.rows_shown is None else self.rows_shown)) is None:
            return None
        logits = {name: measurement.predictions[0] for name, measurement in measurements.items()}
        return class_samples(logits, measurements["teacher"].predictions[1], self.names, shown)

    def pictures(self, measurements: Mapping[str, Measurement], folder: Path) -> dict[str, str]:
        """Draw how sure the models are, and what each class won or lost; see ``Scoring.pictures``."""
        plotted = {name: calibration(*measurement.predictions) for name, measurement in measurements.items()}
        plot_reliability(plotted, folder / "reliability.png")
        plot_classes(self._changes(measurements), folder / "classes.png")
        return {
            "reliability.png": "How often each model is right, by how sure it is",
            "classes.png": "The classes that won and lost most",
        }

    def _changes(self, measurements: Mapping[str, Measurement]) -> list[ClassChange]:
        chosen = {name: measurement.predictions[0].argmax(-1) for name, measurement in measurements.items()}
        labels = next(iter(measurements.values())).predictions[1]
        before = self.baseline if self.baseline in measurements else "teacher"
        return class_changes(chosen, labels, self.names, before=before)

    def figures(self, predictions: Any, labels: Any) -> dict[str, float]:
        """Accuracy and macro F1; see ``PredictionScoring.figures``."""
        return ClassificationMetric().compute(predictions=predictions.argmax(-1), references=labels)

    def units(self, predictions: Any, labels: Any) -> np.ndarray:
        """Right or wrong; see ``PredictionScoring.units``."""
        return (predictions.argmax(-1) == labels).astype(float)

    def agreement(self, predictions: Any, teacher: Any, labels: Any) -> float:
        """The share of rows with the same class; see ``PredictionScoring.agreement``."""
        return agreement(predictions, teacher)
