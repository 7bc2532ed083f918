"""What does distillation cost beside plain fine-tuning, if the teacher is asked once?

    python tests/benchmarks/teacher_cache.py [--epochs 3] [--rows 512] [--pairs 3]
    python tests/benchmarks/teacher_cache.py --kinds plain "kept float32" "folder float32" "asked float32"
    python tests/benchmarks/teacher_cache.py --epochs 1 --kinds plain "asked float32" "together float32"
    python tests/benchmarks/teacher_cache.py --accumulation 8 --epochs 1 --kinds plain "asked float32" "window float32"

The same student, a BERT of 3 x 192, in batches of 32 x 64 tokens, float32, one thread: fine-tuned without a teacher,
and distilled from a BERT of 6 x 384 whose answers are kept (``kept``, the default), were kept in a folder by an
earlier run (``folder``) or are asked for each time (``asked``; ``window``: once for all micro-batches of a step), with
the teacher in float32 or bfloat16. The CPU seconds are those of ``train()``, with everything that the teacher takes.
Each run is a process of its own, and all kinds take turns. Big blocks are not given back to the system, in any of
them: by chance alone that is up to 10 %.

``together`` are two students side by side (``train_together``), who ask for each batch once; the line at the end is of
both, beside two runs of every other kind.

Where a folder is read the run that fills it is timed as well: two students from one folder are that run and another.

The last lines are the median ratios. The goals: kept, bfloat16: 1.25 at three epochs and 1.15 at five, and 2.5 times
faster than asked, float32.
"""

import argparse
import dataclasses
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import overhead

KINDS = (
    "plain", "kept bfloat16", "kept float32", "folder bfloat16", "asked float32", "asked bfloat16", "window float32",
    "window bfloat16", "folder float32", "together float32",
)  # fmt: skip


def run(kind, asked):
    import torch
    from datasets import Dataset
    from transformers import Trainer, TrainingArguments

    from hf_distill import DistillationTrainer, DistillationTrainingArguments, train_together

    overhead.ROWS = asked.rows
    (student, teacher), other = overhead.models(), overhead.models()[0]
    data = Dataset.from_list([{k: torch.as_tensor(v).tolist() for k, v in row.items()} for row in overhead.rows()])
    how, _, dtype = kind.partition(" ")
    with tempfile.TemporaryDirectory() as output:
        common = dict(
            output_dir=output, num_train_epochs=asked.epochs, gradient_accumulation_steps=asked.accumulation,
            per_device_train_batch_size=overhead.BATCH // asked.accumulation, learning_rate=overhead.RATE,
            use_cpu=True, report_to="none", save_strategy="no", logging_steps=50, disable_tqdm=True,
            dataloader_pin_memory=False,
        )  # fmt: skip
        if how == "plain":
            trainer = Trainer(student, TrainingArguments(**common), train_dataset=data)
        else:
            cache = {"kept": "auto", "folder": asked.folder}.get(how, "off")
            args = DistillationTrainingArguments(
                **common, alpha=overhead.ALPHA, temperature=overhead.TEMPERATURE, teacher_cache=cache,
                teacher_dtype=None if dtype == "float32" else dtype, teacher_whole_window=how == "window",
            )  # fmt: skip
            trainer = DistillationTrainer(student, args, train_dataset=data, teacher_model=teacher)
        trainers = [trainer]
        if how == "together":
            args = dataclasses.replace(args, output_dir=f"{output}/other")
            trainers.append(DistillationTrainer(other, args, train_dataset=data, teacher_model=teacher))
        started = time.process_time()
        train_together(trainers) if trainers[1:] else trainer.train()
        return time.process_time() - started


def seconds(kind, asked, folder):
    environment = {**os.environ, **overhead.FIXED, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    words = ["--run", kind, "--folder", folder]
    words += [w for n in ("epochs", "rows", "accumulation") for w in (f"--{n}", str(getattr(asked, n)))]
    found = subprocess.run(
        [sys.executable, __file__, *words], check=True, env=environment, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    return float(found.stdout.split()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--accumulation", type=int, default=1, help="in how many micro-batches a batch is cut")
    parser.add_argument("--kinds", nargs="*", default=KINDS[:6], choices=KINDS)
    parser.add_argument("--folder", help="where the kind 'folder' finds its answers")
    parser.add_argument("--run", choices=KINDS, help="one process of one kind, and no comparison")
    asked = parser.parse_args()
    if asked.run:
        print(run(asked.run, asked))
        return
    took = {kind: [] for kind in asked.kinds}
    with tempfile.TemporaryDirectory() as folder:
        # Each run that fills one is a student's too.
        filling = {kind: seconds(kind, asked, f"{folder}/{kind}") for kind in took if kind.startswith("folder")}
        for pair in range(asked.pairs):
            for kind in asked.kinds if pair % 2 else reversed(asked.kinds):
                took[kind].append(seconds(kind, asked, f"{folder}/{kind}"))
            print(f"round {pair + 1}: " + ", ".join(f"{kind} {took[kind][-1]:.2f} s" for kind in took), flush=True)

    def ratio(one, other):
        return statistics.median(a / b for a, b in zip(took[one], took[other], strict=True))

    for kind in took:
        print(f"{kind:<16} {statistics.median(took[kind]):7.2f} s  {ratio(kind, 'plain'):.2f} x plain")
    for kind, first in filling.items():
        both = {other: 2 * statistics.median(took[other]) for other in took if not other.startswith("folder")}
        told = ", ".join(f"{other} {both[other]:.2f} s" for other in both)
        print(f"two students from one {kind}: {first + statistics.median(took[kind]):.2f} s; two runs: {told}")
    if "together float32" in took:
        both = {other: 2 * statistics.median(took[other]) for other in took if other != "together float32"}
        told = ", ".join(f"{other} {both[other]:.2f} s" for other in both)
        print(f"two students together: {statistics.median(took['together float32']):.2f} s; two runs: {told}")
    for dtype in ("bfloat16", "float32"):
        if {f"kept {dtype}", "asked float32"} <= took.keys():
            print(f"asked float32 / kept {dtype}: {ratio('asked float32', f'kept {dtype}'):.2f}")
        if {f"window {dtype}", f"asked {dtype}"} <= took.keys():
            print(f"asked {dtype} / window {dtype}: {ratio(f'asked {dtype}', f'window {dtype}'):.2f}")
    if "kept bfloat16" in took:
        print(f"{asked.epochs} epochs: kept bfloat16 / plain {ratio('kept bfloat16', 'plain'):.3f}")


if __name__ == "__main__":
    main()
