"""Is it the teacher, or chance? The student alone against the student under its teacher, over seeds.

The learning rate is chosen for the student alone, on the validation rows, with the first seed; every run then uses
it, for as many steps, and is measured on the test rows. The run that was chosen is one of them: none is trained twice.
Then the one alone is trained for as many CPU seconds as the distilled one took, with all that its teacher took:
whoever has no teacher could train longer. Each finished run is a line of ``runs.jsonl``: start again to go on.

Knows: a recipe's experiment, in which order runs are made, what is kept of them. Does not know: rows, models, scores.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from time import perf_counter, process_time, time
from typing import Any

import numpy as np
from accelerate.utils import gather_object
from datasets import Dataset
from transformers import Trainer

from hf_distill.experiments.comparison import as_json, cells, costs, labelled, surroundings
from hf_distill.experiments.experiment import Experiment, make_teacher
from hf_distill.experiments.gate import decide, judged, last_line
from hf_distill.experiments.models import ModelArguments
from hf_distill.experiments.own_teacher import SHAPES
from hf_distill.experiments.parsing import parse_some
from hf_distill.experiments.rates import best_rate, next_rate
from hf_distill.experiments.settings import READING, TAUGHT, arguments_for, say
from hf_distill.experiments.steps import steps_of
from hf_distill.experiments.without_autocast import as_published, plainly
from hf_distill.reports import gap_closed, markdown_table, mean_interval, plot_comparison
from hf_distill.reports.page import write_page

AS_LONG = "{}, as long"
FIXED = (
    *SHAPES, "world_size", "alpha", "temperature", "objective", "augmentation", "rollout", "teacher_alignment",
    "teacher_dtype", "teacher_quantization", "num_train_epochs",
)  # fmt: skip
"""Runs with other values of these are not to be mixed."""


@dataclass
class SeedArguments:
    """What is compared; every other argument is the recipe's."""

    seeds: list[int] = field(default_factory=lambda: [0, 1, 2], metadata={"help": "Of the students."})
    learning_rates: list[float] = field(
        default_factory=list,
        metadata={"help": "To choose from. Default: the recipe's, then twice and half of the best while that helps."},
    )
    tuning_runs: int = field(default=3, metadata={"help": "How many rates are tried at most; 1 keeps the recipe's."})
    tune_distilled: bool = field(
        default=False, metadata={"help": "Choose a rate for the distilled student too. Default: that of the other."}
    )
    equal_seconds: bool = field(
        default=True, metadata={"help": "Train the student alone for as many CPU seconds as the distilled one, too."}
    )


def main(prepare: Callable[[list[str]], Experiment], argv: Sequence[str]) -> dict[str, Any]:
    """Make the runs that are missing, and say what they show.

    Args:
        prepare: of a recipe.
        argv: a YAML file or flags of the recipe, and flags of ``SeedArguments``.

    Returns:
        What ``report.json`` holds: a row for each model with its mean and standard error over seeds, all ``runs``,
        the ``tuning``, the ``gap`` and, at equal seconds, ``gap_as_long``, their ``summary``, and the ``floor``, which
        is None where the scoring knows none, with the best model's lead over it.

    Raises:
        ValueError: fewer than two seeds, a recipe without a student alone, a folder with other settings.
        SystemExit: with code 3: the student is not what ``require`` says.
    """
    started = time()
    asked, rest = parse_some(SeedArguments, argv)
    asked.seeds = list(dict.fromkeys(asked.seeds))  # a run that is counted twice is no second one
    if len(asked.seeds) < 2:
        raise ValueError(f"the seeds {asked.seeds} were given: one run says nothing about chance, give two or more.")
    if asked.tuning_runs < 1:
        raise ValueError(f"tuning_runs={asked.tuning_runs} was given: give 1 to keep the recipe's rate, or more.")
    experiment = prepare(rest)
    if experiment.recipe.skip_alone:
        raise ValueError(f"there is no {experiment.scoring.baseline} to compare with: leave skip_alone out.")
    found = Runs(experiment, asked).report(started)
    decide(found, experiment.args.process_index == 0)
    return found


class Runs:
    """The runs of one comparison, made or found.

    Args:
        experiment: the recipe's.
        asked: which runs.
    """

    def __init__(self, experiment: Experiment, asked: SeedArguments) -> None:
        self.experiment, self.asked, self.folder = experiment, asked, experiment.root / "over_seeds"
        self.file, args = self.folder / "runs.jsonl", experiment.args
        self.students = (experiment.scoring.baseline, "distilled")
        self.as_long = AS_LONG.format(self.students[0])
        fixed = {name: getattr(args, name) for name in FIXED}
        fixed |= {"rows": {name: rows._fingerprint for name, rows in experiment.splits.items()}}
        later = (*READING, "student_quantization")  # which earlier versions had not
        fixed |= _settings(experiment.recipe) | {name: told for name in later if (told := getattr(args, name))}
        if "unlabeled" in experiment.splits:  # earlier versions gave the student alone fewer steps
            fixed["steps"] = "equal"
        if args.bf16 or args.fp16:  # scores of earlier versions were taken under autocast
            fixed["measured"] = "as published"
        own = hashlib.sha256(json.dumps(fixed, sort_keys=True, default=str).encode()).hexdigest()[:16]
        self.found = [json.loads(line) for line in self._lines()]
        if self.found and self.found[0] != {"settings": own}:
            raise ValueError(
                f"{self.folder} holds runs with other settings or rows: name another --output_dir, or give the same."
            )
        if not self.found:
            self._keep({"settings": own})
        # A processor that waits for an accelerator works for nobody: there the seconds that pass are counted.
        on_cpu = args.device.type == "cpu"
        self.clock, self.counted, self.now = (
            ("CPU seconds", "cpu_seconds", _cpu_seconds) if on_cpu else ("seconds", "train_seconds", perf_counter)
        )
        self.teacher = make_teacher(experiment)
        own = {"alpha": args.alpha, "output_dir": str(self.folder / "_judge"), "eval_strategy": "no"}
        # It is never trained: it asks the teacher.
        self.reference = experiment.distilled(self.teacher, arguments_for(args, "", **own))

    def report(self, started: float) -> dict[str, Any]:
        """Make what is missing, and write ``report.json`` and its picture; see ``main``."""
        rates, experiment, test = self.tuned(), self.experiment, self.experiment.splits["test"]
        split = experiment.recipe.tested
        names = self.students
        if self.asked.equal_seconds:
            names = (names[0], self.as_long, names[1])
        runs = [run for seed in self.asked.seeds for run in self.of_seed(rates, seed)]
        plotted = experiment.scoring.plotted[0]
        beside = experiment.alone(self.teacher, experiment.arguments_alone(output_dir=str(self.folder / "_judge")))
        with as_published(self.reference, dict(zip(self.students, (beside, self.reference), strict=True))) as models:
            teacher = experiment.scoring.measure({}, test, self.reference)["teacher"]
            taken = costs(models, test, self.reference, experiment.scoring)
        rows = [{"name": "teacher", **teacher.row(plotted, experiment.scoring.share), **taken["teacher"]}]
        for name in names:
            own = [run for run in runs if run["student"] == name]
            figures = {key: [run["figures"][key] for run in own] for key in own[0]["figures"]}
            spread = {key: float(np.mean(values)) for key, values in figures.items()}
            spread |= {f"{key}_error": _error(values) for key, values in figures.items()}
            spread |= {f"{key}_interval": mean_interval(values) for key, values in figures.items() if key == plotted}
            known = [key for key in ("steps", self.counted) if all(key in run for run in own)]
            spread |= {key: float(np.mean([run[key] for run in own])) for key in known}
            rows.append({"name": name, **spread, **taken[self.students[0] if name == self.as_long else name]})
        score = {name: [run["score"] for run in runs if run["student"] == name] for name in names}
        teachers = [float(experiment.scoring.scores(teacher).mean())] * len(self.asked.seeds)
        gaps = [gap_closed(score[name], score["distilled"], teachers) for name in names[:-1]]
        said = f"; at equal {self.clock}: ".join(map(experiment.scoring.summary, gaps))
        floor = experiment.scoring.floor(test, experiment.splits["train"])
        found = {
            "dataset": experiment.source,
            **experiment.recipe.measured,
            "models": rows,
            **experiment.scoring.above_floor(rows, floor),
            **{key: asdict(gap) for key, gap in zip(("gap", "gap_as_long"), gaps, strict=False)},
            "summary": f"over {len(teachers)} seeds: {said}",
            "rates": rates,
            "tuning": [_untested(run) for run in self.found[1:] if "validation" in run],
            "runs": runs,
            **({"rounds": experiment.recipe.shrink_rounds} if experiment.recipe.shrink_rounds > 1 else {}),
            **surroundings(experiment.args, models),
            "seconds": round(time() - started, 1),
        }
        judges = dict(zip(("verdict", "verdict_as_long"), gaps, strict=False))
        found |= judged(found, experiment.args.required, experiment.args.quick, **judges)
        if experiment.args.process_index == 0:
            (self.folder / "report.json").write_text(as_json(found), encoding="utf-8")
            title = f"{experiment.source}: did the teacher help? ({len(teachers)} seeds)"
            lowest = experiment.scoring.floor_row(floor).get(plotted)
            shown = labelled(experiment.scoring, split)
            plot_comparison(rows, self.folder / "report.png", title, *shown, floor=lowest)
            further = {"steps": "steps", self.clock: self.counted}
            named = found | {"pictures": {"report.png": "Quality, latency and size of the teacher and its students"}}
            ended, laid_out = last_line(found, self.clock), cells(rows, experiment.scoring, further, floor)
            page = write_page(self.folder, named, laid_out, ended)
            print(f"\n{markdown_table(*laid_out)}\n\n{found['summary']}")
            if floor is not None:
                print(f"floor: {experiment.scoring.floor_named(floor)}, on the {split} rows")
            print(f"± is one standard error over seeds, of the teacher over its {split} rows; all is in {self.folder}")
            print(f"For a browser: {page}\n{ended}")
        return found

    def of_seed(self, rates: dict[str, float], seed: int) -> list[dict[str, Any]]:
        """Return the runs of a seed: each student, and the one alone for as many seconds as the distilled one took.

        Args:
            rates: the chosen one of each student.
            seed: of their weights and the order of their rows.
        """
        alone, distilled = (self.run(name, rates[name], seed) for name in self.students)
        if not self.asked.equal_seconds:
            return [alone, distilled]
        share = max(1.0, distilled[self.counted] / max(alone[self.counted], 1e-9))
        steps = round(share * alone["steps"])
        return [alone, distilled, self.run(self.as_long, rates[self.students[0]], seed, steps=steps)]

    def tuned(self) -> dict[str, float]:
        """Choose the learning rates on the validation rows, with the first seed."""
        best = {}
        for name in self.students if self.asked.tune_distilled else self.students[:1]:
            tried: dict[float, float] = {}
            settings = self.asked.learning_rates, self.asked.tuning_runs, self.experiment.args.learning_rate
            while (rate := next_rate(tried, *settings)) is not None:
                tried[rate] = self.run(name, rate, self.asked.seeds[0], tuning=True)["validation"]
            best[name] = best_rate(tried)
        return {name: best.get(name, best[self.students[0]]) for name in self.students}

    def run(
        self, student: str, rate: float, seed: int, tuning: bool = False, steps: int | None = None
    ) -> dict[str, Any]:
        """Return a run: the kept one, or a new one.

        Args:
            student: the one alone (``Scoring.baseline``), ``distilled``, or the one alone that trains as long.
            rate: its learning rate.
            seed: of its weights and the order of its rows.
            tuning: whether it is judged on the validation rows too; it is one of the runs if its rate is chosen.
            steps: for how many it is trained. Default: as many as the distilled one.
        """
        key = {"student": student, "learning_rate": rate, "seed": seed}
        wanted = {"validation"} if tuning else {"score", self.counted} if self.asked.equal_seconds else {"score"}
        for run in self.found[1:]:
            if wanted <= run.keys() and all(run[name] == value for name, value in key.items()):
                return run
        where = f"validation and the {self.experiment.recipe.tested}" if tuning else self.experiment.recipe.tested
        say(self.experiment.args, f"{student}, learning rate {rate:g}, seed {seed}, measured on the {where} rows")
        began, args, taught = time(), self.experiment.args, student == "distilled"
        kept: dict[str, Any] = {"seed": seed, "learning_rate": rate, "output_dir": str(self.folder / "_run")}
        if steps is None and not taught and "unlabeled" in self.experiment.splits:
            steps = steps_of(self.reference)  # it has fewer rows
        kept |= {} if steps is None else {"max_steps": steps}
        if taught:
            kept |= {name: getattr(args, name) for name in ("alpha", *TAUGHT)}
            trainer = self.experiment.distilled(self.teacher, arguments_for(args, "", **kept))
        else:
            trainer = self.experiment.alone(self.teacher, self.experiment.arguments_alone(**kept))
        planned, before = steps_of(trainer), self.now()
        trainer = self.experiment.learn(trainer)
        took = sum(gather_object([self.now() - before]))  # the same number of steps follows on each process
        test = self.experiment.splits["test"]
        run = {**key, **(self._judged(student, trainer) if tuning else {}), **self._measured(student, trainer, test)}
        took_steps = trainer.state.global_step if self.experiment.recipe.shrink_rounds == 1 else planned
        run |= {"steps": took_steps, self.counted: took, "seconds": round(time() - began, 1)}
        self._keep(run)
        if args.process_index == 0:
            shutil.rmtree(self.folder / "_run", ignore_errors=True)
        return run

    def _judged(self, student: str, trainer: Trainer) -> dict[str, float]:
        """How good a student is on the validation rows: the score, if it is measured on the way, else the loss."""
        if self.experiment.scoring.is_loss:
            return {"validation": self._measured(student, trainer, self.experiment.splits["validation"])["score"]}
        with plainly(trainer):
            found, score = trainer.evaluate(), f"eval_{self.experiment.scoring.score}"
        loss = found.get("eval_loss/hard", found["eval_loss"])
        if score not in found or score.endswith("loss"):
            return {"validation": -loss}
        return {"validation": -found[score] if self.experiment.scoring.lower_is_better else found[score]}

    def _measured(self, student: str, trainer: Trainer, rows: Dataset) -> dict[str, Any]:
        scoring = self.experiment.scoring
        with as_published(self.reference, {student: trainer}) as models:
            measurement = scoring.measure({student: trainer}, rows, self.reference)[student]
            further = scoring.extra_figures(models[student], models["teacher"])
        figures = {key: float(value) for key, value in (measurement.means() | further).items()}
        return {"score": float(scoring.scores(measurement).mean()), "figures": figures}

    def _lines(self) -> list[str]:
        """The lines that were written to their end: a run that was killed while it wrote one is made again."""
        text = self.file.read_text(encoding="utf-8") if self.file.is_file() else ""
        whole = text[: text.rfind("\n") + 1]
        if whole != text and self.experiment.args.process_index == 0:
            os.truncate(self.file, len(whole.encode()))
        return whole.splitlines()

    def _keep(self, line: dict[str, Any]) -> None:
        self.found.append(line)
        if self.experiment.args.process_index == 0:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self.file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")


def _settings(recipe: ModelArguments) -> dict[str, Any]:
    """The recipe's own, without those that earlier versions had not, where they are as they are by default."""
    usual = {"student_parameters": None, "shrink_rounds": 1}
    return {name: told for name, told in asdict(recipe).items() if name not in usual or told != usual[name]}


def _untested(run: dict[str, Any]) -> dict[str, Any]:
    """A run as the choice of a rate sees it: without what the test rows say."""
    return {key: value for key, value in run.items() if key not in ("score", "figures")}


def _cpu_seconds() -> float:
    """What this process and its workers took."""
    ended = os.times()
    return process_time() + ended.children_user + ended.children_system


def _error(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1) / np.sqrt(len(values)))
