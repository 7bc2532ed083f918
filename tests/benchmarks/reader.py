"""Does a student learn more that reads its teacher at first? THUCNews headlines (10 classes), one thread.

    python tests/benchmarks/reader.py --data FOLDER --output FOLDER

FOLDER holds train, validation and test.jsonl.gz (``text``, ``label``). One 2 x 192 teacher learns from all rows; its
log-probabilities of every row are kept in a table. A student of 2 x 64 learns from the first ``--rows`` of them,
alone, by KL (at two temperatures), by KL with a ``reader`` that fades (all rows read at first, none from 60 % of the
steps on), and by KL with one that always reads. Of each the learning rate is chosen on the validation rows with the
first seed, as the student will be used: by itself, and for the last one beside its teacher. All is kept in
``runs.jsonl``: start again to go on. The table shows test accuracies, mean and standard error over seeds, with and
without reading.
"""

import argparse
import json
from pathlib import Path
from time import process_time

import numpy as np
import torch
from datasets import concatenate_datasets, load_dataset
from thucnews import bert
from transformers import DataCollatorWithPadding, set_seed

from hf_distill import DistillationTrainer, DistillationTrainingArguments, FunctionTeacher
from hf_distill.experiments.tokenizers import character_tokenizer
from hf_distill.reports import markdown_table

SPLITS = ("train", "validation", "test")
RATES = (1e-3, 2e-3, 4e-3, 8e-3)
KL = {"alpha": 0.9, "temperature": 1.0}
ARMS = {
    "alone": None,
    "KL": KL,
    "KL, T = 2": {**KL, "temperature": 2.0},
    "KL, reader fades": {**KL, "reader": "logits"},
    "KL, reader always": {**KL, "reader": {"reads": "logits", "keep": 1.0}},
}


def right(shown):
    return {"right": float((shown.predictions.argmax(-1) == shown.label_ids).mean())}


class Study:
    def __init__(self, data, output, rows, epochs):
        self.output, self.epochs = Path(output), epochs
        self.output.mkdir(parents=True, exist_ok=True)
        self.log, self.done = self.output / "runs.jsonl", {}
        if self.log.exists():
            self.done = {r["key"]: r for r in map(json.loads, self.log.read_text(encoding="utf-8").splitlines())}
        splits = load_dataset("json", data_files={name: str(Path(data) / f"{name}.jsonl.gz") for name in SPLITS})
        held_out = {text for name in SPLITS[1:] for text in splits[name]["text"]}
        splits["train"] = splits["train"].filter(lambda row: row["text"] not in held_out).shuffle(seed=0)
        self.tokenizer = character_tokenizer(splits["train"]["text"][:])
        self.all = concatenate_datasets([splits[name] for name in SPLITS]).map(
            lambda some, row: {**self.tokenizer(some["text"], truncation=True, max_length=32), "row": row},
            batched=True, with_indices=True, remove_columns=["text"],
        )  # fmt: skip
        ends = np.cumsum([0, *(len(splits[name]) for name in SPLITS)])
        self.splits = {name: self.all.select(range(ends[i], ends[i + 1])) for i, name in enumerate(SPLITS)}
        self.few, self.table = self.splits["train"].select(range(rows)), self.output / "teacher.npy"

    def run(self, model, rows, seed, epochs, rate, **more):
        teacher, batch = more.pop("teacher", None), 64
        args = DistillationTrainingArguments(
            str(self.output / "_work"), num_train_epochs=epochs, learning_rate=rate, seed=seed, warmup_steps=0.1,
            per_device_train_batch_size=batch, per_device_eval_batch_size=500, use_cpu=True, report_to="none",
            save_strategy="no", logging_steps=500, dataloader_pin_memory=False, disable_tqdm=True, **more,
        )  # fmt: skip
        trainer = DistillationTrainer(
            model, args, data_collator=DataCollatorWithPadding(self.tokenizer), train_dataset=rows,
            processing_class=self.tokenizer, teacher_model=teacher, compute_metrics=right,
        )  # fmt: skip
        before = process_time()
        trainer.train()
        self.took = process_time() - before
        return trainer

    def keep(self, key, trainer):
        found = {name: trainer.evaluate(self.splits[name]) for name in SPLITS[1:]}
        ways = {"alone": "eval_right", "reads": "eval_read_right"}
        record = {f"{n}, {w}": m[key] for n, m in found.items() for w, key in ways.items() if key in m}
        record = {"key": key, **record, "cpu_seconds": round(self.took, 1)}
        with self.log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        print(record, flush=True)
        self.done[key] = record

    def teacher(self):
        if not self.table.exists():
            set_seed(0)
            trainer = self.run(bert(len(self.tokenizer), 2, 192), self.splits["train"], 0, 3, 1e-3)
            self.keep("teacher", trainer)
            before = process_time()
            trainer.predict(self.few)
            print(f"the teacher answers the student's rows once in {process_time() - before:.1f} CPU seconds")
            np.save(self.table, trainer.predict(self.all).predictions)
        answers = torch.from_numpy(np.load(self.table)).float()
        return FunctionTeacher(lambda batch: answers[batch["row"]], columns=["row"])

    def student(self, arm, rate, seed):
        key = f"{arm}, lr {rate:g}, seed {seed}"
        if key not in self.done:
            more = {} if ARMS[arm] is None else {"teacher": self.teacher(), **ARMS[arm]}
            set_seed(seed)
            self.keep(key, self.run(bert(len(self.tokenizer), 2, 64), self.few, seed, self.epochs, rate, **more))
        return self.done[key]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--rows", type=int, default=8000)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--rates", type=float, nargs="+", default=RATES)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS), metavar="NAME")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    study, table = Study(asked.data, asked.output, asked.rows, asked.epochs), []
    study.teacher()
    for arm in asked.arms:
        used = "validation, reads" if arm.endswith("always") else "validation, alone"
        rate = max(asked.rates, key=lambda r, a=arm, u=used: study.student(a, r, asked.seeds[0])[u])
        runs, cells = [study.student(arm, rate, seed) for seed in asked.seeds], []
        for way in ("alone", "reads"):
            scores = 100 * np.array([run[f"test, {way}"] for run in runs if f"test, {way}" in run])
            error = scores.std(ddof=1) / len(scores) ** 0.5 if len(scores) > 1 else 0.0
            cells.append(f"{scores.mean():.2f} ± {error:.2f}" if len(scores) else "-")
        table.append([arm, f"{rate:g}", *cells])
    if "teacher" in study.done:
        table.append(["teacher", "0.001", f"{100 * study.done['teacher']['test, alone']:.2f}", "-"])
    print(markdown_table(["student", "rate", "test by itself", "test, reading"], table))


if __name__ == "__main__":
    main()
