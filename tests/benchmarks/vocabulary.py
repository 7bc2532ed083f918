"""What does a teacher of few ids cost to keep, and what is lost by learning from it, where the vocabulary is large?

    python tests/benchmarks/vocabulary.py --data FOLDER --output FOLDER

FOLDER holds train.jsonl.gz and test.jsonl.gz, Chinese poems with a ``text``. A character language model (Llama, 3 x
192, V about 7,500) is briefly trained on them: the teacher, whose tail is fat and hard.

Bytes: ``sample``'s columns as lists, a sequence a row, in one Parquet file with zstd, ids and gaps in
BYTE_STREAM_SPLIT; the whole file over its tokens. For the poems, and for synthetic tokens of V = 32,768: logits
``-1.1 log(rank + 2.7) + 1.5 N(0, 1)``, noise for each token anew, ids in the order of their rank as in
BPE; and the same with shuffled ids, whose differences are the hardest to compress.

Training: a student (2 x 128) from nothing, alpha 1, 220 steps of 16 x 64 tokens, one pass; judged by its KL to the
whole teacher on test poems. Four teachers: whole logits; 16 highest ids and 16 draws; the 32 highest and one class for
all others; the 32 highest as if there were no others. Every seed has its own student, order and draws.

All is kept in ``runs.jsonl``: start again to go on. One thread, float32.
"""

import argparse
import gzip
import json
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from transformers import LlamaConfig, LlamaForCausalLM, set_seed

from hf_distill import (
    CausalLM,
    DistillationTrainer,
    DistillationTrainingArguments,
    Facts,
    Head,
    LiveTeacher,
    Signals,
    Teacher,
)
from hf_distill.cache.sampled import restore, sample
from hf_distill.objectives import functional
from hf_distill.objectives.logits import ForwardKL
from hf_distill.reports import markdown_table

LENGTH, BATCH, STEPS = 64, 16, 220
SIZES = ((8, 8), (16, 16), (28, 28), (32, 32))
UNKNOWN, END = 0, 1
RATE = 2e-3  # the best of 1e-3, 2e-3 and 3e-3 for whole logits, seed 0


class Renormalised(ForwardKL):
    """The usual cut to the highest ids: their probabilities are made to sum to 1."""

    def divergence_from_few(self, student, teacher):
        log_p = teacher.log_p.log_softmax(-1)
        log_q = student.log_softmax(-1).gather(-1, teacher.ids)
        return (log_p.exp() * (log_p - log_q)).sum(-1)


ARMS = {  # name: head, draws, term
    "whole logits": (None, None, ForwardKL),
    "16 + 16 drawn": (16, 16, ForwardKL),
    "32 + one class": (32, 0, ForwardKL),
    "32 alone": (32, 0, Renormalised),
}


class Stored(Teacher):
    """A teacher that answers from columns, found by the number of the row."""

    columns = frozenset({"row"})

    def __init__(self, kept, classes, temperature=1.0):
        self.kept, self.temperature, self.facts = kept, temperature, Facts("stored", vocab_size=classes)

    def inputs(self, batch):
        return {"row": batch["row"]}

    def __call__(self, batch, needs):
        columns = {name: column[batch["row"]] for name, column in self.kept.items()}
        logits = restore(columns, self.temperature, self.facts.vocab_size)
        return Signals({"logits": Head(logits, CausalLM().rows(batch))})


def llama(vocabulary, layers, width):
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary, hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers,
            num_attention_heads=width // 64, max_position_embeddings=LENGTH, pad_token_id=None,
        )
    )  # fmt: skip


def written(columns, path):
    """The bytes of a Parquet file that holds columns [sequences, tokens, ...], each sequence a list."""
    arrays = {name: pa.array(list(value.flatten(1).numpy())) for name, value in columns.items()}
    # Parquet has no integers below 32 bits: split by bytes, uint8 is a plane that matters and three of zeros.
    split = [f"{name}.list.element" for name in ("ids", "gap", "tail_ids")]
    pq.write_table(
        pa.table(arrays), path, compression="zstd", use_dictionary=False, write_page_checksum=True,
        column_encoding=dict.fromkeys(split, "BYTE_STREAM_SPLIT"),
    )  # fmt: skip
    return path.stat().st_size


def synthetic(sequences, length, shuffled, classes=32_768):
    generator = torch.Generator().manual_seed(0)
    popular = -1.1 * (torch.arange(classes) + 2.7).log()
    popular = popular[torch.randperm(classes, generator=generator)] if shuffled else popular
    for _ in range(sequences):
        yield popular + 1.5 * torch.randn(length, classes, generator=generator)


class Study:
    def __init__(self, data, output):
        self.output = Path(output)
        self.output.mkdir(parents=True, exist_ok=True)
        self.log, self.done = self.output / "runs.jsonl", {}
        if self.log.exists():
            self.done = {r["key"]: r for r in map(json.loads, self.log.read_text(encoding="utf-8").splitlines())}
        texts = {}
        for split in ("train", "test"):
            with gzip.open(Path(data) / f"{split}.jsonl.gz", "rt", encoding="utf-8") as file:
                texts[split] = [json.loads(line)["text"] for line in file]
        random.Random(0).shuffle(texts["train"])
        self.codes = {c: i + 2 for i, c in enumerate(sorted(set("".join(texts["train"]))))}
        self.classes = len(self.codes) + 2
        self.blocks = {split: self.cut(found) for split, found in texts.items()}
        self.blocks["test"] = self.blocks["test"][:200]

    def cut(self, texts):
        tokens = [token for text in texts for token in (*(self.codes.get(c, UNKNOWN) for c in text), END)]
        return torch.tensor(tokens[: len(tokens) // LENGTH * LENGTH]).view(-1, LENGTH)

    def keep(self, key, **record):
        with self.log.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"key": key, **record}) + "\n")
        self.done[key] = {"key": key, **record}
        print(self.done[key], flush=True)

    def trained(self, model, blocks, seed, rate, **more):
        rows = [{"input_ids": block, "row": row} for row, block in enumerate(blocks.tolist())]
        if more.get("teacher_model") is None:
            rows = [{"input_ids": row["input_ids"], "labels": row["input_ids"]} for row in rows]
        alpha = 0.0 if more.get("teacher_model") is None else 1.0
        args = DistillationTrainingArguments(
            str(self.output / "_work"), num_train_epochs=1, learning_rate=rate, seed=seed, warmup_steps=0.1,
            alpha=alpha, temperature=1.0, lr_scheduler_type="cosine", per_device_train_batch_size=BATCH, use_cpu=True,
            logging_steps=55, report_to="none", save_strategy="no", dataloader_pin_memory=False, disable_tqdm=True,
        )  # fmt: skip
        DistillationTrainer(model, args, train_dataset=rows, **more).train()
        return model.eval()

    def teacher(self, steps):
        file = self.output / "teacher.pt"
        set_seed(0)
        model = llama(self.classes, 3, 192)
        if file.exists():
            model.load_state_dict(torch.load(file))
        else:
            self.trained(model, self.blocks["train"][-steps * BATCH :], 0, 2e-3)
            torch.save(model.state_dict(), file)
        return model.eval()

    def logits(self, model, blocks):
        for batch in blocks.split(BATCH):
            with torch.no_grad():  # not around the yield: it would last as long as the caller wants
                logits = model(input_ids=batch).logits
            yield logits

    def kept(self, teacher, head, draws, seed):
        """The columns of the rows that a student learns from, [rows, LENGTH, ...]; made once."""
        file = self.output / f"kept-{head}-{draws}-{seed if draws else 0}.pt"
        if not file.exists():
            each, row = [], 0
            for batch in self.logits(teacher, self.blocks["train"][: STEPS * BATCH]):
                for logits in batch:
                    each.append(sample(logits, 1.0, head, draws, seed=1_000_000 * seed + row))
                    row += 1
            torch.save({name: torch.stack([one[name] for one in each]) for name in each[0]}, file)
        return torch.load(file)

    def bytes(self, name, source, sequences, length):
        """Bytes a token, for each size of head and tail."""
        if all(f"bytes, {name}, {h} + {m}" in self.done for h, m in SIZES):
            return
        each = {size: [] for size in SIZES}
        shape = []
        for row, logits in enumerate(source):
            log_p = logits.log_softmax(-1)
            shape.append(
                [float(-(log_p.exp() * log_p).sum(-1).mean()), float(1 - log_p.exp().topk(28)[0].sum(-1).mean())]
            )
            for size in SIZES:
                each[size].append(sample(logits, 1.0, *size, seed=row))
        entropy, tail = np.mean(shape, axis=0)
        for (h, m), found in each.items():
            columns = {column: torch.stack([one[column] for one in found]) for column in found[0]}
            size = written(columns, self.output / "columns.parquet")
            self.keep(
                f"bytes, {name}, {h} + {m}", bytes=size / sequences / length, entropy=entropy, tail_after_28=tail
            )  # fmt: skip

    def student(self, teacher, arm, seed):
        if (key := f"{arm}, seed {seed}") in self.done:
            return
        head, draws, term = ARMS[arm]
        asked = LiveTeacher(teacher, CausalLM()) if head is None else None
        asked = asked or Stored(self.kept(teacher, head, draws, seed), self.classes)
        set_seed(seed)
        model = llama(self.classes, 2, 128)
        self.trained(
            model, self.blocks["train"][: STEPS * BATCH], seed, RATE, teacher_model=asked, objective=term()
        )  # fmt: skip
        pairs = zip(self.logits(model, self.blocks["test"]), self.logits(teacher, self.blocks["test"]), strict=True)
        kl = torch.cat([functional.forward_kl(*(x[:, :-1].flatten(0, 1) for x in pair)) for pair in pairs])
        self.keep(key, kl=float(kl.mean()))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--teacher_steps", type=int, default=500)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    study = Study(asked.data, asked.output)
    teacher = study.teacher(asked.teacher_steps)
    poems = (logits for batch in study.logits(teacher, study.blocks["test"]) for logits in batch)
    study.bytes("poems", poems, len(study.blocks["test"]), LENGTH)
    study.bytes("ranked", synthetic(64, 128, shuffled=False), 64, 128)
    study.bytes("shuffled", synthetic(64, 128, shuffled=True), 64, 128)
    for seed in asked.seeds:
        for arm in ARMS:
            study.student(teacher, arm, seed)

    names = {"ranked": "Zipf, V=32,768", "shuffled": "the same, ids shuffled", "poems": f"poems, V={study.classes:,}"}
    sizes = [[study.done[f"bytes, {name}, {h} + {m}"]["bytes"] for h, m in SIZES] for name in names]
    rows = [[shown, *(f"{size:.1f}" for size in row)] for shown, row in zip(names.values(), sizes, strict=True)]
    print(markdown_table(["bytes a token", *(f"{h} + {m}" for h, m in SIZES)], rows))
    found = {arm: np.array([study.done[f"{arm}, seed {seed}"]["kl"] for seed in asked.seeds]) for arm in ARMS}
    base = found["whole logits"]
    rows = [
        [arm, f"{kl.mean():.4f} ± {kl.std(ddof=1) / len(kl) ** 0.5:.4f}", " ".join(f"{one:.4f}" for one in kl)]
        for arm, kl in found.items()
    ]
    print(markdown_table(["teacher", "test KL", "by seed"], rows))
    for name in names:
        first = study.done[f"bytes, {name}, 28 + 28"]
        print(f"{name}: entropy {first['entropy']:.2f}, tail after 28 ids {first['tail_after_28']:.2f}")
    for name, row in zip(names.values(), sizes, strict=True):
        print(f"bytes a token, {name}, 28 + 28: {row[SIZES.index((28, 28))]:.1f} (wanted: at most 109)")
    for arm in list(ARMS)[1:]:
        each = found[arm] / base
        ratio = found[arm].mean() / base.mean()
        print(f"{arm}: {ratio:.3f} of the KL with whole logits (by seed {each.min():.3f} to {each.max():.3f})")


if __name__ == "__main__":
    main()
