"""What does a student keep that is quantised, and is it better to have learned it? THUCNews headlines, one thread.

    python tests/benchmarks/quantization.py --data FOLDER --output FOLDER
    python tests/benchmarks/quantization.py --data SST2 --student FOLDER --text_column sentence --max_length 64 \\
        --schemes "int2, rows" --rates 5e-5 2e-4 --steps 60 --output FOLDER

The data hold train, validation and test.jsonl.gz (``text``, ``label``; 10 classes). A float BERT of 2 x 128 learns
from all rows, once, or ``--student`` is a finished one with its tokenizer. Of each way to quantise it (``--schemes``)
these are compared:

- rounded: the float student, quantised as it is (post-training quantisation), in all ways;
- rounded, more steps: the same after ``--steps`` more steps in float, for each seed;
- QAT: as many steps of ``student_quantization`` from labels alone (alpha 0);
- QAD: as many from the float student, with labels (alpha 0.9) and without (alpha 1).

What is trained starts at the float student, at the best of ``--rates`` on the validation rows with the first
seed. Test accuracy and the share of test rows with the float student's class are those of the quantised model that is
loaded from its folder; its megabytes are those of its files, and what they would be if no bit were idle (torchao keeps
a weight of 2 to 8 bits in a byte on a CPU); milliseconds are the processor's for one headline, the median of 100
turns. All is kept in ``runs.jsonl``: start again to go on.
"""

import argparse
import json
import shutil
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from datasets import load_dataset
from thucnews import bert
from transformers import AutoModelForSequenceClassification, AutoTokenizer, DataCollatorWithPadding, set_seed

from hf_distill import DistillationTrainer, DistillationTrainingArguments, StudentQuantization
from hf_distill.experiments.tokenizers import character_tokenizer
from hf_distill.reports import markdown_table
from hf_distill.students.prepared_layers import linear_layers

SPLITS = ("train", "validation", "test")
SCHEMES = {
    "int8": "int8",
    "int8-int4": "int8-int4",
    "int4": "int4",
    "int3": {"weights": "int3"},
    "int2": {"weights": "int2"},
    "int2, rows": {"weights": "int2", "group_size": None},
    "int2, rows, head too": {"weights": "int2", "group_size": None, "skip": []},
}
TRAINED = ["int8-int4", "int2, rows, head too"]
VALIDATION = 4000
WAYS = {
    "QAT": {"alpha": 0.0},
    "QAD": {"alpha": 0.9, "temperature": 2.0},
    "QAD, no labels": {"alpha": 1.0, "temperature": 2.0},
}


class Study:
    def __init__(self, asked):
        self.output, self.steps, self.epochs, self.schemes = (
            Path(asked.output),
            asked.steps,
            asked.epochs,
            asked.schemes,
        )
        self.given, data, column = asked.student, asked.data, asked.text_column
        self.output.mkdir(parents=True, exist_ok=True)
        self.log, self.done = self.output / "runs.jsonl", {}
        if self.log.exists():
            self.done = {r["key"]: r for r in map(json.loads, self.log.read_text(encoding="utf-8").splitlines())}
        splits = load_dataset("json", data_files={name: str(Path(data) / f"{name}.jsonl.gz") for name in SPLITS})
        held_out = {text for name in SPLITS[1:] for text in splits[name][column]}
        splits["train"] = splits["train"].filter(lambda row: row[column] not in held_out)
        named = AutoTokenizer.from_pretrained if self.given else character_tokenizer
        self.tokenizer = named(self.given or splits["train"][column][:])
        self.splits = splits.map(
            lambda rows: self.tokenizer(rows[column], truncation=True, max_length=asked.max_length), batched=True,
            remove_columns=[column],
        )  # fmt: skip
        self.float = Path(self.given or self.output / "float")
        lengths = {name: np.array([len(ids) for ids in self.splits[name]["input_ids"][:]]) for name in SPLITS[1:]}
        self.judged = {
            name: self.splits[name].select(np.argsort(found[:VALIDATION] if name == "validation" else found))
            for name, found in lengths.items()
        }

    # ---- Training ----

    def trainer(self, model, **changes):
        args = DistillationTrainingArguments(
            str(self.output / "_work"), warmup_steps=0.1, per_device_train_batch_size=64, use_cpu=True,
            per_device_eval_batch_size=500, report_to="none", save_strategy="no", logging_steps=500,
            dataloader_pin_memory=False, disable_tqdm=True, **changes,
        )  # fmt: skip
        return DistillationTrainer(
            model, args, data_collator=DataCollatorWithPadding(self.tokenizer), train_dataset=self.splits["train"],
            processing_class=self.tokenizer,
        )  # fmt: skip

    def begin(self):
        """The float student."""
        if not (self.float / "model.safetensors").is_file():
            set_seed(0)
            run = self.trainer(
                bert(len(self.tokenizer), 2, 128), alpha=0.0, num_train_epochs=self.epochs, learning_rate=1e-3, seed=0
            )
            run.train()
            run.save_model(str(self.float))

    def trained(self, scheme, way, rate, seed):
        """One more training; without a scheme the student stays float."""
        key = f"{scheme or 'float'}, {way or 'more steps'}, lr {rate:g}, seed {seed}"
        missing = set(self.schemes) - set(
            self.done.get(key, {}).get("rounded", ()) if scheme is None else self.schemes
        )
        if key not in self.done or missing:
            set_seed(seed)
            asked = {} if scheme is None else {"student_quantization": SCHEMES[scheme]}
            student = AutoModelForSequenceClassification.from_pretrained(self.float)
            how = WAYS.get(way, {"alpha": 0.0})
            run = self.trainer(student, max_steps=self.steps, learning_rate=rate, seed=seed, **how, **asked)
            started = time.process_time()
            run.train()
            seconds, folder = time.process_time() - started, self.output / "_student"
            shutil.rmtree(folder, ignore_errors=True)
            run.save_model(str(folder))
            kept = {"seconds": seconds}
            if scheme is None:  # and what is left of it, quantised afterwards
                kept["rounded"] = {name: self.scores(self.rounded(folder, name)) for name in self.schemes}
                kept |= self.scores(AutoModelForSequenceClassification.from_pretrained(folder))
            else:
                kept |= self.scores(AutoModelForSequenceClassification.from_pretrained(folder / "quantized"))
            self.keep(key, **kept)
        return self.done[key]

    def once(self):
        """What there is without any more step: the float student, and each way to round it."""
        if "float" not in self.done:
            model = AutoModelForSequenceClassification.from_pretrained(self.float)
            self.keep("float", **self.scores(model), **self.costs(model, self.float))
        for scheme in SCHEMES:
            if (key := f"{scheme}, rounded") not in self.done:
                self.keep(
                    key, **self.scores(model := self.rounded(self.float, scheme)), **self.costs(model, self.into)
                )

    def rounded(self, folder, scheme):
        """The float student of a folder, quantised afterwards, and loaded from where it was written."""
        shutil.rmtree(self.into, ignore_errors=True)
        asked, float_copy = StudentQuantization.of(SCHEMES[scheme]), self.output / "_float"
        shutil.rmtree(float_copy, ignore_errors=True)
        shutil.copytree(folder, float_copy)
        asked.save(AutoModelForSequenceClassification.from_pretrained(float_copy), float_copy)
        return AutoModelForSequenceClassification.from_pretrained(self.into)

    @property
    def said(self):
        return self.output / "said.pt"  # of the float student, which is judged first

    @property
    def into(self):
        return self.output / "_float" / "quantized"

    # ---- Measuring ----

    @torch.no_grad()
    def scores(self, model):
        collate, found = DataCollatorWithPadding(self.tokenizer), {}
        for name, rows in self.judged.items():
            batches = (collate(rows[i : i + 250]) for i in range(0, len(rows), 250))
            said = torch.cat([model.eval()(**batch).logits.argmax(-1) for batch in batches])
            found[name] = (said == torch.tensor(rows["label"][:])).double().mean().item()
        if not self.said.is_file():
            torch.save(said, self.said)
        return {**found, "as float": (said == torch.load(self.said)).double().mean().item()}

    @torch.no_grad()
    def costs(self, model, folder):
        row = DataCollatorWithPadding(self.tokenizer)(self.splits["test"].select([0]).to_list())
        took = []
        for _ in range(110):
            started = time.process_time()
            model.eval()(**row)
            took.append(1e3 * (time.process_time() - started))
        files = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
        idle = 0.0
        for layer in linear_layers(model).values():
            if (kind := getattr(layer.weight, "target_dtype", None)) is not None:  # torchao's own of 2 to 8 bits
                bits = int(str(kind).rpartition("int")[2])
                idle += layer.weight.numel() * (1 - bits / 8) + layer.weight.zero_point.numel()
        return {"ms": statistics.median(took[10:]), "MB": files / 1e6, "MB packed": (files - idle) / 1e6}

    def keep(self, key, **found):
        self.done[key] = {"key": key, **found}
        with self.log.open("a", encoding="utf-8") as log:
            log.write(json.dumps(self.done[key]) + "\n")
        print(json.dumps({k: v for k, v in self.done[key].items() if k != "rounded"}), flush=True)


def cell(scores):
    scores = 100 * np.array(scores)
    return f"{scores.mean():.2f}" + (f" ± {scores.std(ddof=1) / len(scores) ** 0.5:.2f}" if len(scores) > 1 else "")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--student", help="a folder with a finished float student and its tokenizer")
    parser.add_argument("--text_column", default="text")
    parser.add_argument("--max_length", type=int, default=32)
    parser.add_argument("--epochs", type=float, default=2, help="of the float student")
    parser.add_argument("--rates", type=float, nargs="+", default=[5e-5, 2e-4, 8e-4])
    parser.add_argument("--steps", type=int, default=150, help="of all that is trained from it")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--schemes", nargs="+", choices=SCHEMES, default=["int8-int4", "int2, rows, head too"], metavar="NAME"
    )
    asked = parser.parse_args()
    torch.set_num_threads(1)
    study = Study(asked)
    study.begin()
    study.once()

    def best(scheme, way, score=lambda run: run["validation"]):
        rate = max(asked.rates, key=lambda rate: score(study.trained(scheme, way, rate, asked.seeds[0])))
        return rate, [study.trained(scheme, way, rate, seed) for seed in asked.seeds]

    def line(scheme, way, rate, runs, costs):
        shown = [cell([run[name] for run in runs]) for name in ("test", "as float")]
        size = [f"{costs[name]:.2f}" for name in ("MB", "MB packed", "ms")]
        table.append([scheme, way, "-" if rate is None else f"{rate:g}", *shown, *size])

    table, done, (rate, longer) = [], study.done, best(None, None)
    line("float", "-", None, [done["float"]], done["float"])
    line("float", "more steps", rate, longer, done["float"])
    for scheme in SCHEMES:
        one = done[f"{scheme}, rounded"]
        line(scheme, "rounded", None, [one], one)
        if scheme in asked.schemes:
            rate, runs = best(None, None, lambda run, name=scheme: run["rounded"][name]["validation"])
            line(scheme, "rounded, more steps", rate, [run["rounded"][scheme] for run in runs], one)
            for way in WAYS:
                line(scheme, way, *best(scheme, way), one)
    heads = ["weights", "how", "rate", "test accuracy, %", "as float, %", "MB", "MB packed", "ms"]
    print(markdown_table(heads, table))


if __name__ == "__main__":
    main()
