"""Did the teacher help? The three models on the test rows: quality, agreement, size, speed, the gap closed.

Knows: predictions, whole models and test rows. Does not know: how the models were made or trained.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from datasets import Dataset
from torch import nn
from transformers.trainer_utils import PredictionOutput

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


def taught(student: DistillationTrainer, test: Dataset) -> PredictionOutput:
    """Predict the test rows with a student's teacher, where it is and as it teaches."""
    logits, labels = [], []
    for batch in student.get_test_dataloader(test):
        batch = student._prepare_inputs(batch)
        head = student.teacher(batch, frozenset({"heads"})).heads["logits"].logits
        found = student.accelerator.gather_for_metrics((head.tensor.float().contiguous(), batch["labels"]))
        logits.append(found[0].cpu().numpy())
        labels.append(found[1].cpu().numpy())
    return PredictionOutput(np.concatenate(logits), np.concatenate(labels), {})


def compare(
    found: Mapping[str, tuple[PredictionOutput, nn.Module]], test: Dataset, student: DistillationTrainer
) -> dict[str, Any]:
    """Measure each model on the test rows.

    Args:
        found: ``teacher``, ``distilled`` and, if it was trained, ``student alone``: its predictions, and the model.
        test: tokenised rows with labels.
        student: the distilled student's trainer.

    Returns:
        ``models`` (a row each), ``gap`` and its ``summary``, and on which ``machine`` with which ``versions``.
    """
    shown = {name: predicted for name, (predicted, _) in found.items()}
    labels, metric = shown["distilled"].label_ids, ClassificationMetric()
    chosen = {name: predicted.predictions.argmax(-1) for name, predicted in shown.items()}
    right = {name: (classes == labels).astype(float) for name, classes in chosen.items()}
    batches = speed_batches(student, test)
    models = []
    for name, (_, model) in found.items():
        parameters, megabytes = size_of(model)
        models.append(
            {
                "name": name,
                **metric.compute(predictions=chosen[name], references=labels),
                "accuracy_error": float(right[name].std() / np.sqrt(len(labels))),
                "agreement": agreement(shown[name].predictions, shown["teacher"].predictions),
                "parameters": parameters,
                "megabytes": megabytes,
                "samples_per_second": throughput(model.to(student.args.device), batches),
            }
        )
    found = {"models": models, "gap": None, "summary": "the student was not trained alone: the gain is not known"}
    if "student alone" in right:
        gap = gap_closed(right["student alone"], right["distilled"], right["teacher"])
        found |= {"gap": asdict(gap), "summary": str(gap)}
    device, threads = student.args.device.type, torch.get_num_threads()
    found["machine"] = f"{platform.machine()}, {device}, {threads} thread{'s' if threads > 1 else ''}"
    found["versions"] = {"transformers": transformers.__version__, "torch": torch.__version__}
    return found


def speed_batches(trainer: DistillationTrainer, test: Dataset) -> list[dict[str, torch.Tensor]]:
    """Collate the first test rows into batches, without labels: every model is timed on the same."""
    rows = test.select(range(min(SPEED_ROWS, len(test)))).remove_columns("label").to_list()
    return [dict(trainer.data_collator(rows[i : i + SPEED_BATCH])) for i in range(0, len(rows), SPEED_BATCH)]


def table(models: list[dict[str, Any]]) -> str:
    """Lay out the models' figures for a person."""
    header = ["model", "accuracy %", "macro F1 %", "agrees with teacher %", "parameters", "MB", "samples/s"]
    rows = [
        [
            row["name"],
            f"{100 * row['accuracy']:.1f} ± {100 * row['accuracy_error']:.1f}",
            f"{100 * row['macro_f1']:.1f}",
            f"{100 * row['agreement']:.1f}",
            f"{row['parameters']:,}",
            f"{row['megabytes']:.1f}",
            f"{row['samples_per_second']:,.0f}",
        ]
        for row in models
    ]
    return markdown_table(header, rows)


def write(student: DistillationTrainer) -> None:
    """Write ``report.json``, its picture and the card beside the student's weights, and show the table."""
    folder, found = Path(student.args.output_dir), student.report
    (folder / "report.json").write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    plot_comparison(found["models"], folder / "report.png", f"{found['dataset']}: did the teacher help?")
    found["table"] = table(found["models"])
    name = folder.parent.name if folder.name.startswith("run-") else folder.name
    student.create_model_card(model_name=name)
    print(f"\n{found['table']}\n\n{found['summary']}\n{found['seconds']:.0f} s in all; everything is in {folder}")
