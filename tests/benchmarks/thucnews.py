"""How much of the gap to its teacher does a small student close on THUCNews headlines (10 classes, 44,872 rows)?

    python tests/benchmarks/thucnews.py --data FOLDER --output FOLDER

FOLDER holds train, validation and test.jsonl.gz (``text``, ``label``). A 4 x 256 teacher (3 epochs) is trained from
nothing for each seed; its answers are kept in a table, so a student of 2 x 128 costs what plain training costs.

On the first seed the learning rate of the student alone is chosen on the validation rows, then, at that rate, the
objective of the distilled one: among all for the first number of epochs, among the best three for the next. Both are
run with every seed and judged on the test rows. All is kept in ``runs.jsonl``: start again to go on. One thread,
bfloat16 where the CPU has units for it. The last lines are the gaps closed.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from datasets import load_dataset
from transformers import BertConfig, BertForSequenceClassification, DataCollatorWithPadding, set_seed

from hf_distill import DistillationTrainer, DistillationTrainingArguments, FunctionTeacher
from hf_distill.experiments.tokenizers import character_tokenizer
from hf_distill.reports import gap_closed, markdown_table

RATES = (5e-4, 1e-3, 2e-3, 4e-3)
OBJECTIVES = {
    "KL, T=2": dict(alpha=0.9, temperature=2.0),
    "KL, T=4": dict(alpha=0.9, temperature=4.0),
    "KL, T=8": dict(alpha=0.9, temperature=8.0),
    "KL, T=4, alpha 0.5": dict(alpha=0.5, temperature=4.0),
    "KL, T=4, no labels": dict(alpha=1.0, temperature=4.0),
    "logit MSE": dict(alpha=0.9, objective="logit_mse"),
    "logit MSE, alpha 0.5": dict(alpha=0.5, objective="logit_mse"),
}


def bert(vocabulary, layers, width):
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=vocabulary, hidden_size=width, num_hidden_layers=layers, num_attention_heads=width // 64,
            intermediate_size=4 * width, max_position_embeddings=40, num_labels=10,
            problem_type="single_label_classification",
        )
    )  # fmt: skip


class Study:
    def __init__(self, data, output):
        self.output = Path(output)
        self.output.mkdir(parents=True, exist_ok=True)
        self.log = self.output / "runs.jsonl"
        self.done = {}
        if self.log.exists():
            self.done = {r["key"]: r for r in map(json.loads, self.log.read_text(encoding="utf-8").splitlines())}
        files = {name: str(Path(data) / f"{name}.jsonl.gz") for name in ("train", "validation", "test")}
        splits = load_dataset("json", data_files=files)
        held_out = {text for name in ("validation", "test") for text in splits[name]["text"]}
        splits["train"] = splits["train"].filter(lambda row: row["text"] not in held_out)
        self.tokenizer = character_tokenizer(splits["train"]["text"][:])
        self.splits = splits.map(
            lambda rows, row: {**self.tokenizer(rows["text"], truncation=True, max_length=32), "row": row},
            batched=True, with_indices=True, remove_columns=["text"],
        )  # fmt: skip

    def trainer(self, model, seed, epochs, rate, **more):
        teacher = more.pop("teacher", None)
        args = DistillationTrainingArguments(
            str(self.output / "_work"), num_train_epochs=epochs, learning_rate=rate, seed=seed, warmup_steps=0.1,
            per_device_train_batch_size=64, per_device_eval_batch_size=500, bf16=BF16, use_cpu=True, report_to="none",
            save_strategy="no", logging_steps=200, dataloader_pin_memory=False, disable_tqdm=True, **more,
        )  # fmt: skip
        return DistillationTrainer(
            model, args, data_collator=DataCollatorWithPadding(self.tokenizer), train_dataset=self.splits["train"],
            processing_class=self.tokenizer, teacher_model=teacher,
        )  # fmt: skip

    def right(self, trainer, split):
        shown = trainer.predict(self.splits[split])
        return shown.predictions.argmax(-1) == shown.label_ids

    def keep(self, key, trainer):
        record = {"key": key, **{split: float(self.right(trainer, split).mean()) for split in ("validation", "test")}}
        with self.log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        print(record, flush=True)
        self.done[key] = record
        return record

    def teacher(self, seed):
        """The teacher's answers to the training rows, [N, 10], and its scores."""
        key, table = f"teacher, seed {seed}", self.output / f"teacher-{seed}.npy"
        if key not in self.done:
            set_seed(seed)
            trainer = self.trainer(bert(len(self.tokenizer), 4, 256), seed, 3, 5e-4)
            trainer.train()
            np.save(table, trainer.predict(self.splits["train"]).predictions)
            self.keep(key, trainer)
        return np.load(table), self.done[key]

    def student(self, seed, epochs, rate, name=None):
        key = f"{name or 'alone'}, {epochs} epochs, lr {rate:g}, seed {seed}"
        if key not in self.done:
            more = {}
            if name:
                answers = torch.from_numpy(self.teacher(seed)[0])
                teacher = FunctionTeacher(lambda batch: answers[batch["row"]], columns=["row"])
                more = {"teacher": teacher, **OBJECTIVES[name]}
            set_seed(seed)
            trainer = self.trainer(bert(len(self.tokenizer), 2, 128), seed, epochs, rate, **more)
            trainer.train()
            self.keep(key, trainer)
        return self.done[key]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, nargs="+", default=[2, 4])
    asked = parser.parse_args()
    torch.set_num_threads(1)
    study, first, plans, candidates = Study(asked.data, asked.output), asked.seeds[0], [], list(OBJECTIVES)

    def ranked(choices, run):
        return sorted(choices, key=lambda choice: -run(choice)["validation"])

    study.teacher(first)
    for epochs in asked.epochs:
        rate = ranked(RATES, lambda r, e=epochs: study.student(first, e, r))[0]
        candidates = ranked(candidates, lambda name, e=epochs, r=rate: study.student(first, e, r, name))[:3]
        plans.append((epochs, rate, candidates[0]))
    rows, sentences = [], []
    for epochs, rate, name in plans:
        runs = {
            "teacher": [study.teacher(seed)[1] for seed in asked.seeds],
            "alone": [study.student(seed, epochs, rate) for seed in asked.seeds],
            "distilled": [study.student(seed, epochs, rate, name) for seed in asked.seeds],
        }
        scores = {who: np.array([run["test"] for run in found]) for who, found in runs.items()}
        error = {who: s.std(ddof=1) / len(s) ** 0.5 for who, s in scores.items()}
        cells = [f"{100 * s.mean():.2f} ± {100 * error[who]:.2f}" for who, s in scores.items()]
        rows.append([f"{epochs} epochs, lr {rate:g}, {name}", *cells])
        sentences.append(f"{epochs} epochs: {gap_closed(scores['alone'], scores['distilled'], scores['teacher'])}")
    print(markdown_table(["student", "teacher", "alone", "distilled"], rows))
    print("\n".join(sentences))


BITS = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
BF16 = bool(BITS.get("avx512_bf16") or BITS.get("amx_bf16"))

if __name__ == "__main__":
    main()
