# /// script
# requires-python = ">=3.11"
# dependencies = ["hf_distill[recipes]"]
# ///
"""Distil a detector of objects, and prove what the teacher gave.

    accelerate launch recipes/object_detection.py                       # canvases of handwritten digits
    accelerate launch recipes/object_detection.py --train_file train.parquet --test_file test.parquet
    accelerate launch recipes/object_detection.py --train_file instances_train.json --image_folder photos
    accelerate launch recipes/object_detection.py recipes/object_detection.yaml --hub_model_id me/student

It trains a teacher (or takes one), the student alone, and the same student under the teacher; then it writes a table,
``report.json``, a picture and the model card beside the student's weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from transformers import AutoModelForObjectDetection

from hf_distill import BoxCollator
from hf_distill.experiments import Experiment, ModelKind, Recipe, run, say, teachers_labels
from hf_distill.experiments.data.detection import BoxDataArguments, load_boxes
from hf_distill.experiments.data.files import described
from hf_distill.experiments.detection import DetectionScoring
from hf_distill.experiments.detectors import DetectorArguments, blank_detector, shared_processor, small_detector
from hf_distill.experiments.settings import RecipeTrainingArguments
from hf_distill.tasks.processors import load_processor


@dataclass
class Arguments(DetectorArguments, BoxDataArguments):
    """The data and the models."""


@dataclass
class TrainingArguments(RecipeTrainingArguments):
    """The recipe's own defaults; every argument of Trainer can be set."""

    output_dir: str = "outputs/object_detection"
    alpha: float | None = 0.5
    temperature: float = 1.0
    per_device_train_batch_size: int = 16
    per_device_eval_batch_size: int = 64
    learning_rate: float = 8e-3
    num_train_epochs: float = 20.0
    lr_scheduler_type: str = "cosine"
    weight_decay: float = 1e-4
    max_grad_norm: float = 0.5
    eval_do_concat_batches: bool = False
    save_strategy: str = "no"


def experiment(recipe: Arguments, args: TrainingArguments, root: Path) -> Experiment:
    """Read the images, and say which models learn from them.

    Args:
        recipe: the data and the models.
        args: of the student's training.
        root: where a teacher that is trained here is kept.
    """
    with args.main_process_first(desc="reading the images"):
        splits = load_boxes(recipe, args.seed, teachers_labels(recipe))
    say(args, f"{recipe.source}: {described(splits, recipe.tested)}")
    names = splits["train"].features["objects"]["category"].feature.names
    processor, finished = shared_processor(recipe), recipe.teacher_model_name_or_path
    if recipe.finetune_teacher:
        finished = None  # it learns from the student's images, and is asked about those
    theirs = load_processor(finished, f"the teacher {finished}") if finished else None
    collate = BoxCollator(processor, theirs, recipe.flip, args.seed)
    kind = ModelKind(
        AutoModelForObjectDetection, "FEATURE_EXTRACTION", names, blank=blank_detector, small=small_detector,
        other_classes=True,
    )  # fmt: skip
    return Experiment(
        recipe, args, root, kind, splits, processor, scoring := DetectionScoring(collate, names),
        {"data_collator": collate, **scoring.for_training(args)},
    )  # fmt: skip


RECIPE = Recipe(Arguments, TrainingArguments, experiment)

if __name__ == "__main__":
    run(RECIPE)
