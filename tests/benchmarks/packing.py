"""What do kept answers give, where texts are packed into one row? CPU seconds and losses against asking each time.

    python tests/benchmarks/packing.py poems.jsonl.gz [--epochs 3] [--rows 512] [--rounds 3]

A Llama of 2 x 192 learns from one of 6 x 384 (random weights; a forward costs the same) to continue real texts (the
column ``text`` of a JSON Lines file), character by character, 16 texts a step, in another order each epoch, float32,
one thread. The texts stand in padded rows or are packed into one row (``DataCollatorWithFlattening``), and the teacher
is asked each time (``asked``), its answers are kept (``kept``, the default) or were kept in a folder by a run over
padded rows (``folder``). Each run is a process of its own, and all kinds take turns. The CPU seconds are those of
``train()``, with everything that the teacher takes; the losses are compared with those of ``padded asked``.
"""

import argparse
import collections
import gzip
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import overhead

KINDS = ("padded asked", "padded kept", "packed asked", "packed kept", "packed folder")
LONGEST, VOCABULARY, SPECIAL, BATCH = 96, 2500, 4, 16


def texts(asked):
    """Ids of characters, of the first so many texts, between a first and a last token."""
    with gzip.open(asked.file, "rt", encoding="utf-8") as file:
        read = [json.loads(line)["text"] for line, _ in zip(file, range(asked.rows), strict=False)]
    common = collections.Counter(character for text in read for character in text).most_common(VOCABULARY - SPECIAL)
    ids = {character: SPECIAL + number for number, (character, _) in enumerate(common)}
    rows = [[1, *(ids.get(character, 3) for character in text[: LONGEST - 2]), 2] for text in read]
    return [{"input_ids": row, "labels": row} for row in rows]


def llama(layers, width, seed):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    sizes = {"hidden_size": width, "intermediate_size": 4 * width, "num_attention_heads": width // 32}
    config = LlamaConfig(
        vocab_size=VOCABULARY, num_hidden_layers=layers, num_key_value_heads=width // 32, bos_token_id=1,
        eos_token_id=2, pad_token_id=0, max_position_embeddings=LONGEST, **sizes,
    )  # fmt: skip
    return LlamaForCausalLM(config)


class Padding:
    """Texts padded on the right to the longest."""

    def __call__(self, rows):
        import torch

        longest = max(len(row["input_ids"]) for row in rows)
        behind = [longest - len(row["input_ids"]) for row in rows]
        return {
            "input_ids": torch.tensor([[*row["input_ids"], *[0] * n] for row, n in zip(rows, behind, strict=True)]),
            "attention_mask": torch.tensor([[*[1] * (longest - n), *[0] * n] for n in behind]),
            "labels": torch.tensor([[*row["labels"], *[-100] * n] for row, n in zip(rows, behind, strict=True)]),
        }


def run(kind, asked):
    from datasets import Dataset
    from transformers import DataCollatorWithFlattening

    from hf_distill import DistillationTrainer, DistillationTrainingArguments

    form, how = kind.split()
    with tempfile.TemporaryDirectory() as output:
        args = DistillationTrainingArguments(
            output, num_train_epochs=asked.epochs, per_device_train_batch_size=BATCH, learning_rate=1e-3, use_cpu=True,
            report_to="none", save_strategy="no", logging_steps=1, disable_tqdm=True, dataloader_pin_memory=False,
            teacher_cache={"asked": "off", "kept": "auto", "folder": asked.folder}[how],
        )  # fmt: skip
        trainer = DistillationTrainer(
            llama(2, 192, 0), args, train_dataset=Dataset.from_list(texts(asked)), teacher_model=llama(6, 384, 1),
            data_collator=Padding() if form == "padded" else DataCollatorWithFlattening(),
        )  # fmt: skip
        started = time.process_time()
        trainer.train()
        took, log = time.process_time() - started, [one for one in trainer.state.log_history if "loss" in one]
    steps = len(log) // int(asked.epochs)
    hits = [one.get("teacher_cache_hits", 0.0) for one in log]
    each = [round(statistics.mean(hits[start : start + steps]), 4) for start in range(0, len(hits), steps)]
    return {"seconds": took, "losses": [one["loss"] for one in log], "hits": each}


def result(kind, asked, folder):
    environment = {**os.environ, **overhead.FIXED, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    words = [asked.file, "--run", kind, "--folder", folder, "--epochs", str(asked.epochs), "--rows", str(asked.rows)]
    found = subprocess.run(
        [sys.executable, __file__, *words], check=True, env=environment, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    return json.loads(found.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", help="real texts, gzipped JSON Lines")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", help="where the kind 'folder' finds its answers")
    parser.add_argument("--run", choices=(*KINDS, "padded folder"), help="one process of one kind, and no comparison")
    asked = parser.parse_args()
    if asked.run:
        print(json.dumps(run(asked.run, asked)))
        return
    found = {kind: [] for kind in KINDS}
    with tempfile.TemporaryDirectory() as folder:
        result("padded folder", asked, folder)  # fills it
        for number in range(asked.rounds):
            for kind in KINDS if number % 2 else reversed(KINDS):
                found[kind].append(result(kind, asked, folder))
            taken = ", ".join(f"{kind} {some[-1]['seconds']:.1f} s" for kind, some in found.items())
            print(f"round {number + 1}: {taken}", flush=True)
    for kind, some in found.items():
        ratios = [a["seconds"] / b["seconds"] for a, b in zip(some, found["packed asked"], strict=True)]
        pairs = zip(some[0]["losses"], found["padded asked"][0]["losses"], strict=True)
        far, hits = max(abs(a / b - 1) for a, b in pairs), " ".join(f"{100 * share:.1f}" for share in some[0]["hits"])
        took = statistics.median(one["seconds"] for one in some)
        print(
            f"{kind:<14} {took:7.1f} s  {statistics.median(ratios):.2f} x packed asked  loss within {far:.1e}, last "
            f"{some[0]['losses'][-1]:.4f}  hits by epoch % {hits}"
        )


if __name__ == "__main__":
    main()
