# /// script
# requires-python = ">=3.11"
# dependencies = ["hf_distill[recipes]"]
# ///
"""Distil a model of images and texts (CLIP and its like), and prove what the teacher gave.

    accelerate launch recipes/image_text.py                                  # digits with captions in two languages
    accelerate launch recipes/image_text.py --train_file photos --templates "a photo of a {}"   # folders of classes
    accelerate launch recipes/image_text.py recipes/image_text.yaml --hub_model_id me/student   # images with captions

It trains a teacher (or takes one), the student alone, and the same student under the teacher; then it writes a table,
``report.json``, a picture and the model card beside the student's weights. Where images have classes, their zero-shot
accuracy is measured, otherwise how many images find their caption among all test rows, and captions their image.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from datasets import DatasetDict
from transformers import AutoModel

from hf_distill import ImageTextCollator
from hf_distill.experiments import Experiment, ModelKind, Recipe, run, say
from hf_distill.experiments.data.captions import CAPTIONS, CaptionDataArguments, load_pairs
from hf_distill.experiments.data.files import described
from hf_distill.experiments.image_text import (
    ImageTextModelArguments,
    RetrievalScoring,
    ZeroShotScoring,
    blank_towers,
    load_pair_processor,
    shared_processor,
    small_towers,
)
from hf_distill.experiments.settings import RecipeTrainingArguments
from hf_distill.reports import recall_metrics

EMBEDDED_PAIRS, EMBEDDED_VIEWS = 200, 8


@dataclass
class Arguments(ImageTextModelArguments, CaptionDataArguments):
    """The data and the models."""


@dataclass
class TrainingArguments(RecipeTrainingArguments):
    """The recipe's own defaults; every argument of Trainer can be set."""

    output_dir: str = "outputs/image_text"
    per_device_train_batch_size: int = 64
    per_device_eval_batch_size: int = 128
    learning_rate: float = 4e-3
    num_train_epochs: float = 100.0
    temperature: float = 1.0
    objective: dict | str | None = None
    save_strategy: str = "no"


def experiment(recipe: Arguments, args: TrainingArguments, root: Path) -> Experiment:
    """Read the pairs, and say which models learn from them.

    Args:
        recipe: the data and the models.
        args: of the student's training.
        root: where a teacher that is trained here is kept.
    """
    if recipe.source == recipe.embedded:
        recipe.labeled_samples = recipe.labeled_samples or EMBEDDED_PAIRS
        if not recipe.changes and recipe.views is None:
            recipe.shift, recipe.views = 1, EMBEDDED_VIEWS
    if args.objective == "auto":
        args.objective = None  # the task's own
    with args.main_process_first(desc="reading the images"):
        splits, texts = load_pairs(recipe, args.seed)
    say(args, f"{recipe.source}: {described(splits, recipe.tested)}")
    captions = chain.from_iterable(texts or _listed(splits["train"][CAPTIONS][:]))
    processor, finished = shared_processor(recipe, captions), recipe.teacher_model_name_or_path
    collate = ImageTextCollator(
        processor,
        load_pair_processor(finished, f"the teacher {finished}") if finished and not recipe.finetune_teacher else None,
        views=recipe.changes,
        recurring=recipe.views,
        text_column=CAPTIONS,
        max_length=recipe.max_length,
        seed=args.seed,
    )
    kind = ModelKind(AutoModel, "FEATURE_EXTRACTION", blank=blank_towers, small=small_towers)
    scoring = RetrievalScoring()
    if texts is not None:
        scoring = ZeroShotScoring(splits["train"].features["label"].names, texts)
    every = splits["train"]
    if recipe.labeled_samples is not None:
        few = every.shuffle(seed=args.seed).select(range(min(recipe.labeled_samples, len(every))))
        splits = DatasetDict({**splits, "train": few})
    return Experiment(
        recipe, args, root, kind, splits, processor, scoring,
        {"data_collator": collate, "compute_metrics": recall_metrics()}, teacher_rows=every,
    )  # fmt: skip


def _listed(texts: list) -> list[list[str]]:
    return [[one] if isinstance(one, str) else one for one in texts]


RECIPE = Recipe(Arguments, TrainingArguments, experiment)

if __name__ == "__main__":
    run(RECIPE)
