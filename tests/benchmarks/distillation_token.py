"""Does a distillation token help a DeiT student, at equal steps under the same teacher?

    OMP_NUM_THREADS=1 python tests/benchmarks/distillation_token.py              # eight CPU minutes
    OMP_NUM_THREADS=1 python tests/benchmarks/distillation_token.py --labels 100

The handwritten digits of scikit-learn: 1,150 images to train on, 197 to choose a rate by, 450 to test on, enlarged to
32 x 32; each training image is there with several shifts of up to three pixels, the same ones for all. The teacher is
a residual network, as DeiT's was (arXiv:2012.12877, section 5.2); the students are transformers of 16 patches, plain
or with a distillation token (DeiTForImageClassificationWithTeacher, whose answer is the mean of both heads). Soft: KL
at temperature 3. Hard: the cross-entropy with the teacher's first class (top1_cross_entropy), DeiT's own. The labels
have half of the loss, and none in the last two rows; with --labels students are told those of so many images only, the
teacher speaks about all.

Each row has the learning rate with which its first seed does best on the validation images.
"""

import argparse
import os
import tempfile
import time

import numpy as np
import torch
from datasets import disable_progress_bars
from transformers import (
    DeiTConfig,
    DeiTForImageClassification,
    DeiTForImageClassificationWithTeacher,
    ResNetConfig,
    ResNetForImageClassification,
    default_data_collator,
    set_seed,
)

from hf_distill import CachedTeacher, DistillationTrainer, DistillationTrainingArguments, LiveTeacher
from hf_distill.augmentation.views import Random, Shift
from hf_distill.experiments.data.images import digits
from hf_distill.reports.table import markdown_table

SIZE = 32
KL, TOP1 = {"forward_kl": {"temperature": 3.0}}, "top1_cross_entropy"
ROWS = {
    "plain, alone": (DeiTForImageClassification, None, 0.0),
    "plain, soft": (DeiTForImageClassification, KL, 0.5),
    "token, soft": (DeiTForImageClassificationWithTeacher, KL, 0.5),
    "plain, hard": (DeiTForImageClassification, TOP1, 0.5),
    "token, hard": (DeiTForImageClassificationWithTeacher, TOP1, 0.5),
    "plain, soft, no labels": (DeiTForImageClassification, KL, 1.0),
    "token, soft, no labels": (DeiTForImageClassificationWithTeacher, KL, 1.0),
}


def rows_of(split, shifts=0):
    """Pixels and labels; each image as it is, or ``shifts`` times elsewhere."""
    rows, move = [], Shift(3)
    for number, row in enumerate(split):
        whole = row["image"].resize((SIZE, SIZE), 2)
        for turn in range(max(1, shifts)):
            image = move(whole, Random(1000 * number + turn)) if shifts else whole
            pixels = torch.from_numpy(np.asarray(image, dtype=np.float32).copy() / 127.5 - 1)
            rows.append({"pixel_values": pixels[None], "labels": row["label"]})
    return rows


def teacher_model():
    sizes = {"embedding_size": 32, "hidden_sizes": [32, 64], "depths": [2, 2], "layer_type": "basic"}
    return ResNetForImageClassification(ResNetConfig(num_channels=1, num_labels=10, **sizes))


def student_model(kind):
    sizes = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 96}
    quiet = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return kind(DeiTConfig(image_size=SIZE, patch_size=8, num_channels=1, num_labels=10, **sizes, **quiet))


def accuracy(model, rows):
    batch = default_data_collator(rows)
    model.eval()
    with torch.no_grad():
        found = model(pixel_values=batch["pixel_values"]).logits.argmax(-1)
    return 100 * (found == batch["labels"]).double().mean().item()


def train(model, rows, rate, epochs, seed, teacher=None, objective=None, alpha=0.0):
    with tempfile.TemporaryDirectory() as folder:
        args = DistillationTrainingArguments(
            folder, use_cpu=True, report_to="none", disable_tqdm=True, logging_strategy="no", save_strategy="no",
            per_device_train_batch_size=128, per_device_eval_batch_size=512, num_train_epochs=epochs,
            learning_rate=rate, lr_scheduler_type="cosine", warmup_steps=0.1, weight_decay=0.05, seed=seed,
            alpha=alpha if teacher else None, objective=objective,
        )  # fmt: skip
        DistillationTrainer(
            model, args, train_dataset=rows, data_collator=default_data_collator, teacher_model=teacher
        ).train()
    return model


def run(name, rows, rate, epochs, seed, teacher):
    kind, objective, alpha = ROWS[name]
    set_seed(seed)
    taught = {"teacher": teacher, "objective": objective, "alpha": alpha} if objective else {}
    return train(student_model(kind), rows, rate, epochs, seed, **taught)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=float, default=5.0, help="over all shifts of all images")
    parser.add_argument("--shifts", type=int, default=8)
    parser.add_argument("--labels", type=int, default=None, help="tell students so many labels; all others are -100")
    parser.add_argument("--only", default="", help="rows whose name holds this word")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rates", type=float, nargs="+", default=[2e-3, 4e-3, 8e-3])
    asked = parser.parse_args()
    torch.set_num_threads(1)
    disable_progress_bars()
    started, splits = time.process_time(), digits()
    many, validation, test = (
        rows_of(splits["train"], asked.shifts),
        *map(rows_of, (splits["validation"], splits["test"])),
    )
    set_seed(0)
    model = train(teacher_model(), many, 4e-3, 2, 0)
    print(
        f"teacher: {accuracy(model, test):.1f} % of the test images, {time.process_time() - started:.0f} CPU s",
        flush=True,
    )
    teacher = CachedTeacher(LiveTeacher(model))  # asked once for each image, by the first row that has a teacher
    if asked.labels is not None:
        many = [row if at < asked.labels * asked.shifts else {**row, "labels": -100} for at, row in enumerate(many)]
    told = []
    for name in (name for name in ROWS if asked.only in name):
        began, found = time.process_time(), {}
        for rate in asked.rates:
            student = run(name, many, rate, asked.epochs, asked.seeds[0], teacher)
            found[rate] = accuracy(student, validation), accuracy(student, test)
        rate = max(found, key=lambda one: found[one][0])
        others = [run(name, many, rate, asked.epochs, seed, teacher) for seed in asked.seeds[1:]]
        scores = [found[rate][1], *(accuracy(student, test) for student in others)]
        spread = np.std(scores, ddof=1) / len(scores) ** 0.5 if len(scores) > 1 else 0.0
        each = ", ".join(f"{score:.1f}" for score in scores)
        told.append([name, f"{rate:g}", f"{np.mean(scores):.1f} ± {spread:.1f}", each])
        told[-1].append(f"{(time.process_time() - began) / (len(found) + len(others)):.0f}")
        print(" | ".join(told[-1]), {r: round(v, 1) for r, (v, _) in found.items()}, flush=True)
    print(markdown_table(["student", "rate", "accuracy %", "each seed", "CPU s a training"], told))
    print(f"{time.process_time() - started:.0f} CPU s in all")


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main()
