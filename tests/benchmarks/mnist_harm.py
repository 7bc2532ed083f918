"""Why predictions of a teacher can harm: a residual network of 2,785 parameters on MNIST, in few steps.

    python tests/benchmarks/mnist_harm.py --data FOLDER                     # train.parquet and test.parquet
    python tests/benchmarks/mnist_harm.py --data FOLDER --epochs 12 --rates 1.2e-2 --rows alone "KL, T = 4"

The student alone and under its teacher, each at several rates, over seeds; one row a setting. "Own statistics" is the
same model with the BatchNorm statistics of the test images in the place of its running ones. The best rate of the
student alone is not always that of the distilled one: look along both columns.
"""

import argparse
import copy
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from datasets import load_dataset
from transformers import ResNetConfig, ResNetForImageClassification, set_seed
from transformers.utils import logging

from hf_distill import DistillationTrainer, DistillationTrainingArguments

ROWS = {  # name -> what the student learns from
    "alone": {"alpha": 0.0},
    "KL, T = 4": {"alpha": 0.9, "temperature": 4.0},
    "KL, T = 1": {"alpha": 0.9, "temperature": 1.0},
    "KL, T = 4, alpha 1": {"alpha": 1.0, "temperature": 4.0},
    "KL, T = 4, alpha 0.5": {"alpha": 0.5, "temperature": 4.0},
}


def network(width, blocks):
    """The recipe's residual network of two stages."""
    widths = [width // 2, width]
    return ResNetForImageClassification(
        ResNetConfig(
            embedding_size=widths[0], hidden_sizes=widths, depths=[blocks] * 2, layer_type="basic", num_labels=10
        )
    )


def read(path):
    """Images [N, 3, 28, 28] from -1 to 1, and labels [N]."""
    rows = load_dataset("parquet", data_files=str(path), split="train")
    pixels = np.stack([np.asarray(image.convert("L"), dtype=np.float32) for image in rows["image"]])
    return torch.tensor(pixels / 127.5 - 1)[:, None].expand(-1, 3, -1, -1).contiguous(), torch.tensor(rows["label"][:])


class Rows(torch.utils.data.Dataset):
    """Tensors, row by row."""

    def __init__(self, pixels, labels):
        self.pixels, self.labels = pixels, labels

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, row):
        return {"pixel_values": self.pixels[row], "labels": self.labels[row]}


def train(model, rows, epochs, rate, seed, teacher=None, **settings):
    """Train a model, and return its CPU seconds."""
    with tempfile.TemporaryDirectory() as folder:
        args = DistillationTrainingArguments(
            folder, num_train_epochs=epochs, learning_rate=rate, seed=seed, per_device_train_batch_size=32,
            warmup_steps=0.1, logging_steps=10**6, disable_tqdm=True, save_strategy="no", use_cpu=True,
            report_to="none", objective="forward_kl", **settings,
        )  # fmt: skip
        trainer = DistillationTrainer(model, args, train_dataset=rows, teacher_model=teacher)
        set_seed(seed)
        began = time.process_time()
        trainer.train()
        return time.process_time() - began


@torch.no_grad()
def right(model, pixels, labels, own=False):
    """The share of right answers; ``own``: with the statistics of these images."""
    model = copy.deepcopy(model).train(own)
    return float((model(pixel_values=pixels).logits.argmax(-1) == labels).float().mean())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with train.parquet and test.parquet")
    parser.add_argument("--rates", type=float, nargs="+", default=[3e-3, 6e-3, 1.2e-2, 2.4e-2])
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--width", type=int, default=10, help="of the student's second stage")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    (pixels, labels), test = read(asked.data / "train.parquet"), read(asked.data / "test.parquet")
    rows = Rows(pixels, labels)
    set_seed(100)
    teacher = network(48, 2)
    train(teacher, rows, 3, 4e-3, 100, alpha=0.0)
    teacher.eval()
    with torch.no_grad():
        logits = teacher(pixel_values=pixels[:2000]).logits
    sure = ", ".join(f"{logits.div(t).softmax(-1).max(-1).values.mean():.3f} at T = {t}" for t in (1, 4))
    print(
        f"teacher {sum(p.numel() for p in teacher.parameters()):,}: {100 * right(teacher, *test):.1f} %, sure: {sure}"
    )
    for name in asked.rows:
        for rate in asked.rates:
            scores, owned, seconds = [], [], []
            for seed in range(asked.seeds):
                set_seed(seed)
                model = network(asked.width, 1)
                settings = ROWS[name]
                seconds.append(
                    train(model, rows, asked.epochs, rate, seed, teacher if settings["alpha"] else None, **settings)
                )
                scores.append(100 * right(model, *test))
                owned.append(100 * right(model, *test, own=True))
            error = np.std(scores, ddof=1) / np.sqrt(len(scores)) if len(scores) > 1 else 0.0
            print(
                f"{name}, {asked.epochs:g} epochs, rate {rate:g}: {np.mean(scores):.1f} ± {error:.1f} "
                f"({', '.join(f'{one:.1f}' for one in scores)}), own statistics {np.mean(owned):.1f}, "
                f"{np.mean(seconds):.0f} CPU s",
                flush=True,
            )


if __name__ == "__main__":
    main()
