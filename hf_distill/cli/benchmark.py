"""``hf-distill benchmark``: score a finished student, its teacher and the student alone by public benchmarks.

Knows: a finished run's folder, which suites there are. Does not know: tasks, how models are scored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import torch
import transformers

from hf_distill.cli.arguments import USAGE, BenchmarkArguments
from hf_distill.cli.sources import check_folder
from hf_distill.experiments.benchmark import (
    ALONE,
    FILE,
    TEACHER,
    about_benchmarks,
    benchmark_table,
    keep,
    models_of,
    put_together,
    settings_of,
)
from hf_distill.experiments.parsing import parse_arguments
from hf_distill.experiments.suites import SUITES, Asked, Suite
from hf_distill.hub.section import put_section
from hf_distill.models.meta import built
from hf_distill.reports import machine
from hf_distill.tasks import Task

HEADING = "## Benchmarks"
"""Of the section in the student's card."""
WANTED = {
    TEACHER: "The teacher is not in the run's folder: --teacher names one.",
    ALONE: "The student alone is not in the run's folder: --alone names one, and the gap that is closed is shown.",
}


def main(argv: Sequence[str]) -> None:
    """Run the command.

    Args:
        argv: the folder of a finished student, and flags of ``BenchmarkArguments``, or a YAML file with flags.

    Raises:
        ImportError: the suite's library is missing; names the extra.
        ValueError: no folder, no model in it or one that the suite does not score, no such suite or task, or rows
            that cannot be had.
    """
    words = list(argv)
    if not words or words[0].startswith("-"):
        print(USAGE["benchmark"])
        raise ValueError("no folder was named: begin with that of a finished student, such as outputs/mine/run-1.")
    folder = Path(words.pop(0))
    (asked,) = parse_arguments([BenchmarkArguments], words)
    suite = named(asked.suite)
    check_flags(asked, suite)
    check_kind(folder, suite)
    suite.check()
    models = models_of(folder, asked.alone, asked.teacher)
    check_models(models)
    device = device_of(asked)
    told = {field.name: getattr(asked, field.name) for field in fields(Asked) if hasattr(asked, field.name)}
    told["pool"] = asked.pool or settings_of(folder).get("pool", "mean")
    print(f"\n=== {suite.name}: reading the rows of {', '.join(asked.tasks)}", flush=True)
    made = suite(Asked(**told | {"batch_size": asked.per_device_eval_batch_size, "device": device}))
    found = {}
    for name, model in models.items():
        print(f"\n=== scoring the {name if name != 'distilled' else 'distilled student'}", flush=True)
        found[name] = made.score(model)
    place = machine(device).rpartition(", ")[0]  # without a dtype: each model has its own
    about = {"limit": asked.limit, "machine": place}
    rows = keep(folder, put_together(suite, found, about))
    there = put_section(folder / "README.md", HEADING, benchmark_table(rows), about_benchmarks(rows))
    print(f"\n{benchmark_table(rows)}\n\n{about_benchmarks(rows)}")
    print("".join(f"{said}\n" for name, said in WANTED.items() if name not in models), end="")
    card = f", the table in {folder / 'README.md'}" if there else ""
    print(f"The figures are in {folder / FILE}{card}.")


def named(name: str) -> type[Suite]:
    """Find a suite by its name.

    Args:
        name: as the command takes it.

    Raises:
        ValueError: there is none of that name.
    """
    known = {one.name: one for one in SUITES}
    if name not in known:
        raise ValueError(f"the suite {name!r} was asked for, there are {' and '.join(known)}: name one of these.")
    return known[name]


def check_flags(asked: BenchmarkArguments, suite: type[Suite]) -> None:
    """Refuse numbers that are none, and flags of another suite.

    Args:
        asked: by the user.
        suite: that shall score.

    Raises:
        ValueError: names the flag.
    """
    for name in ("limit", "per_device_eval_batch_size", "max_length"):
        if (value := getattr(asked, name)) is not None and value < 1:
            raise ValueError(f"{name}={value} was given: give 1 or more, or leave it out.")
    if asked.pool not in (None, "mean", "first"):
        raise ValueError(f"pool={asked.pool} was given: use mean or first, whichever the models were trained with.")
    plain = BenchmarkArguments(asked.suite, asked.tasks)
    for other in SUITES:
        for name in sorted(other.options - suite.options):
            if getattr(asked, name) != getattr(plain, name):
                raise ValueError(
                    f"{name} was given, which is for {other.name} and not for {suite.name}: leave it out."
                )


def check_kind(folder: Path, suite: type[Suite]) -> None:
    """Refuse a student that a suite does not score; its weights are not loaded for that.

    Args:
        folder: of the student.
        suite: that shall score.

    Raises:
        ValueError: there is none, an adapter alone, or one of another kind.
    """
    check_folder(folder, f"{suite.name} was to score {folder}")
    config = transformers.AutoConfig.from_pretrained(folder)
    name = next(iter(config.architectures or ()), "")
    kind = getattr(transformers, name, None)
    task = None if kind is None else Task.find(built(kind, config), taught=True)
    if not suite.takes(task, folder):
        scored = ", ".join(f"{one.name} scores {one.scores}" for one in SUITES)
        raise ValueError(
            f"{suite.name} was to score {folder}, which holds a {name or 'model of no known class'}, and {scored}: "
            "name a student of that kind."
        )


def check_models(models: dict[str, str]) -> None:
    """Refuse a model that is not there, before the others are scored.

    Args:
        models: name -> path or Hub id.

    Raises:
        ValueError: names the first one.
    """
    for name, model in models.items():
        try:
            transformers.AutoConfig.from_pretrained(model)
        except (OSError, ValueError) as error:
            said = " ".join(str(error).split())[:160].rstrip(".")
            flag = {TEACHER: "--teacher", ALONE: "--alone"}.get(name, "the folder")
            raise ValueError(
                f"the {name} was to be {model}, and no model can be loaded from it ({said}): name another with {flag}."
            ) from error


def device_of(asked: BenchmarkArguments) -> str:
    """Say on what models run: the accelerator, if there is one and nobody forbids it.

    Args:
        asked: by the user.
    """
    if asked.use_cpu or not torch.accelerator.is_available():
        return "cpu"
    return f"{torch.accelerator.current_accelerator().type}:0"
