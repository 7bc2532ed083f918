"""A finished run under a suite of public benchmarks: its models beside each other on the same tasks.

Knows: the folders of a run, figures of suites. Does not know: libraries of benchmarks, cards, the command.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hf_distill.experiments.comparison import as_json
from hf_distill.experiments.record import recorded
from hf_distill.experiments.suites import Figure, Suite
from hf_distill.reports import gap_closed, markdown_table

FILE = "benchmark.json"
"""Beside ``report.json``: every figure that was found of the run."""
ALONE, DISTILLED, TEACHER = MODELS = ("student alone", "distilled", "teacher")
"""How a run's models are called, in the order of the table."""
GAP = "gap closed %"
"""The heading of a column."""
LARGE = 100
"""Shares and correlations are far below; a perplexity above needs no four decimals."""


def models_of(folder: Path, alone: str | None = None, teacher: str | None = None) -> dict[str, str]:
    """Find the models of a run: the student, the student alone, and the teacher that it had or that was trained there.

    Args:
        folder: of the student.
        alone: a path or Hub id, in the place of the one in the folder.
        teacher: the same of the teacher.

    Returns:
        Name -> path or Hub id, in the order of ``MODELS``; those that nobody knows of are left out.
    """
    kept = folder / "_alone"
    alone = alone or (str(kept) if (kept / "config.json").is_file() else None)
    found = {ALONE: alone, DISTILLED: str(folder), TEACHER: teacher or teacher_of(folder)}
    return {name: model for name, model in found.items() if model}


def teacher_of(folder: Path) -> str | None:
    """Find a run's teacher: the one that was given, or the one that was trained for it and is kept.

    Args:
        folder: of the student; its ``report.json`` says which.

    Returns:
        A path or Hub id; None where the report does not say, or the teacher is no longer there.
    """
    settings = settings_of(folder)
    if (given := settings.get("teacher_model_name_or_path")) and not settings.get("finetune_teacher"):
        return given
    roots = [folder, folder.parent] if folder.name.startswith("run-") else [folder]  # runs without a folder share one
    there = [one.parent for root in roots for one in sorted(root.glob("_teacher-*/trained_with.json"))]
    if name := _report(folder).get("teacher_folder"):
        there = [one for one in there if one.name == name]
    return str(there[0]) if len(there) == 1 else None


def settings_of(folder: Path) -> dict[str, Any]:
    """Read the arguments of the recipe that made a student; empty where its report does not say.

    Args:
        folder: of the student.
    """
    return (recorded(_report(folder)) or ("", {}))[1]


def put_together(suite: type[Suite], found: Mapping[str, Sequence[Figure]], about: Mapping[str, Any]) -> list[dict]:
    """Put the figures of several models beside each other.

    Args:
        suite: that found them.
        found: model -> its figures, the same ones in the same order.
        about: what else is to be kept with each: the limit, the machine.

    Returns:
        A row a figure, with ``models`` (the value and the library's error of each) and ``gap``: how much of it the
        student closed, row by row, where all three models were scored and the figure is a mean over rows.
    """
    rows = []
    for figures in zip(*found.values(), strict=True):
        of = dict(zip(found, figures, strict=True))
        first, each = figures[0], [of[name].each for name in MODELS if name in of]
        gap = None
        if set(MODELS) <= of.keys() and all(one is not None for one in each):
            alone, distilled, teacher = each
            gap = asdict(gap_closed(alone, distilled, teacher, lower_is_better=first.lower_is_better))
        rows.append(
            {
                "suite": suite.name,
                "library": suite.version(),
                "task": first.task,
                "metric": first.metric,
                "lower_is_better": first.lower_is_better,
                "rows": first.rows,
                **first.settings,
                **about,
                "models": {name: {"value": one.value, "error": one.error} for name, one in of.items()},
                "gap": gap,
            }
        )
    return rows


def keep(folder: Path, rows: Sequence[dict]) -> list[dict]:
    """Write figures beside the report, in the place of those that the same tasks had.

    Args:
        folder: of the student.
        rows: as ``put_together`` returns them.

    Returns:
        All that are kept now.
    """
    path = folder / FILE
    before = json.loads(path.read_text(encoding="utf-8"))["figures"] if path.is_file() else []
    anew = {(row["suite"], row["task"]) for row in rows}
    kept = [row for row in before if (row["suite"], row["task"]) not in anew] + json.loads(as_json(rows))
    path.write_text(as_json({"figures": kept}), encoding="utf-8")
    return kept


def benchmark_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Lay out figures, a line each.

    Args:
        rows: as ``keep`` returns them.

    Example:
        >>> models = {"distilled": {"value": 0.5, "error": 0.05}, "teacher": {"value": 0.75, "error": None}}
        >>> row = {"task": "mine", "metric": "acc", "rows": 100, "models": models, "gap": None}
        >>> print(benchmark_table([row]))
        | task | figure | rows |       distilled | teacher |
        | :--- | -----: | ---: | --------------: | ------: |
        | mine |    acc |  100 | 0.5000 ± 0.0500 |  0.7500 |
    """
    models = [name for name in MODELS if any(name in row["models"] for row in rows)]
    closed = [GAP] if len(models) == len(MODELS) else []
    lines = [
        [
            row["task"],
            row["metric"],
            f"{row['rows']:,}",
            *(_figure(row["models"].get(name)) for name in models),
            *(_closed(row["gap"]) for _ in closed),
        ]
        for row in rows
    ]
    return markdown_table(["task", "figure", "rows", *models, *closed], lines)


def about_benchmarks(rows: Sequence[Mapping[str, Any]]) -> str:
    """Say what a table of figures is of.

    Args:
        rows: as ``keep`` returns them.
    """
    said = [
        f"Scored by {_listed(row['library'] for row in rows)}, in the dtype of the saved weights, on "
        f"{_listed(row['machine'] for row in rows)}."
    ]
    if any(one["error"] is not None for row in rows for one in row["models"].values()):
        said.append("± is one standard error, the library's own.")
    lacking = _listed(row["task"] for row in rows if all(one["error"] is None for one in row["models"].values()))
    if lacking:
        said.append(f"No standard error is given of {lacking}: small differences may be chance.")
    if any(set(MODELS) <= row["models"].keys() for row in rows):
        said.append(
            'The gap closed is that of the rows in pairs; "-" where the gap is under two standard errors, where the '
            "teacher is not ahead, and where a figure is no mean over rows."
        )
    if worse := _listed(f"{row['metric']} of {row['task']}" for row in rows if row["lower_is_better"]):
        said.append(f"Lower is better for {worse}.")
    if shots := {row["task"]: row["shots"] for row in rows if row.get("shots")}:
        said.append("Examples before each row: " + ", ".join(f"{task} {count}" for task, count in shots.items()) + ".")
    if few := _listed(row["task"] for row in rows if row.get("limit")):
        said.append(f"Only the first rows were taken of {few}, which nobody else's figures can be compared with.")
    return " ".join(said)


def _report(folder: Path) -> dict[str, Any]:
    path = folder / "report.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _listed(names: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(names))


def _figure(found: Mapping[str, float | None] | None) -> str:
    if found is None or found["value"] is None:
        return "-"
    shape = ".4f" if abs(found["value"]) < LARGE else ",.1f"
    error = "" if found["error"] is None else f" ± {found['error']:{shape}}"
    return f"{found['value']:{shape}}{error}"


def _closed(gap: Mapping[str, Any] | None) -> str:
    if gap is None or gap["ratio"] is None:
        return "-"
    return f"{100 * gap['ratio']:.0f} ± {100 * gap['ratio_error']:.0f}"
