"""Where distillation closed little: which pairs of layers, stages, temperatures, rows and students help?

    python tests/benchmarks/weak_rows.py sst2 --data FOLDER --output FOLDER --kept 0 2 5
    python tests/benchmarks/weak_rows.py token_tagging --output FOLDER --seeds 0 1 2
    python tests/benchmarks/weak_rows.py question_answering --output FOLDER --starts "a layer of the teacher's"

``sst2`` is the study of ``objectives.py``, with its FOLDER of data, its teacher and its students: 3 of the teacher's 6
layers (``--kept``), each objective on hidden states with pairs of layers by depth and by lineage. ``--teacher_rows``:
how many labels its teacher learned, once (another folder each); with ``--times`` rows "+ unlabelled" see new rows
without labels, instead of the same ones again. The rate is chosen for the student alone over as many steps.

The others are recipes with their own data and their own teacher, of seed 42, or with the flags behind ``--``, such as
files. A start is a student and a schedule (STARTS), for which the student alone and the rows (TAUGHT) are trained for
as many steps at one rate. ``tuning`` is the score of the validation rows, ``test`` that of the test rows, of models as
they are published. All is kept in ``runs.jsonl``: start again to go on. The last lines are a table of each start.
"""

import argparse
import json
import math
import sys
import time
from pathlib import Path

import numpy as np
import objectives
import torch
from datasets import concatenate_datasets
from objectives import KL, SST2

from hf_distill.cli.recipes import load_recipe
from hf_distill.experiments.data.questions import load_questions
from hf_distill.experiments.data.tagging import load_tagged
from hf_distill.experiments.experiment import make_teacher
from hf_distill.experiments.question_answering import AnswerScoring, windows
from hf_distill.experiments.settings import arguments_for
from hf_distill.experiments.token_tagging import tokenised
from hf_distill.experiments.without_autocast import plainly
from hf_distill.reports import gap_closed, markdown_table

FROM_TEACHER = "teacher's layers"


def staged(layers="uniform", until=0.5):
    return {
        "hidden_mse": {"layers": layers, "weight": {"until": until}},
        "forward_kl": {"weight": {"from": until}},
    }


def beside(layers, term="hidden_mse"):
    return {**KL, term: {"layers": layers, "weight": 1.0}}


PAIRED = {
    f"{what}, {name}": {"objective": objective}
    for name, layers in {"lineage": "lineage", "by depth": "uniform"}.items()
    for what, objective in {
        "KL + hidden": beside(layers),
        "hidden, then KL": staged(layers),
        "KL + attention": beside(layers, "attention_kl"),
    }.items()
}
STARTS = {
    "as it was": [],
    "twice the epochs": ["--num_train_epochs", "twice"],
    "the teacher's width": ["--student_hidden_size", "teacher"],
    "a layer of the teacher's": ["--student_from_teacher", "1"],
}
TAUGHT = {
    "auto": {"objective": "auto"},
    "KL": {"objective": KL},
    "KL, T = 1": {"objective": KL, "temperature": 1.0},
    "KL, T = 4": {"objective": KL, "temperature": 4.0},
    "hidden, then KL": {"objective": staged()},
    "hidden, then KL, T = 1": {"objective": staged(), "temperature": 1.0},
    "hidden, then KL, T = 4": {"objective": staged(), "temperature": 4.0},
    "auto, more rows": {"objective": "auto", "more": True},
    "hidden, then KL, more rows": {"objective": staged(), "more": True},
    **PAIRED,
}


class OfRecipe:
    """A recipe's experiment, whose teacher is trained once, and its students from several starts."""

    def __init__(self, name, output, flags):
        self.output, self.name, self.flags = Path(output), name, flags
        self.log = self.output / "runs.jsonl"
        self.done = {}
        if self.log.exists():
            self.done = {r["key"]: r for r in map(json.loads, self.log.read_text(encoding="utf-8").splitlines())}
        self.usual = self.experiment([])
        self.teacher = make_teacher(self.usual)
        self.more = None
        if "teacher" not in self.done:
            self.keep("teacher", self.usual.trainer(self.teacher, self.arguments(self.usual, 42)), 0.0)

    def experiment(self, flags):
        recipe, rest = load_recipe([self.name, *self.flags, "--output_dir", str(self.output), "--num_threads", "1"])
        if flags and flags[-1] in ("twice", "teacher"):
            had = self.usual.args.num_train_epochs, self.usual.recipe.teacher_hidden_size
            flags = [flags[0], str(2 * had[0] if flags[-1] == "twice" else had[1])]
        return recipe.prepare([*rest, *flags, "--disable_tqdm", "1", "--report_to", "none"])

    def arguments(self, experiment, seed, **changes):
        return arguments_for(experiment.args, "_work", seed=seed, **changes)

    def run(self, start, row, seed, rate):
        key = f"{row}, {start}, lr {rate:g}, seed {seed}"
        if key in self.done:
            return
        experiment = self.experiment(STARTS[start])
        settings = {"learning_rate": rate} | TAUGHT.get(row, {"alpha": 0.0})
        more = settings.pop("more", False)
        if row != "no KD":
            settings = {"alpha": experiment.args.alpha, "temperature": experiment.args.temperature, **settings}
        plain = experiment.alone(self.teacher, self.arguments(experiment, seed))
        settings["max_steps"] = round(
            len(plain.get_train_dataloader()) * experiment.args.num_train_epochs
        )  # more rows are read once
        rows = concatenate_datasets([experiment.splits["train"], self.more_rows()]) if more else None
        teacher = None if row == "no KD" else self.teacher
        args = self.arguments(experiment, seed, **settings)
        trainer = experiment.trainer(experiment.student(self.teacher, seed), args, teacher, rows)
        before = time.process_time()
        trainer.train()
        self.keep(key, trainer, time.process_time() - before)

    def keep(self, key, trainer, seconds):
        record = {"key": key}
        trainer.args.train_sampling_strategy = "random"  # else test rows would be in another order
        with plainly(trainer):
            for split, name in (("validation", "tuning"), ("test", "test")):
                shown = trainer.predict(self.usual.splits[split])
                record[name] = self.scoring(split).figures(shown.predictions, shown.label_ids)["f1"]
        record |= {"seconds": round(seconds, 1), "steps": trainer.state.global_step}
        with self.log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        print(record, flush=True)
        self.done[key] = record

    def scoring(self, split):
        if split == "test" or self.name != "question_answering":
            return self.usual.scoring
        recipe, args = self.usual.recipe, self.usual.args
        rows = load_questions(recipe, args.seed)[0][split]
        return AnswerScoring(rows, windows(rows, self.usual.tokenizer, recipe.max_length, recipe.stride)[1])

    def more_rows(self):
        """The sentences that nobody labelled, with the teacher's tags as labels."""
        if self.more is None:
            recipe, known = self.usual.recipe, self.usual.splits["train"]
            asked, recipe.max_train_samples = recipe.max_train_samples, None
            rows = tokenised(load_tagged(recipe, self.usual.args.seed), self.usual.tokenizer, recipe.max_length)[0]
            recipe.max_train_samples = asked
            read = set(map(tuple, known["input_ids"][:]))
            rows = rows["train"].filter(lambda ids: tuple(ids) not in read, input_columns="input_ids")
            rows = rows.select(range(min(len(rows), len(known))))
            judge = self.usual.trainer(self.teacher, self.arguments(self.usual, 42))
            judge.args.train_sampling_strategy = "random"
            with plainly(judge):
                said = judge.predict(rows).predictions.argmax(-1)
            labels = [
                [int(tag) if old >= 0 else -100 for tag, old in zip(tags, row, strict=False)]
                for tags, row in zip(said, rows["labels"][:], strict=True)
            ]
            self.more = rows.remove_columns("labels").add_column("labels", labels).cast(known.features)
        return self.more


def tables(study, rows, starts, rates, seeds, key_of):
    """Each row over the seeds that are there, beside the student alone with the same seeds."""
    teacher = study.done["teacher"]
    print(f"teacher: validation {100 * teacher['tuning']:.2f}, test {100 * teacher['test']:.2f}")
    for start in starts:
        lines = []
        for row in rows:
            for rate in rates:
                pairs = [[study.done.get(key_of(who, start, seed, rate)) for who in ("no KD", row)] for seed in seeds]
                there = [pair for pair in pairs if all(pair)]
                if not there:
                    continue
                cells = [row, f"{rate:g}"]
                for split in ("tuning", "test"):
                    alone, found = ([run[split] for run in side] for side in zip(*there, strict=True))
                    gap = gap_closed(alone, found, [teacher[split]] * len(there))
                    error = f" ± {100 * np.std(found, ddof=1) / len(found) ** 0.5:.2f}" if len(found) > 1 else ""
                    cells.append(f"{100 * np.mean(found):.2f}{error}")
                    known = gap.ratio is not None and row != "no KD"
                    spread = f" ± {100 * gap.ratio_error:.0f}" if known and gap.ratio_error is not None else ""
                    cells.append(f"{100 * gap.ratio:.0f}{spread}" if known else "")
                lines.append([*cells, f"{np.median([pair[1]['seconds'] for pair in there]):.0f}", str(len(there))])
        if lines:
            header = ["objective", "rate", "validation", "gap closed, %", "test", "gap closed, %", "CPU s", "seeds"]
            print(f"\n{start}\n\n{markdown_table(header, lines)}")


class TaughtMore(SST2):
    """A teacher that learned ``rows`` labels, those of the students' rows first."""

    rows = 9000

    def teachers_rows(self):
        more = self.splits["others"].select(range(self.rows - len(self.splits["train"])))
        return concatenate_datasets([self.splits["train"], more]), math.ceil(self.rows / self.batch)


def sst2(asked):
    objectives.ROWS.clear()
    unlabelled = {
        f"{name}, + unlabelled": {"objective": one, "unlabelled": True}
        for name, one in {"KL": KL, "KL + hidden": beside("uniform"), "hidden, then KL": staged()}.items()
    }
    objectives.ROWS.update({"no KD": {"alpha": 0.0}, "KL": {"objective": KL}, **PAIRED, **unlabelled})
    for name, settings in objectives.ROWS.items():  # they see each row once, and all runs together many times
        if asked.device == "cpu" and name != "no KD" and "attention" not in name:
            states = "states" if "hidden" in name else "answers"
            settings["teacher_cache"] = str(Path(asked.output) / states)
    TaughtMore.rows = asked.teacher_rows
    study = TaughtMore(asked.data, asked.output, asked.device)
    rates = asked.rates or (5e-5, 1e-4, 2e-4)
    seeds, times, score = asked.seeds, asked.times, {}
    for rate in rates:  # of layers 0, 2, 4, whatever is kept
        score[rate] = study.run("no KD", FROM_TEACHER, 0, rate, times=times)["tuning"]
    rate = max(score, key=score.get)
    start = FROM_TEACHER if asked.kept == study.layers else f"{FROM_TEACHER} {asked.kept}"
    study.layers = asked.kept
    rows = asked.rows or list(objectives.ROWS)
    for seed in seeds:
        for row in [] if asked.table else rows:
            study.run(row, start, seed, rate, asked.temperature, times)

    def key_of(row, start, seed, rate):
        return objectives.key_of(row, start, seed, rate, asked.temperature, times)

    tables(study, objectives.ROWS, [start], [rate], seeds, key_of)


def of_recipe(asked):
    study = OfRecipe(asked.study, asked.output, asked.flags)
    rates = asked.rates or [study.usual.args.learning_rate]
    for seed in asked.seeds:
        for start in asked.starts:
            for row in [] if asked.table else ["no KD", *(asked.rows or TAUGHT)]:
                if "lineage" in row and "--student_from_teacher" not in STARTS[start]:
                    continue  # its layers began at random
                for rate in rates:
                    study.run(start, row, seed, rate)
    tables(
        study, ["no KD", *TAUGHT], asked.starts, rates, asked.seeds,
        lambda row, start, seed, rate: f"{row}, {start}, lr {rate:g}, seed {seed}",
    )  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=("sst2", "token_tagging", "question_answering"))
    parser.add_argument("--data")
    parser.add_argument("--output", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--rows", nargs="+")
    parser.add_argument("--temperature", type=float, default=2.0, help="of sst2's rows")
    parser.add_argument(
        "--teacher_rows", type=int, default=9000, help="labels that sst2's teacher learned, at most 36000"
    )
    parser.add_argument("--times", type=int, default=1, help="as many times the steps of sst2's students")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="of sst2")
    parser.add_argument("--kept", type=int, nargs="+", default=[0, 2, 4], help="sst2's student, layers from 0")
    parser.add_argument("--starts", nargs="+", default=list(STARTS), choices=STARTS)
    parser.add_argument(
        "--rates", type=float, nargs="+", help="of students; default: sst2's three, or the recipe's own"
    )
    parser.add_argument("--table", action="store_true", help="run nothing, print what is there")
    here = sys.argv[1:].index("--") if "--" in sys.argv else len(sys.argv)
    asked = parser.parse_args(sys.argv[1:][:here])
    asked.flags = sys.argv[1:][here + 1 :]
    torch.set_num_threads(1)
    sst2(asked) if asked.study == "sst2" else of_recipe(asked)


if __name__ == "__main__":
    main()
