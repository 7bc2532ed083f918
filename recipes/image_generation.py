# /// script
# requires-python = ">=3.11"
# dependencies = ["hf_distill[recipes]"]
# ///
"""Distil a denoiser of images, and see what the teacher gave.

    accelerate launch recipes/image_generation.py                          # handwritten digits of 8 x 8 pixels
    accelerate launch recipes/image_generation.py --train_file train.parquet --teacher_model_name_or_path my/unet
    accelerate launch recipes/image_generation.py recipes/image_generation.yaml --hub_model_id me/student

It trains a teacher (or takes one), the student alone, and the same student under the teacher; then it writes a table,
``report.json``, a grid of samples and the model card beside the student's weights. Step distillation (LCM, DMD2) is
not done here: diffusers and its trainers have it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hf_distill import DenoisingCollator
from hf_distill.experiments import Experiment, Recipe, run, say
from hf_distill.experiments.data.files import described
from hf_distill.experiments.data.images import ImageDataArguments, load_images
from hf_distill.experiments.denoisers import DenoiserArguments, DenoiserKind, shared_scheduler
from hf_distill.experiments.image_generation import GenerationScoring
from hf_distill.experiments.settings import RecipeTrainingArguments


@dataclass
class Arguments(DenoiserArguments, ImageDataArguments):
    """The data and the models."""


@dataclass
class TrainingArguments(RecipeTrainingArguments):
    """The recipe's own defaults; every argument of Trainer can be set."""

    output_dir: str = "outputs/image_generation"
    alpha: float | None = 0.9
    objective: dict | str | None = "value_mse"
    per_device_train_batch_size: int = 64
    learning_rate: float = 8e-3
    num_train_epochs: float = 20.0
    lr_scheduler_type: str = "cosine"
    save_strategy: str = "no"


def experiment(recipe: Arguments, args: TrainingArguments, root: Path) -> Experiment:
    """Read the images, and say which models learn from them.

    Args:
        recipe: the data and the models.
        args: of the student's training.
        root: where a teacher that is trained here is kept.
    """
    if recipe.labeled_samples is not None:
        raise ValueError("labeled_samples was given, and a denoiser learns from images: leave it out.")
    scheduler = shared_scheduler(recipe)
    with args.main_process_first(desc="reading the images"):
        splits = load_images(recipe, args.seed)
    say(args, f"{recipe.source}: {described(splits, recipe.tested)}")
    classes = len(splits["train"].features["label"].names)
    splits = splits.rename_column("label", "class")  # a condition, and no label
    picture = splits["train"][0]["image"]
    kind = DenoiserKind((len(picture.getbands()), picture.height, picture.width), classes)
    model = kind.example(recipe)
    conditioned = any(model.config.get(name) for name in ("num_embeds_ada_norm", "num_class_embeds"))
    collate = DenoisingCollator(
        model,
        scheduler,
        latents="image",
        conditions={"class_labels": "class"} if conditioned else {},
        nothing={"class_labels": classes} if conditioned else {},
        drop=recipe.drop if conditioned else 0.0,
        recurring=recipe.noises,
        seed=args.seed,
    )
    scoring = GenerationScoring(recipe, scheduler, collate, splits["train"], classes, conditioned)
    return Experiment(
        recipe, args, root, kind, splits, None, scoring,
        {"data_collator": collate, "callbacks": [scoring.judge(splits["validation"])]},
    )  # fmt: skip


RECIPE = Recipe(Arguments, TrainingArguments, experiment)

if __name__ == "__main__":
    run(RECIPE)
