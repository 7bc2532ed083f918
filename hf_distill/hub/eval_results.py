"""What the Hub's leaderboards read of a student: ``.eval_results/hf_distill.yaml`` beside its card.

Knows: a report, the Hub's format. Does not know: cards, how anything was measured, which data sets have leaderboards.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

FILE = Path(".eval_results") / "hf_distill.yaml"


def write_eval_results(folder: str | Path, report: Mapping[str, Any], metrics: Mapping[str, str]) -> Path | None:
    """Write the student's first figure for the data set that it was measured on, if that has an id on the Hub.

    A leaderboard has one value for a task of a data set, so the other figures stay on the card. The task is named
    ``default``; where the data set's own ``eval.yaml`` names it otherwise, so does ``eval_task_id`` of the report.

    Args:
        folder: of the student.
        report: what was measured: ``models``, ``datasets``, ``split``, ``dataset_revision``, ``summary``.
        metrics: the Hub's name of a metric -> the report's; the first one goes up.

    Returns:
        The file; None where there is nothing to say, and a file of another report is removed.

    Example:
        >>> import tempfile
        >>> report = {"models": [{"name": "distilled", "accuracy": 0.91234}], "datasets": ["me/reviews"]}
        >>> print(write_eval_results(tempfile.mkdtemp(), report, {"accuracy": "accuracy"}).read_text().strip())
        - dataset:
            id: me/reviews
            task_id: default
          value: 0.9123
          notes: accuracy on the test split
    """
    path = Path(folder) / FILE
    student = next((row for row in report.get("models", ()) if row["name"] == "distilled"), None)
    named, datasets = next(iter(metrics.values()), None), report.get("datasets") or ()
    datasets = [datasets] if isinstance(datasets, str) else datasets
    if student is None or named not in student or not math.isfinite(student[named]) or len(datasets) != 1:
        path.unlink(missing_ok=True)
        return None
    entry = EvalResultEntry(
        dataset_id=datasets[0],
        task_id=report.get("eval_task_id", "default"),
        value=round(float(student[named]), 4),
        dataset_revision=report.get("dataset_revision"),
        notes=f"{named.replace('_', ' ')} on the {report.get('split', 'test')} split",
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(eval_result_entries_to_yaml([entry]), sort_keys=False), encoding="utf-8")
    return path
