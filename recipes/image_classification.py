# /// script
# requires-python = ">=3.11"
# dependencies = ["hf_distill[recipes]"]
# ///
"""Distil an image classifier, and prove what the teacher gave.

    accelerate launch recipes/image_classification.py                       # handwritten digits
    accelerate launch recipes/image_classification.py --train_file photos --teacher_model_name_or_path my/teacher
    accelerate launch recipes/image_classification.py recipes/image_classification.yaml --hub_model_id me/student

It trains a teacher (or takes one), the student alone, and the same student under the teacher; then it writes a table,
``report.json``, a picture and the model card beside the student's weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from datasets import DatasetDict
from transformers import AutoModelForImageClassification

from hf_distill import ImageCollator
from hf_distill.experiments import Experiment, ModelKind, Recipe, run, say, teachers_labels
from hf_distill.experiments.data.few_labels import everything
from hf_distill.experiments.data.files import described
from hf_distill.experiments.data.images import ImageDataArguments, load_images
from hf_distill.experiments.images import ImageModelArguments, blank_resnet, shared_processor, small_resnet
from hf_distill.experiments.settings import RecipeTrainingArguments
from hf_distill.experiments.text_classification import ClassScoring
from hf_distill.tasks.processors import load_processor

EMBEDDED_LABELS = 100


@dataclass
class Arguments(ImageModelArguments, ImageDataArguments):
    """The data and the models."""


@dataclass
class TrainingArguments(RecipeTrainingArguments):
    """The recipe's own defaults; every argument of Trainer can be set."""

    output_dir: str = "outputs/image_classification"
    per_device_train_batch_size: int = 32
    learning_rate: float = 1e-2
    num_train_epochs: float = 20.0
    temperature: float = 4.0
    objective: dict | str | None = "forward_kl"
    save_strategy: str = "no"


def experiment(recipe: Arguments, args: TrainingArguments, root: Path) -> Experiment:
    """Read the images, and say which models learn from them.

    Args:
        recipe: the data and the models.
        args: of the student's training.
        root: where a teacher that is trained here is kept.
    """
    if recipe.labeled_samples is None and recipe.source == recipe.embedded:
        recipe.labeled_samples = EMBEDDED_LABELS
    with args.main_process_first(desc="reading the images"):
        splits = load_images(recipe, args.seed, teachers_labels(recipe))
    say(args, f"{recipe.source}: {described(splits, recipe.tested)}")
    names = splits["train"].features["label"].names
    processor, finished = shared_processor(recipe), recipe.teacher_model_name_or_path
    if recipe.finetune_teacher:
        finished = None  # it learns from the student's images, and is asked about those
    collate = ImageCollator(
        processor,
        load_processor(finished, f"the teacher {finished}") if finished else None,
        views=recipe.changes,
        recurring=recipe.views,
        mixup=recipe.mixup,
        cutmix=recipe.cutmix,
        seed=args.seed,
    )
    kind = ModelKind(
        AutoModelForImageClassification, "SEQ_CLS", names, "single_label_classification", blank_resnet,
        small=small_resnet,
    )  # fmt: skip
    taught, known = everything(splits)
    return Experiment(
        recipe, args, root, kind, splits, processor, scoring := ClassScoring(names),
        {"data_collator": collate, "compute_metrics": scoring.compute_metrics},
        student_splits=DatasetDict({**splits, "train": taught}), teacher_rows=known,
    )  # fmt: skip


RECIPE = Recipe(Arguments, TrainingArguments, experiment)

if __name__ == "__main__":
    run(RECIPE)
