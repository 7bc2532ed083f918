"""Finished models beside each other: what a recipe reports, without its training.

Knows: a recipe's job, paths of models. Does not know: rows, how models are measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import time
from typing import Any

from recipe_run import settings
from three_models import Job, report

from hf_distill.cli.parsing import parse_some


@dataclass
class FinishedArguments:
    """What is measured beside the student; every other argument is the recipe's."""

    alone: str | None = field(
        default=None, metadata={"help": "The same student, trained without its teacher: a path or Hub id."}
    )


def main(prepare: Callable[[list[str]], Job], argv: Sequence[str]) -> dict[str, Any]:
    """Measure finished models on the test rows.

    Args:
        prepare: of a recipe.
        argv: a YAML file or flags of the recipe, and ``--alone``.

    Returns:
        What ``report.json`` holds.

    Raises:
        ValueError: a model is missing.
    """
    started = time()
    asked, rest = parse_some(FinishedArguments, argv)
    job = prepare(rest)
    student, teacher = job.recipe.student_model_name_or_path, job.recipe.teacher_model_name_or_path
    if not student or not teacher:
        raise ValueError(
            "a report was asked for without a finished student and its teacher: name both with "
            "--student_model_name_or_path and --teacher_model_name_or_path."
        )
    judge = job.trainer(job.kind.kept(student), job.args, teacher)
    trainers = {"distilled": judge}
    if asked.alone:
        trainers = {"student alone": job.trainer(job.kind.kept(asked.alone), settings(job.args, "")), **trainers}
    Path(job.args.output_dir).mkdir(parents=True, exist_ok=True)
    report(job, trainers, started, card=False)
    return judge.report
