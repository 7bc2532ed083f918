"""Run by test_exact.py on each of two ranks: one step, its logged parts and its gradients to files."""

import json
import os
import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.insert(0, str(Path(__file__).parents[1]))

import tiny
import tiny_detectors
import tiny_drafts
import tiny_generators
import tiny_images
import tiny_language
import tiny_reads
import tiny_segmenters
import tiny_speech
import tiny_tasks
import tiny_vision_language
import torch
from safetensors.torch import save_file
from transformers import DataCollatorForSeq2Seq, default_data_collator

from hf_distill import DenoisingCollator, Generating, LatentCollator, SequenceClassification, latent_rows

READS = ("reads", "states", "reader", "draft")
NOISE = ("denoising",) if find_spec("diffusers") else ()  # noise that each rank draws for its own rows
LATENTS = ("latents",)  # drawn by each rank for its own rows, what is made of them judged by a discriminator
GENERATORS = {  # what is made has a target
    "decoder": (tiny_generators.decoder, tiny_generators.latents),
    "vocoder": (tiny_generators.hifigan, tiny_generators.mels),
}
IMAGES_IN_TEXTS = ("llava", "qwen2_vl")  # two images in one row, and none in the next


def images(seed=1):
    """Each kind of task on images and recordings: student, teacher, rows, how they become a batch."""
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
        "ctc": (
            tiny_speech.wav2vec2(), tiny_speech.wav2vec2(7, width=24, layers=3), tiny_speech.recordings(8, seed),
            tiny_speech.collate,
        ),
    }  # fmt: skip


IMAGES = tuple(images())
TOKENS = {  # name -> the maker of a student with a class and a distillation token, and the teacher's share
    f"{kind}, alpha={alpha}": (make, alpha)
    for kind, make in (("deit", tiny_images.deit_with_token), ("levit", tiny_images.levit_with_token))
    for alpha in (0.0, 0.5, 1.0)
}


def parts_of(problem):
    """The student, the data and the other parts of a trainer, for a problem type or another task."""
    if problem in IMAGES:
        student, teacher, data, *collate = images()[problem]
        both = {"eval_dataset": images(9)[problem][2], "teacher_model": teacher}
        return student, data, {**both, "data_collator": collate[0] if collate else default_data_collator}
    if problem in TOKENS:
        size, make = (32 if problem.startswith("levit") else 16), TOKENS[problem][0]
        both = {
            "eval_dataset": tiny_images.images(8, 9, size),
            "teacher_model": tiny_images.resnet((2, 2), (12, 16), 7),
        }
        student = tiny_images.without_batch_statistics(make())
        return student, tiny_images.images(8, size=size), {**both, "data_collator": default_data_collator}
    if problem in IMAGES_IN_TEXTS:
        make, rows = (partial(one, problem) for one in (tiny_vision_language.model, tiny_vision_language.rows))
        both = {"eval_dataset": rows((2, 0, 1, 1, 0, 1, 2, 0), 9), "teacher_model": make(7)}
        collate = partial(tiny_vision_language.collate, problem)
        return make(), rows((2, 0, 1, 1, 2, 0, 0, 1)), {**both, "data_collator": collate}
    if problem in NOISE:
        import tiny_denoisers

        student, conditions = tiny_denoisers.dit(1), {"class_labels": "label"}
        told = {"conditions": conditions, "nothing": {"class_labels": 3}, "drop": 0.3}
        collate = DenoisingCollator(student, tiny_denoisers.ddpm(), **told)
        both = {"eval_dataset": tiny_denoisers.latents(8, 9), "teacher_model": tiny_denoisers.dit(3, seed=7)}
        return student, tiny_denoisers.latents(8), {**both, "data_collator": collate}
    if problem in LATENTS:
        collate = LatentCollator({"z": (3,)}, {"class_labels": "label"})
        both = {"eval_dataset": latent_rows(8, 2), "teacher_model": tiny_generators.Gan(8, seed=7)}
        task = Generating(supervised=False)
        return tiny_generators.Gan(4), latent_rows(8, 3), {**both, "data_collator": collate, "task": task}
    if problem in GENERATORS:
        make, rows = GENERATORS[problem]
        return make(4), rows(), {"teacher_model": make(8, seed=7), "data_collator": default_data_collator}
    if problem == READS[0]:
        both = {"eval_dataset": tiny.rows(8, seed=9), "teacher_model": tiny.teacher()}
        return tiny_reads.Reader(24), tiny.rows(8), {**both, "task": tiny_reads.Reading("hidden")}
    if problem == READS[1]:
        both = {"eval_dataset": tiny.rows(8, seed=9), "teacher_model": tiny.teacher()}
        return tiny_reads.States(), tiny.rows(8), {**both, "task": SequenceClassification(3, tiny.SINGLE)}
    if problem == READS[3]:
        both = {"eval_dataset": tiny_language.texts(8, 9), "teacher_model": tiny_drafts.teacher()}
        collate = DataCollatorForSeq2Seq(tiny_language.tokenizer())
        return tiny_drafts.draft(), tiny_language.texts(), {**both, "data_collator": collate}
    if problem == READS[2]:
        problem = tiny.SINGLE
    if (case := tiny_tasks.CASES.get(problem)) is None:
        both = {"eval_dataset": tiny.rows(8, problem, seed=9), "teacher_model": tiny.teacher(problem)}
        return tiny.bert(problem=problem), tiny.rows(8, problem), both
    both = {"eval_dataset": case.rows(8, 9), "teacher_model": case.teacher(), "data_collator": case.collate()}
    return case.model(), case.rows(), both


def settings_of(problem):
    """What else is set; DDP would complain in the second step of a head that had no gradient in the first."""
    if problem in TOKENS:
        alone = {"ddp_find_unused_parameters": False, "weight_decay": 0.1}
        return {"alpha": TOKENS[problem][1], "max_steps": 2, **alone}
    if problem in IMAGES_IN_TEXTS:  # no rank calls the tower of images in a batch of texts alone
        return {"max_steps": 1, "remove_unused_columns": False, "ddp_find_unused_parameters": True}
    if problem in LATENTS:
        judged = {"on": "sample", "channels": 1, "hidden": 8}
        return {"objective": {"value_mse": 1.0, "adversarial": judged}, "max_steps": 1}
    if problem == READS[2]:
        return {"reader": {"reads": "hidden[-1]", "keep": 0.5}, "max_steps": 2}
    return {"objective": "auto" if problem in IMAGES else None, "max_steps": 1}


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
                per_device_eval_batch_size=4,
                **settings_of(problem),
            ),
        )
        run.train()
        evaluated = {name: value for name, value in run.evaluate().items() if "loss" in name or "teacher" in name}
        if problem in tiny.PROBLEMS or problem in tiny_tasks.CASES:  # seven rows: a rank's last batch is filled up
            run.args.per_device_eval_batch_size = 2
            few = run.evaluate(both["eval_dataset"][:7], metric_key_prefix="seven")
            evaluated |= {name: value for name, value in few.items() if "teacher" in name}
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
    for problem in sys.argv[2:]:
        (Path(sys.argv[1]) / problem).mkdir(exist_ok=True)
        record(Path(sys.argv[1]) / problem, problem)
    torch.distributed.destroy_process_group()
    sys.stdout.flush()
    os._exit(0)  # see strategies.py
