"""Which quarter of a teacher learns most? THUCNews headlines (10 classes), one thread.

    python tests/benchmarks/pruned.py --data FOLDER --output FOLDER

FOLDER holds train, validation and test.jsonl.gz (``text``, ``label``). One 8 x 96 teacher learns from all of
``--teacher_rows``. Its students have at most a quarter of its parameters: by ``fit_budget`` (depth, width and inside
together), by layers alone, by width alone, a fresh one of the first one's sizes, and one that comes to these in three
rounds, with as many steps in all (``--shrink_rounds``; each round warms up anew). Each learns from the first
``--rows`` rows, alone and under its teacher by KL and hidden states (``objective="auto"``), at the rate that is best
for the first seed on 2,000 validation rows. All is kept in ``runs.jsonl``: start again to go on. The table shows test
accuracies, mean and standard error over seeds, and the share of the gap from the fresh student alone to the teacher.
"""

import argparse
import json
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from datasets import load_dataset
from transformers import AutoModelForSequenceClassification, BertConfig, DataCollatorWithPadding, set_seed

from hf_distill import DistillationTrainer, DistillationTrainingArguments, fit_budget, fresh_student
from hf_distill.experiments.tokenizers import character_tokenizer
from hf_distill.reports import markdown_table
from hf_distill.reports.speed import size_of
from hf_distill.students.budget import cut_to, shapes_on_the_way

SPLITS = ("train", "validation", "test")
RATES = (2.5e-4, 5e-4, 1e-3, 2e-3, 4e-3)
DEPTH, WIDTH = 8, 96
SHAPES = {"budget": {}, "layers alone": None, "width alone": {"layers": DEPTH}, "fresh": {}, "budget, 3 rounds": {}}
ROUNDS = {"budget, 3 rounds": 3}
WAYS = {"alone": None, "KL + hidden": {"objective": "auto", "alpha": 0.9, "temperature": 2.0}}


def right(shown):
    return {"right": float((shown.predictions.argmax(-1) == shown.label_ids).mean())}


class Study:
    def __init__(self, asked):
        self.asked, self.output, self.seconds = asked, Path(asked.output), 0.0
        self.output.mkdir(parents=True, exist_ok=True)
        self.log, self.done = self.output / "runs.jsonl", {}
        if self.log.exists():
            self.done = {r["key"]: r for r in map(json.loads, self.log.read_text(encoding="utf-8").splitlines())}
        splits = load_dataset("json", data_files={name: str(Path(asked.data) / f"{name}.jsonl.gz") for name in SPLITS})
        held_out = {text for name in SPLITS[1:] for text in splits[name]["text"]}
        splits["train"] = splits["train"].filter(lambda row: row["text"] not in held_out).shuffle(seed=0)
        self.tokenizer = character_tokenizer(splits["train"]["text"][:], asked.minimum)
        self.splits = splits.map(
            lambda some: self.tokenizer(some["text"], truncation=True, max_length=32), batched=True,
            remove_columns=["text"],
        )  # fmt: skip
        self.splits["validation"] = self.splits["validation"].shuffle(seed=0)
        self.splits["validation"] = self.splits["validation"].select(range(min(2000, len(self.splits["validation"]))))
        self.few = self.splits["train"].select(range(asked.rows))

    def run(self, model, rows, seed, epochs, rate, **more):
        teacher = more.pop("teacher", None)
        args = DistillationTrainingArguments(
            str(self.output / "_work"), num_train_epochs=epochs, learning_rate=rate, seed=seed, warmup_steps=0.1,
            per_device_train_batch_size=64, per_device_eval_batch_size=500, use_cpu=True, report_to="none",
            save_strategy="no", logging_steps=100, dataloader_pin_memory=False, disable_tqdm=True, **more,
        )  # fmt: skip
        trainer = DistillationTrainer(
            model, args, data_collator=DataCollatorWithPadding(self.tokenizer), train_dataset=rows,
            processing_class=self.tokenizer, teacher_model=teacher, compute_metrics=right,
        )  # fmt: skip
        if trainer.teacher is not None:  # its answers stay for the rounds to come
            trainer.teacher.expect(self.asked.epochs)
        trainer.train()
        self.seconds += next(e["train_runtime"] for e in trainer.state.log_history if "train_runtime" in e)
        return trainer

    def in_rounds(self, rounds, seed, rate, teacher=None, **more):
        """As ``hf_distill.experiments.shrinking`` does it."""
        each = math.ceil(len(self.few) / 64)
        ends = [round(each * self.asked.epochs * number / rounds) for number in range(rounds + 1)]
        model, batches = self.teacher(), self.batches()
        way = shapes_on_the_way(model, self.asked.share, rounds)
        for number, (before, end) in enumerate(pairwise(ends), start=1):
            student, steps = cut_to(model, way, number, batches), end - before
            order = {"data_seed": seed + math.ceil(before / each), "max_steps": steps}
            trainer = self.run(student, self.few, seed, 1, rate, teacher=teacher, **order, **more)
            teacher, folder = trainer.teacher, self.output / "_work" / "round"
            trainer.save_model(str(folder), _internal_call=True)
            model = AutoModelForSequenceClassification.from_pretrained(folder)
        return trainer

    def keep(self, key, trainer):
        seconds, self.seconds = self.seconds, 0.0
        record = {"key": key, "seconds": seconds, "parameters": size_of(trainer.model)[0]}
        config = trainer.model.config
        record["shape"] = f"{config.num_hidden_layers} x {config.hidden_size} x {config.intermediate_size}"
        alone = DistillationTrainer(
            trainer.model, trainer.args.__class__(str(self.output / "_work"), per_device_eval_batch_size=500,
            use_cpu=True, report_to="none", disable_tqdm=True, dataloader_pin_memory=False),
            data_collator=DataCollatorWithPadding(self.tokenizer), compute_metrics=right,
        )  # fmt: skip
        record |= {name: alone.evaluate(self.splits[name])["eval_right"] for name in SPLITS[1:]}
        with self.log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        print(record, flush=True)
        self.done[key] = record

    def teacher(self):
        folder = self.output / "teacher"
        if "teacher" not in self.done:
            set_seed(0)
            config = BertConfig(
                vocab_size=len(self.tokenizer), hidden_size=WIDTH, num_hidden_layers=DEPTH, num_attention_heads=6,
                intermediate_size=4 * WIDTH, max_position_embeddings=40, num_labels=10,
                problem_type="single_label_classification",
            )  # fmt: skip
            rows = self.splits["train"].select(range(self.asked.teacher_rows))
            model = AutoModelForSequenceClassification.from_config(config)
            trainer = self.run(model, rows, 0, self.asked.teacher_epochs, 5e-4)
            trainer.model.save_pretrained(folder)
            self.keep("teacher", trainer)
        return AutoModelForSequenceClassification.from_pretrained(folder)

    def batches(self):
        columns, collate = self.few.remove_columns("label"), DataCollatorWithPadding(self.tokenizer)
        rows = list(columns.select(range(min(512, len(columns)))))
        return [dict(collate(rows[at : at + 64])) for at in range(0, len(rows), 64)]

    def student(self, shape, seed):
        set_seed(seed)
        teacher = self.teacher()
        more = {} if SHAPES[shape] is None else {"batches": self.batches(), **SHAPES[shape]}
        student = fit_budget(teacher, parameters=self.asked.share, **more)
        if shape != "fresh":
            return student
        names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
        set_seed(seed)
        return fresh_student(teacher, **{name: getattr(student.config, name) for name in names})

    def one(self, shape, way, rate, seed):
        key = f"{shape}, {way}, lr {rate:g}, seed {seed}"
        if key not in self.done:
            more = {} if WAYS[way] is None else {"teacher": self.teacher(), **WAYS[way]}
            if shape in ROUNDS:
                set_seed(seed)
                self.keep(key, self.in_rounds(ROUNDS[shape], seed, rate, **more))
            else:
                student = self.student(shape, seed)
                self.keep(key, self.run(student, self.few, seed, self.asked.epochs, rate, **more))
        return self.done[key]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--teacher_rows", type=int, default=20000)
    parser.add_argument("--teacher_epochs", type=int, default=3)
    parser.add_argument("--minimum", type=int, default=150)
    parser.add_argument("--share", type=float, default=0.25)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--shapes", nargs="+", default=[*SHAPES], choices=SHAPES, metavar="NAME")
    parser.add_argument("--ways", nargs="+", default=[*WAYS], choices=WAYS, metavar="NAME")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    study, rows, found = Study(asked), [], {}
    study.teacher()
    for way in asked.ways:  # the first seed of all first: a run that is stopped has the most to say
        for shape in asked.shapes:
            found[shape, way] = max(
                RATES, key=lambda r, s=shape, w=way: study.one(s, w, r, asked.seeds[0])["validation"]
            )
    for (shape, way), rate in found.items():
        runs = [study.one(shape, way, rate, seed) for seed in asked.seeds]
        scores = 100 * np.array([run["test"] for run in runs])
        rows.append([shape, way, runs[0]["shape"], f"{runs[0]['parameters'] / 1e6:.3f} M", f"{rate:g}", scores])
    top = 100 * study.done["teacher"]["test"]
    floors = [scores.mean() for shape, way, *_, scores in rows if (shape, way) == ("fresh", "alone")]
    table = [["teacher", "", study.done["teacher"]["shape"], f"{study.done['teacher']['parameters'] / 1e6:.3f} M",
              "0.0005", f"{top:.2f}", ""]]  # fmt: skip
    for *said, scores in rows:
        error = scores.std(ddof=1) / len(scores) ** 0.5 if len(scores) > 1 else 0.0
        gap = [f"{100 * (scores.mean() - floor) / (top - floor):.0f} %" for floor in floors]
        table.append([*said, f"{scores.mean():.2f} ± {error:.2f}", *(gap or ["-"])])
    print(markdown_table(["student", "taught", "shape", "parameters", "rate", "test", "of the gap"], table))


if __name__ == "__main__":
    main()
