"""How much faster is `hf-distill cache` than asking the teacher in training order?

    python tests/benchmarks/cache_pass.py --data FOLDER [--rows 8192] [--pairs 3] [--onnx] [--compile]

FOLDER holds ``thucnews_headlines`` (characters) and ``sst2`` (words), each with train.jsonl.gz and a column
``text`` or ``sentence``; only their lengths matter here. The teacher is a BERT of 6 x 384 with random weights, one
thread. Rows per CPU second:

- asked: shuffled batches of 32, padded to the longest, float32, as every trainer does without a cache;
- filled: the rows sorted, 4,096 tokens at a time, hashed, answered and written to a folder; in the given precision.

All kinds take turns in one process; asked are the first 2,048 rows, filled all, as many rows of a length are what the
pass gains by. The last lines are the median ratios; the goals are
3.5 for THUCNews and 8 for SST-2 in bfloat16.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from datasets import load_dataset
from transformers import BertConfig, BertForSequenceClassification, BertTokenizer, DataCollatorWithPadding

from hf_distill import CachedTeacher, LiveTeacher
from hf_distill.cache.identity import header_of, precision_of
from hf_distill.cache.prefill import fill
from hf_distill.tasks import SequenceClassification

SETS = {"thucnews_headlines": "characters", "sst2": "words"}
HEADS, VOCABULARY = frozenset({"heads"}), 8000


def rows_of(data, name, count):
    """Rows of the lengths that the texts have; which token it is changes no time."""
    texts = load_dataset("json", data_files=str(Path(data) / name / "train.jsonl.gz"), split="train")
    generator = torch.Generator().manual_seed(0)
    rows = []
    column = "text" if "text" in texts.column_names else "sentence"
    for text in texts.shuffle(seed=0).select(range(count))[column]:
        length = min(128, 2 + len(text if SETS[name] == "characters" else text.split()))
        ids = torch.randint(5, VOCABULARY, (length,), generator=generator).tolist()
        rows.append({"input_ids": ids, "attention_mask": [1] * length})
    return rows


def teacher(dtype, onnx=False, compiled=False):
    torch.manual_seed(1)
    model = BertForSequenceClassification(
        BertConfig(
            vocab_size=VOCABULARY, hidden_size=384, num_hidden_layers=6, num_attention_heads=12,
            intermediate_size=1536, max_position_embeddings=128, num_labels=10,
        )
    ).eval()  # fmt: skip
    model.to(dtype)
    if compiled:
        model.compile(dynamic=True)
    if onnx:
        from hf_distill.teachers.onnx import OnnxModel

        model = OnnxModel(model)
    return LiveTeacher(model, SequenceClassification(num_labels=10))


def asked(live, rows, collator):
    rows = rows[:2048]
    started = time.process_time()
    with torch.no_grad():
        for start in range(0, len(rows), 32):
            live(collator(rows[start : start + 32]), HEADS)
    return len(rows) / (time.process_time() - started)


def filled(live, rows, collator):
    with tempfile.TemporaryDirectory() as folder:
        cached = CachedTeacher(live, Path(folder) / "answers")
        cached.memory.meet(header_of(live.facts, precision=precision_of(live)), positions=False)
        started = time.process_time()
        assert fill(cached, rows, collator) > 0.9 * len(rows)
        return len(rows) / (time.process_time() - started)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--rows", type=int, default=8192)
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--onnx", action="store_true", help="also with ONNX Runtime")
    parser.add_argument("--compile", action="store_true", help="also with torch.compile")
    args = parser.parse_args()
    torch.set_num_threads(1)
    tokenizer = BertTokenizer(vocab={"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4})
    collator = DataCollatorWithPadding(tokenizer)
    kinds = {
        "asked float32": (asked, teacher(torch.float32)),
        "asked bfloat16": (asked, teacher(torch.bfloat16)),
        "filled float32": (filled, teacher(torch.float32)),
        "filled bfloat16": (filled, teacher(torch.bfloat16)),
    }
    if args.onnx:
        kinds["filled onnx"] = (filled, teacher(torch.float32, onnx=True))
    if args.compile:
        kinds["filled compiled"] = (filled, teacher(torch.bfloat16, compiled=True))
    for name in args.sets:
        rows = rows_of(args.data, name, args.rows)
        for how, live in kinds.values():
            how(live, rows[:256], collator)
        found = {kind: [] for kind in kinds}
        for _ in range(args.pairs):
            for kind, (how, live) in kinds.items():
                found[kind].append(how(live, rows, collator))
        print(f"{name}: {sum(len(r['input_ids']) for r in rows) / len(rows):.0f} tokens a row")
        for kind, speeds in found.items():
            ratio = statistics.median(a / b for a, b in zip(speeds, found["asked float32"], strict=True))
            print(f"  {kind:<16} {statistics.median(speeds):7.0f} rows/s  {ratio:.2f} x asked float32")


if __name__ == "__main__":
    main()
