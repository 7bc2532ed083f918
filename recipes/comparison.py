"""Did the teacher help? The three models on the test rows: quality, agreement, size, speed, the gap closed.

Knows: predictions, whole models and test rows. Does not know: how the models were made or trained.
"""

from __future__ import annotations

import json
import platform
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import transformers
from datasets import Dataset
from torch import nn
from transformers.trainer_pt_utils import nested_concat
from transformers.trainer_utils import EvalPrediction, PredictionOutput

from hf_distill import DistillationTrainer
from hf_distill.reports import (
    ClassificationMetric,
    agreement,
    gap_closed,
    markdown_table,
    plot_comparison,
    size_of,
    throughput,
)

SPEED_ROWS, SPEED_BATCH = 2048, 64


class Scoring(ABC):
    """How the predictions of one kind of model are measured.

    Attributes:
        score: the figure that the gap is about.
        measured: how to name it beside an axis.
        columns: figure -> heading of the table, for shares from 0 to 1.
        hub: metric type on the Hub -> figure.
        baseline: the model that shows what a student is without its teacher.
    """

    score: ClassVar[str]
    measured: ClassVar[str]
    columns: ClassVar[Mapping[str, str]]
    hub: ClassVar[Mapping[str, str]]
    baseline: ClassVar[str] = "student alone"

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
        """Measure the validation rows, while a model is trained."""
        return self.figures(predicted.predictions, predicted.label_ids)


class ClassScoring(Scoring):
    """One class a row: accuracy, macro F1."""

    score: ClassVar[str] = "accuracy"
    measured: ClassVar[str] = "test accuracy"
    columns: ClassVar[Mapping[str, str]] = {"accuracy": "accuracy", "macro_f1": "macro F1"}
    hub: ClassVar[Mapping[str, str]] = {"accuracy": "accuracy", "f1": "macro_f1"}

    def figures(self, predictions: Any, labels: Any) -> dict[str, float]:
        """Accuracy and macro F1; see ``Scoring.figures``."""
        return ClassificationMetric().compute(predictions=predictions.argmax(-1), references=labels)

    def units(self, predictions: Any, labels: Any) -> np.ndarray:
        """Right or wrong; see ``Scoring.units``."""
        return (predictions.argmax(-1) == labels).astype(float)

    def agreement(self, predictions: Any, teacher: Any, labels: Any) -> float:
        """The share of rows with the same class; see ``Scoring.agreement``."""
        return agreement(predictions, teacher)


def taught(student: DistillationTrainer, test: Dataset) -> PredictionOutput:
    """Predict the test rows with a student's teacher, where it is and as it teaches."""
    logits, labels, accelerator = None, None, student.accelerator
    for batch in student.get_test_dataloader(test):
        batch = student._prepare_inputs(batch)
        heads = student.teacher(batch, frozenset({"heads"})).heads
        found = [head.logits.tensor.float().contiguous() for head in heads.values()]
        found = (found, [batch[name] for name in student.label_names])
        if student.task.positions:  # as wide as the longest row of the batch, on each process another
            found = accelerator.pad_across_processes(found, dim=1, pad_index=-100)
        both = accelerator.gather_for_metrics(found)
        shown, known = ([part.cpu().numpy() for part in parts] for parts in both)
        logits = shown if logits is None else nested_concat(logits, shown, padding_index=-100)
        labels = known if labels is None else nested_concat(labels, known, padding_index=-100)
    return PredictionOutput(*(parts[0] if len(parts) == 1 else tuple(parts) for parts in (logits, labels)), {})


def compare(
    found: Mapping[str, tuple[PredictionOutput, nn.Module]],
    test: Dataset,
    student: DistillationTrainer,
    scoring: Scoring,
) -> dict[str, Any]:
    """Measure each model on the test rows.

    Args:
        found: ``teacher``, ``distilled`` and, if it was trained, the baseline: its predictions, and the model.
        test: tokenised rows with labels.
        student: the distilled student's trainer.
        scoring: how predictions are measured.

    Returns:
        ``models`` (a row each), ``gap`` and its ``summary``, and on which ``machine`` with which ``versions``.
    """
    shown = {name: predicted.predictions for name, (predicted, _) in found.items()}
    labels = {name: predicted.label_ids for name, (predicted, _) in found.items()}
    units = {name: scoring.units(shown[name], labels[name]) for name in found}
    batches = speed_batches(student, test)
    models = []
    for name, (_, model) in found.items():
        parameters, megabytes = size_of(model)
        models.append(
            {
                "name": name,
                **scoring.figures(shown[name], labels[name]),
                f"{scoring.score}_error": float(units[name].std() / np.sqrt(len(units[name]))),
                "agreement": scoring.agreement(shown[name], shown["teacher"], labels[name]),
                "parameters": parameters,
                "megabytes": megabytes,
                "samples_per_second": throughput(model.to(student.args.device), batches),
            }
        )
    found = {"models": models, "gap": None, "summary": "the student was not trained alone: the gain is not known"}
    if scoring.baseline in units:
        gap = gap_closed(units[scoring.baseline], units["distilled"], units["teacher"])
        found |= {"gap": asdict(gap), "summary": str(gap)}
    device, threads = student.args.device.type, torch.get_num_threads()
    found["machine"] = f"{platform.machine()}, {device}, {threads} thread{'s' if threads > 1 else ''}"
    found["versions"] = {"transformers": transformers.__version__, "torch": torch.__version__}
    found["metrics"] = dict(scoring.hub)
    return found


def speed_batches(trainer: DistillationTrainer, test: Dataset) -> list[dict[str, torch.Tensor]]:
    """Collate the first test rows into batches, without labels: every model is timed on the same."""
    rows = test.select(range(min(SPEED_ROWS, len(test))))
    rows = rows.remove_columns([c for c in ("label", *trainer.label_names) if c in rows.column_names]).to_list()
    return [dict(trainer.data_collator(rows[i : i + SPEED_BATCH])) for i in range(0, len(rows), SPEED_BATCH)]


def table(models: list[dict[str, Any]], scoring: Scoring) -> str:
    """Lay out the models' figures for a person."""
    shares = {**scoring.columns, "agreement": "agrees with teacher"}
    header = ["model", *(f"{heading} %" for heading in shares.values()), "parameters", "MB", "samples/s"]
    rows = [
        [
            row["name"],
            *(f"{100 * row[key]:.1f}" + _error(row, key) for key in shares),
            f"{row['parameters']:,}",
            f"{row['megabytes']:.1f}",
            f"{row['samples_per_second']:,.0f}",
        ]
        for row in models
    ]
    return markdown_table(header, rows)


def write(student: DistillationTrainer, scoring: Scoring) -> None:
    """Write ``report.json``, its picture and the card beside the student's weights, and show the table."""
    folder, found = Path(student.args.output_dir), student.report
    (folder / "report.json").write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    title = f"{found['dataset']}: did the teacher help?"
    plot_comparison(found["models"], folder / "report.png", title, scoring.score, scoring.measured)
    found["table"] = table(found["models"], scoring)
    name = folder.parent.name if folder.name.startswith("run-") else folder.name
    student.create_model_card(model_name=name)
    print(f"\n{found['table']}\n\n{found['summary']}\n{found['seconds']:.0f} s in all; everything is in {folder}")


def _error(row: Mapping[str, Any], key: str) -> str:
    return f" ± {100 * row[f'{key}_error']:.1f}" if f"{key}_error" in row else ""
