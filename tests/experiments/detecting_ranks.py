"""Run by test_detection.py on each of two ranks, and by itself in one process: what two detectors find, to a file."""

import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch
from transformers import AutoModelForObjectDetection

from hf_distill import BoxCollator, DistillationTrainer, DistillationTrainingArguments
from hf_distill.experiments.data.canvases import canvases
from hf_distill.experiments.detection import DetectionScoring
from hf_distill.experiments.detectors import DetectorArguments, blank_detector, made_processor, small_detector

NAMES = [str(number) for number in range(10)]


class Found(DetectionScoring):
    """Keeps the boxes in the place of their measures."""

    def measurement(self, found, truths):
        return found, truths


def made(folder):
    """A student's trainer with its teacher, what keeps their boxes, and five images, read two at a time."""
    rows = canvases(0, {"train": 4, "validation": 1, "test": 5})
    asked = DetectorArguments(teacher_hidden_size=16, student_hidden_size=8, queries=5)
    torch.manual_seed(0)
    teacher = AutoModelForObjectDetection.from_config(_named(blank_detector(asked, None)))
    student = AutoModelForObjectDetection.from_config(_named(small_detector(asked, teacher)))
    collate = BoxCollator(made_processor(32), made_processor(64))
    args = DistillationTrainingArguments(
        str(folder), per_device_eval_batch_size=2, report_to=[], use_cpu=True, eval_do_concat_batches=False
    )
    trainer = DistillationTrainer(
        student, args, data_collator=collate, train_dataset=rows["train"], teacher_model=teacher
    )
    return trainer, Found(collate, NAMES), rows["test"]


def found_by(folder):
    """What teacher and student find: name -> (found, truths)."""
    trainer, scoring, rows = made(folder)
    return trainer, scoring.evaluate({"distilled": trainer}, rows, trainer)


def _named(config):
    config.id2label = dict(enumerate(NAMES))
    config.label2id = {name: number for number, name in config.id2label.items()}
    return config


def arrays(measured):
    """All of it as arrays by name."""
    return {
        f"{name} {which} {number} {part}": np.asarray(getattr(one, part))
        for name, both in measured.items()
        for which, images in zip(("found", "truths"), both, strict=True)
        for number, one in enumerate(images)
        for part in ("corners", "labels", *(["scores"] if which == "found" else []))
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    trainer, measured = found_by(Path(sys.argv[1]))
    kept = {"world_size": np.array(trainer.args.world_size), **arrays(measured)}
    np.savez(Path(sys.argv[1]) / f"{trainer.args.process_index}.npz", **kept)
