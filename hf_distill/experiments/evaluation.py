"""Finished models beside each other: what a recipe reports, without its training.

Knows: a recipe's experiment, paths of models. Does not know: rows, how models are measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import time
from typing import Any

from hf_distill.experiments.experiment import Experiment, report
from hf_distill.experiments.gate import decide
from hf_distill.experiments.parsing import parse_some
from hf_distill.experiments.settings import arguments_for


@dataclass
class FinishedArguments:
    """What is measured beside the student; every other argument is the recipe's."""

    alone: str | None = field(
        default=None, metadata={"help": "The same student, trained without its teacher: a path or Hub id."}
    )


def main(prepare: Callable[[list[str]], Experiment], argv: Sequence[str]) -> dict[str, Any]:
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
    experiment = prepare(rest)
    student, teacher = experiment.recipe.student_model_name_or_path, experiment.recipe.teacher_model_name_or_path
    if not student or not teacher:
        raise ValueError(
            "a report was asked for without a finished student and its teacher: name both with "
            "--student_model_name_or_path and --teacher_model_name_or_path."
        )
    reference = experiment.trainer(experiment.kind.kept(student), experiment.args, teacher)
    trainers = {"distilled": reference}
    if asked.alone:
        alone = experiment.trainer(experiment.kind.kept(asked.alone), arguments_for(experiment.args, ""))
        trainers = {"student alone": alone, **trainers}
    Path(experiment.args.output_dir).mkdir(parents=True, exist_ok=True)
    report(experiment, trainers, started, card=False)
    decide(reference.report, reference.is_world_process_zero())
    return reference.report
