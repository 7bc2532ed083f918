"""Run by test_exact.py on each of two ranks: one step, its logged parts and its gradients to files."""

import json
import os
import sys
from functools import partial
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.insert(0, str(Path(__file__).parents[1]))

import tiny
import tiny_detectors
import tiny_images
import tiny_reads
import tiny_segmenters
import tiny_tasks
import torch
from safetensors.torch import save_file
from transformers import default_data_collator

READS = "reads"


def images(seed=1):
    """Each kind of task on images: student, teacher, rows, how they become a batch."""
    detector = partial(tiny_detectors.detr, auxiliary_loss=True, layers=2)
    return {
        "images": (tiny_images.vit(), tiny_images.vit(width=24, layers=3, seed=7), tiny_images.images(8, seed)),
        "maps": (
            tiny_segmenters.segformer(), tiny_segmenters.segformer((12, 20), seed=7), tiny_segmenters.maps(8, seed),
        ),
        # Of these two losses one is divided by the boxes of a rank, the other by a mean over ranks.
        "rtdetr": (
            tiny_detectors.still(tiny_detectors.rtdetr()), tiny_detectors.rtdetr(7, 32, queries=9),
            tiny_detectors.boxes(8, seed), tiny_detectors.collate,
        ),
        "detr": (
            tiny_detectors.still(detector()), detector(7, width=32, queries=4), tiny_detectors.boxes(8, seed),
            tiny_detectors.collate,
        ),
    }  # fmt: skip


IMAGES = tuple(images())


def parts_of(problem):
    """The student, the data and the other parts of a trainer, for a problem type or another task."""
    if problem in IMAGES:
        student, teacher, data, *collate = images()[problem]
        both = {"eval_dataset": images(9)[problem][2], "teacher_model": teacher}
        return student, data, {**both, "data_collator": collate[0] if collate else default_data_collator}
    if problem == READS:
        both = {"eval_dataset": tiny.rows(8, seed=9), "teacher_model": tiny.teacher()}
        return tiny_reads.Reader(24), tiny.rows(8), {**both, "task": tiny_reads.Reading("hidden")}
    if (case := tiny_tasks.CASES.get(problem)) is None:
        both = {"eval_dataset": tiny.rows(8, problem, seed=9), "teacher_model": tiny.teacher(problem)}
        return tiny.bert(problem=problem), tiny.rows(8, problem), both
    both = {"eval_dataset": case.rows(8, 9), "teacher_model": case.teacher(), "data_collator": case.collate()}
    return case.model(), case.rows(), both


def record(folder, problem):
    for batch, accumulation in ((4, 1), (2, 2)) if problem in tiny.PROBLEMS else ((2, 2),):
        seen = tiny.Gradients()
        student, data, both = parts_of(problem)
        run = tiny.trainer(
            folder,
            student,
            data,
            callbacks=[seen],
            **both,
            args=dict(
                per_device_train_batch_size=batch,
                gradient_accumulation_steps=accumulation,
                max_steps=1,
                per_device_eval_batch_size=4,
                objective="auto" if problem in IMAGES else None,
            ),
        )
        run.train()
        evaluated = {name: value for name, value in run.evaluate().items() if "loss" in name}
        rank = run.args.process_index
        name = f"{batch}x{accumulation}-{rank}"
        parts = {key: value for key, value in run.state.log_history[0].items() if key.startswith("loss")}
        (folder / f"{name}.json").write_text(
            json.dumps({"world_size": run.args.world_size, "parts": parts, "evaluated": evaluated})
        )
        save_file(
            {key.removeprefix("module."): value.contiguous() for key, value in seen.first.items()},
            folder / f"{name}.safetensors",
        )


if __name__ == "__main__":
    torch.set_num_threads(1)
    for problem in (*tiny.PROBLEMS, *tiny_tasks.CASES, *IMAGES, READS):
        (Path(sys.argv[1]) / problem).mkdir(exist_ok=True)
        record(Path(sys.argv[1]) / problem, problem)
    torch.distributed.destroy_process_group()
    sys.stdout.flush()
    os._exit(0)  # see strategies.py
