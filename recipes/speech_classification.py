# /// script
# requires-python = ">=3.11"
# dependencies = ["hf_distill[recipes]"]
# ///
"""Distil a classifier of recordings, and prove what the teacher gave.

    accelerate launch recipes/speech_classification.py --train_file words.parquet   # or one folder a class
    accelerate launch recipes/speech_classification.py --train_file words.parquet --speaker_column speaker \
        --held_out_speakers ada bo
    accelerate launch recipes/speech_classification.py recipes/speech_classification.yaml --hub_model_id me/student

It trains a teacher (or takes one), the student alone, and the same student under the teacher; then it writes a table,
``report.json``, a picture and the model card beside the student's weights. No recordings come with a package.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from datasets import DatasetDict
from transformers import AutoModelForAudioClassification

from hf_distill import SpeechCollator
from hf_distill.experiments import Experiment, ModelKind, Recipe, run, say, teachers_labels
from hf_distill.experiments.data.few_labels import everything
from hf_distill.experiments.data.files import described
from hf_distill.experiments.data.recordings import RecordingDataArguments, load_spoken_classes
from hf_distill.experiments.recordings import (
    RecordingModelArguments,
    SpokenScoring,
    blank_mels,
    load_extractor,
    shared_extractor,
    small_mels,
)
from hf_distill.experiments.settings import RecipeTrainingArguments


@dataclass
class Arguments(RecordingModelArguments, RecordingDataArguments):
    """The data and the models."""


@dataclass
class TrainingArguments(RecipeTrainingArguments):
    """The recipe's own defaults; every argument of Trainer can be set."""

    output_dir: str = "outputs/speech_classification"
    per_device_train_batch_size: int = 32
    per_device_eval_batch_size: int = 64
    learning_rate: float = 1.2e-2
    num_train_epochs: float = 30.0
    temperature: float = 2.0
    objective: dict | str | None = "forward_kl"
    train_sampling_strategy: str = "group_by_length"
    save_strategy: str = "no"


def experiment(recipe: Arguments, args: TrainingArguments, root: Path) -> Experiment:
    """Read the recordings, and say which models learn from them.

    Args:
        recipe: the data and the models.
        args: of the student's training.
        root: where a teacher that is trained here is kept.
    """
    with args.main_process_first(desc="reading the recordings"):
        splits = load_spoken_classes(recipe, args.seed, teachers_labels(recipe))
    say(args, f"{recipe.source}: {described(splits, recipe.tested)}")
    names = splits["train"].features["label"].names
    extractor, finished = shared_extractor(recipe), recipe.teacher_model_name_or_path
    if recipe.finetune_teacher:
        finished = None  # it learns from the student's features, and is asked about those
    collate = SpeechCollator(
        extractor,
        load_extractor(finished, f"the teacher {finished}") if finished else None,
        max_seconds=recipe.max_seconds,
        keep=not (finished or recipe.student_model_name_or_path),  # of small models: both read the same features
    )
    kind = ModelKind(
        AutoModelForAudioClassification, "SEQ_CLS", names, "single_label_classification", blank_mels, small=small_mels,
        other_classes=True,
    )  # fmt: skip
    taught, known = everything(splits)
    return Experiment(
        recipe, args, root, kind, splits, extractor, scoring := SpokenScoring(names),
        {"data_collator": collate, "compute_metrics": scoring.compute_metrics},
        student_splits=DatasetDict({**splits, "train": taught}), teacher_rows=known,
    )  # fmt: skip


RECIPE = Recipe(Arguments, TrainingArguments, experiment)

if __name__ == "__main__":
    run(RECIPE)
