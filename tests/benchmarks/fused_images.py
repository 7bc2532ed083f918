"""What does a distilled step of a model that reads images cost in memory, at a vocabulary of 151,936?

    python tests/benchmarks/fused_images.py
    python tests/benchmarks/fused_images.py --rows 8 --tokens 256

A Qwen2-VL teaches another one, both random and small but for their vocabulary (``--width`` wide, two layers of text
and two of the tower), with cross-entropy and a KL, half each. A batch is ``--rows`` rows of ``--images`` images of 64
places each and ``--tokens`` tokens of text, in float32 and one thread. ``--steps`` whole steps of
``DistillationTrainer`` with ``fused_logits=on`` and ``off``, and as many of ``Trainer`` without a teacher, each in a
process of its own.

Memory is the growth of the peak of the resident set over what holds both models, their optimizer's states included.
Time is CPU seconds a step. The last line is a ratio.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from transformers import Qwen2VLForConditionalGeneration, Trainer, TrainingArguments

from hf_distill import DistillationTrainer, DistillationTrainingArguments
from hf_distill.reports import markdown_table

sys.path.insert(0, str(Path(__file__).parents[1]))
import tiny_vision_language as tiny_vl

VARIANTS = ("on", "off", "no teacher")
SIDE, MERGED = 16, 2  # patches a side of an image, and how many of them are one place


def model(asked, seed):
    torch.manual_seed(seed)
    config = tiny_vl.config_of("qwen2_vl")
    config.text_config.vocab_size = asked.vocabulary
    config.text_config.hidden_size = config.vision_config.hidden_size = asked.width
    config.text_config.max_position_embeddings = 4096
    config.text_config.rope_parameters = {
        **config.text_config.rope_parameters,
        "mrope_section": [asked.width // 8, asked.width // 16, asked.width // 16],
    }
    return Qwen2VLForConditionalGeneration(config)


def batch_of(asked):
    numbers = torch.Generator().manual_seed(1)
    places = [tiny_vl.IMAGE] * (SIDE // MERGED) ** 2
    ids = torch.randint(200, asked.vocabulary, (asked.rows, asked.tokens), generator=numbers)
    ids = torch.cat((torch.tensor([*places, 4] * asked.images).expand(asked.rows, -1), ids), dim=1)
    images = asked.rows * asked.images
    numbers_a_patch = 3 * 2 * tiny_vl.PATCH**2
    return {
        "input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids.masked_fill(ids < 200, -100),
        "mm_token_type_ids": (ids == tiny_vl.IMAGE).long(),
        "pixel_values": torch.randn(images * SIDE**2, numbers_a_patch, generator=numbers),
        "image_grid_thw": torch.tensor([[1, SIDE, SIDE]] * images),
    }  # fmt: skip


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(asked):
    torch.set_num_threads(1)
    batch, student = batch_of(asked), model(asked, 0)
    plain = {
        "use_cpu": True, "max_steps": asked.steps, "per_device_train_batch_size": asked.rows, "report_to": "none",
        "remove_unused_columns": False, "save_strategy": "no", "logging_steps": 1, "disable_tqdm": True,
        "learning_rate": 1e-3,
    }  # fmt: skip
    data = {"train_dataset": [{}] * asked.rows * asked.steps, "data_collator": lambda rows: dict(batch)}
    with tempfile.TemporaryDirectory() as folder:
        if asked.variant == "no teacher":
            run = Trainer(student, TrainingArguments(folder, **plain), **data)
        else:
            args = DistillationTrainingArguments(
                folder, alpha=0.5, fused_logits=asked.variant, teacher_cache="off", **plain
            )
            run = DistillationTrainer(student, args, teacher_model=model(asked, 7), **data)
        before, start = peak(), time.process_time()
        run.train()
        seconds = (time.process_time() - start) / asked.steps
    losses = [log["loss"] for log in run.state.log_history if "loss" in log]
    print(json.dumps({"growth": peak() - before, "seconds": seconds, "losses": [float(one) for one in losses]}))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--vocabulary", type=int, default=151_936)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--variant", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.variant:
        measure(asked)
        return
    found, rows = {}, []
    for variant in VARIANTS:
        words = [sys.executable, __file__, *sys.argv[1:], "--variant", variant]
        ran = subprocess.run(words, capture_output=True, text=True, check=False)
        if ran.returncode:
            sys.exit(f"{variant} ended with {ran.returncode}: {ran.stderr.strip().splitlines()[-1:]}")
        found[variant] = one = json.loads(ran.stdout.splitlines()[-1])
        losses = " ".join(f"{loss:.6g}" for loss in one["losses"])
        rows.append([variant, f"{one['growth'] / 2**20:,.0f}", f"{one['seconds']:.3g}", losses])
        print(*rows[-1], flush=True)
    print(markdown_table(["fused_logits", "MiB", "CPU s a step", "losses"], rows))
    for what in ("growth", "seconds"):
        for other in VARIANTS[1:]:
            print(f"{what}: on / {other} = {found['on'][what] / found[other][what]:.2f}")


if __name__ == "__main__":
    main()
