# /// script
# requires-python = ">=3.11"
# dependencies = ["hf_distill[recipes]"]
# ///
"""Distil a segmenter, and prove what the teacher gave.

    accelerate launch recipes/segmentation.py                       # canvases of handwritten digits
    accelerate launch recipes/segmentation.py --train_file photos --teacher_model_name_or_path my/teacher
    accelerate launch recipes/segmentation.py recipes/segmentation.yaml --hub_model_id me/student

It trains a teacher (or takes one), the student alone, and the same student under the teacher; then it writes a table,
``report.json``, pictures and the model card beside the student's weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from datasets import Dataset, DatasetDict, concatenate_datasets
from transformers import AutoConfig, AutoModelForSemanticSegmentation

from hf_distill import ImageCollator
from hf_distill.experiments import Experiment, ModelKind, Recipe, run, say
from hf_distill.experiments.data.files import described
from hf_distill.experiments.data.maps import MapDataArguments, load_maps, names_of
from hf_distill.experiments.segmentation import (
    SegmentationModelArguments,
    SegmentationScoring,
    blank_upernet,
    chosen_classes,
    map_processor,
    small_upernet,
)
from hf_distill.experiments.settings import RecipeTrainingArguments
from hf_distill.tasks.processors import load_processor

EMBEDDED_MAPS = 200


@dataclass
class Arguments(SegmentationModelArguments, MapDataArguments):
    """The data and the models."""


@dataclass
class TrainingArguments(RecipeTrainingArguments):
    """The recipe's own defaults; every argument of Trainer can be set."""

    output_dir: str = "outputs/segmentation"
    per_device_train_batch_size: int = 16
    per_device_eval_batch_size: int = 32
    learning_rate: float = 6e-2
    num_train_epochs: float = 20.0
    objective: dict | str | None = "forward_kl"
    save_strategy: str = "no"


def experiment(recipe: Arguments, args: TrainingArguments, root: Path) -> Experiment:
    """Read the images and their maps, and say which models learn from them.

    Args:
        recipe: the data and the models.
        args: of the student's training.
        root: where a teacher that is trained here is kept.
    """
    if recipe.labeled_samples is None and recipe.source == recipe.embedded:
        recipe.labeled_samples = EMBEDDED_MAPS
    with args.main_process_first(desc="reading the images"):
        splits = load_maps(recipe, args.seed)
    say(args, f"{recipe.source}: {described(splits, recipe.tested)}")
    finished = None if recipe.finetune_teacher else recipe.teacher_model_name_or_path
    known = AutoConfig.from_pretrained(finished).id2label if finished else None
    names = names_of(recipe, splits["train"], None if known is None else [known[i] for i in range(len(known))])
    collate = ImageCollator(
        processor := map_processor(recipe, recipe.reduce_labels),
        load_processor(finished, f"the teacher {finished}") if finished else None,
        views=recipe.changes,
        recurring=recipe.views,
        mixup=recipe.mixup,
        cutmix=recipe.cutmix,
        seed=args.seed,
        map_column="map",
    )
    kind = ModelKind(
        AutoModelForSemanticSegmentation, "FEATURE_EXTRACTION", names, None, blank_upernet, small=small_upernet
    )
    scoring, (taught, told) = SegmentationScoring(names, recipe.reduce_labels), everything(splits)
    options = {
        "data_collator": collate,
        "compute_metrics": scoring.compute_metrics,
        "preprocess_logits_for_metrics": chosen_classes,
    }
    return Experiment(
        recipe, args, root, kind, splits, processor, scoring, options,
        student_splits=DatasetDict({**splits, "train": taught}), teacher_rows=told,
    )  # fmt: skip


def everything(splits: DatasetDict) -> tuple[Dataset, Dataset]:
    """All training images: as a student reads them, who is told few maps, and as a teacher that knows all."""
    train, hidden = splits["train"], splits.get("unlabeled")
    if hidden is None:
        return train, train
    blank = hidden.map(lambda row: {"map": None}, features=train.features, desc="hiding maps")
    return concatenate_datasets([train, blank]), concatenate_datasets([train, hidden])


RECIPE = Recipe(Arguments, TrainingArguments, experiment)

if __name__ == "__main__":
    run(RECIPE)
