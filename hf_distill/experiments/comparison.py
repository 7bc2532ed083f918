"""Did the teacher help? The models on the test rows: quality, agreement, size, speed, the gap closed.

Knows: what was found of each model, whole models, the report's files. Does not know: how models were made or trained.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import transformers
from datasets import Dataset
from torch import nn
from transformers import Trainer, TrainingArguments

from hf_distill.experiments.gate import judged, last_line
from hf_distill.experiments.scoring import Measurement, Scoring
from hf_distill.experiments.without_autocast import dtype_of, precision
from hf_distill.reports import (
    ClassChange,
    class_table,
    gap_closed,
    latencies,
    machine,
    markdown_table,
    plot_comparison,
    plot_losses,
    real_time_factor,
    size_of,
    throughputs,
)
from hf_distill.reports.page import write_page
from hf_distill.reports.side_by_side import method
from hf_distill.tasks.alignment.tokens import PREFIX
from hf_distill.tasks.comparing import reads_own, teachers_columns
from hf_distill.tasks.lengths import length_of

SPEED_BATCH = 64


def compare(
    measurements: Mapping[str, Measurement],
    models: Mapping[str, nn.Module],
    test: Dataset,
    student: Trainer,
    scoring: Scoring,
    floor: float | None = None,
) -> dict[str, Any]:
    """Put together what was found of each model, its size and its speed.

    Args:
        measurements: ``teacher``, ``distilled`` and, if there is one, the baseline, in the order of the table.
        models: the same names: whole models, as ``published`` gives them.
        test: tokenised rows: the first of them are fed to the clock.
        student: the distilled student's trainer.
        scoring: how models are measured.
        floor: what who learnt nothing scores; None: nobody knows.

    Returns:
        ``models`` (a row each), ``gap``, its ``summary`` and ``verdict``, the ``floor`` and the best model's lead over
        it, what was ``required`` and is ``unmet``, and on which ``machine`` and in which ``mode`` with which
        ``versions``.
    """
    rows, taken = [], costs({name: models[name] for name in measurements}, test, student, scoring)
    for name, measurement in measurements.items():
        further = {} if name == "teacher" else scoring.extra_figures(models[name], models["teacher"])
        rows.append({"name": name, **measurement.row(scoring.plotted[0], scoring.share), **taken[name], **further})
    found = {"models": rows, "gap": None, "summary": "the student was not trained alone: the gain is not known"}
    gap = None
    if scoring.baseline in measurements:
        gap = gap_closed(*(scoring.scores(measurements[name]) for name in (scoring.baseline, "distilled", "teacher")))
        found |= {"gap": asdict(gap), "summary": scoring.summary(gap)}
    found |= {
        **scoring.above_floor(rows, floor),
        **surroundings(student.args, models),
        "metrics": dict(scoring.hub),
        **scoring.details(measurements),
    }
    return found | judged(found, student.args.required, student.args.quick, verdict=gap)


def costs(
    models: Mapping[str, nn.Module], test: Dataset, trainer: Trainer, scoring: Scoring
) -> dict[str, dict[str, Any]]:
    """Measure the models' sizes and their speeds beside each other, on the first test rows.

    Args:
        models: whole.
        test: tokenised rows.
        trainer: whose collator and device are used.
        scoring: says what is timed.

    Returns:
        name -> ``parameters``, ``megabytes``, ``samples_per_second`` and ``latency`` in milliseconds; None where a
        speed did not come out twice. Of recordings ``real_time_factor`` too.
    """
    timed = {name: scoring.timed(model, trainer) for name, model in models.items()}
    whole = all(timed[name] is model for name, model in models.items())  # else a text is written, which takes longer
    row, batches = usual_row(trainer, test), speed_batches(trainer, test, scoring.speed_rows)
    if reads_own(row):  # what the other reads is not to be given to it, nor counted as its time
        timed = {name: OwnColumns(model, name == "teacher") for name, model in timed.items()}
    waited = latencies(timed, row, repeats=50 if whole else 10)
    taken = throughputs(timed, batches)
    return {
        name: {
            **dict(zip(("parameters", "megabytes"), size_of(model), strict=True)),
            "samples_per_second": taken[name],
            "latency": waited[name],
            **_real_time(timed[name], test, trainer, scoring),
        }
        for name, model in models.items()
    }


class OwnColumns(nn.Module):
    """A model that takes its own of a batch's columns, where a teacher reads others than its student.

    Args:
        model: of either.
        teacher: whether it is the teacher: its columns are ``teacher_x``, and become ``x``.
    """

    def __init__(self, model: nn.Module, teacher: bool) -> None:
        super().__init__()
        self.model, self.teacher = model, teacher

    def forward(self, **batch: torch.Tensor) -> Any:
        """Run the model.

        Args:
            **batch: the columns of both.
        """
        theirs = teachers_columns(batch)
        ours = {name: one for name, one in batch.items() if not name.startswith(PREFIX)}
        return self.model(**(theirs if self.teacher else ours))


def surroundings(args: TrainingArguments, models: Mapping[str, nn.Module]) -> dict[str, Any]:
    """Say on which ``machine``, in which ``mode``, how (``speed``) and with which ``versions`` figures were found.

    Args:
        args: Trainer's.
        models: what was measured, as ``published`` gives them.
    """
    return {
        "machine": machine(args.device, dtype_of(next(reversed(models.values())))),
        "mode": precision(models),
        "speed": method(),
        "versions": {"transformers": transformers.__version__, "torch": torch.__version__},
    }


def speed_batches(trainer: Trainer, test: Dataset, rows: int) -> list[dict[str, torch.Tensor]]:
    """Collate the first test rows into batches, without labels: every model is timed on the same.

    Args:
        trainer: whose collator is used.
        test: tokenised rows.
        rows: how many of them.
    """
    drop = {"label", "labels", *trainer.label_names}
    some = test.select(range(min(rows, len(test))))
    some = some.remove_columns([name for name in some.column_names if name in drop]).to_list()
    batches = (dict(trainer.data_collator(some[i : i + SPEED_BATCH])) for i in range(0, len(some), SPEED_BATCH))
    return [{name: value for name, value in batch.items() if name not in drop} for batch in batches]


def usual_row(trainer: Trainer, test: Dataset) -> dict[str, torch.Tensor]:
    """Collate one test row, of middling length among the first: what a user waits for.

    Args:
        trainer: whose collator is used.
        test: tokenised rows.
    """
    some = test.select(range(min(SPEED_BATCH, len(test))))
    order = sorted(range(len(some)), key=lambda i: length_of(some[i]))
    return speed_batches(trainer, some.select([order[len(order) // 2]]), 1)[0]


def _real_time(model: nn.Module, test: Dataset, trainer: Trainer, scoring: Scoring) -> dict[str, float]:
    heard = scoring.seconds(test.select(range(min(scoring.speed_rows, len(test)))))
    if heard is None:
        return {}
    return {"real_time_factor": real_time_factor(model, speed_batches(trainer, test, scoring.speed_rows), heard)}


def cells(
    models: list[dict[str, Any]],
    scoring: Scoring,
    further: Mapping[str, str] | None = None,
    floor: float | None = None,
) -> tuple[list[str], list[list[str]]]:
    """Write the models' figures: the header of their table, and the cells of each row.

    Args:
        models: the report's rows.
        scoring: how they are shown.
        further: heading of one more column -> its figure, a whole number, which a row may lack.
        floor: what who learnt nothing scores, which is one more row; None: nobody knows.
    """

    def known(figure: float | None, shape: str) -> str:
        return "-" if figure is None else format(figure, shape)

    columns = {
        "model": lambda row: row["name"],
        **scoring.columns,
        **{heading: lambda row, key=key: known(row.get(key), ",.0f") for heading, key in (further or {}).items()},
        "parameters": lambda row: f"{row['parameters']:,}",
        "MB": lambda row: f"{row['megabytes']:.1f}",
        "ms": lambda row: known(row["latency"], ".1f"),
        f"{scoring.unit}/s": lambda row: known(row["samples_per_second"], ",.0f"),
    }
    if any("real_time_factor" in row for row in models):
        columns["x real time"] = lambda row: known(row.get("real_time_factor"), ",.0f")
    rows = [[show(row) for show in columns.values()] for row in models]
    if floor is not None:
        rows.append([_shown(show, scoring.floor_row(floor)) for show in columns.values()])
    return list(columns), rows


def _shown(show: Callable[[Mapping[str, Any]], str], row: Mapping[str, Any]) -> str:
    """What a column shows of a row that may lack its figure."""
    try:
        return show(row) or "-"
    except KeyError:
        return "-"


def labelled(scoring: Scoring, split: str) -> tuple[str, str]:
    """Which figure a picture shows, and how to name it: of the test rows, or of the validation rows without any.

    Args:
        scoring: how models are measured.
        split: the rows'.
    """
    score, name = scoring.plotted
    return score, name.format(split=split)


def as_json(found: Any) -> str:
    """Write a report so that every reader of JSON takes it: a figure that is no finite number is null.

    Args:
        found: mappings, sequences, numbers, texts.

    Example:
        >>> as_json({"kl": float("nan"), "rows": [1.0]}).split()
        ['{', '"kl":', 'null,', '"rows":', '[', '1.0', ']', '}']
    """

    def known(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: known(one) for name, one in value.items()}
        if isinstance(value, (list, tuple)):
            return [known(one) for one in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return json.dumps(known(found), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write(
    student: Trainer, scoring: Scoring, measurements: Mapping[str, Measurement], test: Dataset, card: bool = True
) -> None:
    """Write ``report.json``, pictures, the page and the card beside the student's weights, and show the table.

    Args:
        student: the distilled student's trainer, with the report.
        scoring: how figures are shown.
        measurements: what was found of each model.
        test: tokenised rows, which were measured.
        card: whether to write a model card too.
    """
    folder, found = Path(student.args.output_dir), student.report
    title = f"{found['dataset']}: did the teacher help?"
    found["plotted"], floor = labelled(scoring, found["split"]), found.get("floor")
    found["plotted_floor"] = scoring.floor_row(floor).get(scoring.plotted[0])
    plot_comparison(found["models"], folder / "report.png", title, *found["plotted"], floor=found["plotted_floor"])
    found["pictures"] = {"report.png": "Quality, latency and size of the teacher and its students"}
    found["pictures"] |= scoring.pictures(measurements, folder)
    if any("loss" in entry for entry in student.state.log_history):
        plot_losses(student.state.log_history, folder / "losses.png")
        found["pictures"]["losses.png"] = "The parts of the loss over the training of the distilled student"
    (folder / "report.json").write_text(as_json(found), encoding="utf-8")
    shown = cells(found["models"], scoring, floor=floor)
    found["table"] = markdown_table(*shown)
    if found.get("classes"):
        found["class_table"] = class_table([ClassChange(**one) for one in found["classes"]])
    samples = scoring.disagreements(measurements, test) if {"teacher", "distilled"} <= measurements.keys() else None
    page = write_page(folder, found, shown, last_line(found), samples, public=student.args.hub_samples)
    name = folder.parent.name if folder.name.startswith("run-") else folder.name
    if card:
        student.create_model_card(model_name=name)
    print(f"\n{found['table']}\n\n{found['summary']}")
    if floor is not None:
        print(f"floor: {scoring.floor_named(floor)}")
    print(f"{found['seconds']:.0f} s in all; everything is in {folder}")
    print(f"For a browser: {page}")
    print(last_line(found))
