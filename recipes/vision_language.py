# /// script
# requires-python = ">=3.11"
# dependencies = ["hf_distill[recipes]"]
# ///
"""Distil a vision-language model that answers questions about pictures, and prove what the teacher gave.

    accelerate launch recipes/vision_language.py                             # pictures of handwritten digits
    accelerate launch recipes/vision_language.py --train_file questions.jsonl --test_file more.jsonl \
        --teacher_model_name_or_path me/teacher --student_model_name_or_path me/student
    accelerate launch recipes/vision_language.py recipes/vision_language.yaml --hub_model_id me/student

It trains a teacher (or takes one), the student alone, and the same student under the teacher, who also answers the
training questions whose answer the student is not told; then it writes a table, ``report.json``, a picture and the
model card beside the student's weights. An answer counts that is right word for word.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from datasets import DatasetDict
from transformers import AutoModelForImageTextToText

from hf_distill.experiments import Experiment, ModelKind, Recipe, run, say
from hf_distill.experiments.data.few_labels import everything
from hf_distill.experiments.data.files import described
from hf_distill.experiments.data.visual_questions import (
    ANSWER,
    QUESTION,
    VisualQuestionArguments,
    load_visual_questions,
)
from hf_distill.experiments.question_collator import QuestionCollator
from hf_distill.experiments.settings import RecipeTrainingArguments
from hf_distill.experiments.vision_language import (
    FrozenVisionExperiment,
    VisionLanguageArguments,
    blank_llava,
    shared_processor,
    small_llava,
)
from hf_distill.experiments.visual_answers import AnswerScoring, likeliest

EMBEDDED_ANSWERS = 1_500


@dataclass
class Arguments(VisionLanguageArguments, VisualQuestionArguments):
    """The data and the models."""


@dataclass
class TrainingArguments(RecipeTrainingArguments):
    """The recipe's own defaults; every argument of Trainer can be set."""

    output_dir: str = "outputs/vision_language"
    per_device_train_batch_size: int = 64
    per_device_eval_batch_size: int = 128
    learning_rate: float = 4e-3
    num_train_epochs: float = 6.0
    temperature: float = 1.0
    objective: dict | str | None = None
    teacher_cache: str = "off"  # to keep a distribution for each token takes longer than to ask a small teacher again
    save_strategy: str = "no"


def experiment(recipe: Arguments, args: TrainingArguments, root: Path) -> Experiment:
    """Read the questions, and say which models learn to answer them.

    Args:
        recipe: the data and the models.
        args: of the student's training.
        root: where a teacher that is trained here is kept.
    """
    if recipe.source == recipe.embedded and recipe.max_train_samples is None:
        recipe.labeled_samples = recipe.labeled_samples or EMBEDDED_ANSWERS
    with args.main_process_first(desc="reading the questions"):
        splits = load_visual_questions(recipe, args.seed)
    say(args, f"{recipe.source}: {described(splits, recipe.tested)}")
    taught, known = everything(splits, ANSWER)
    processor = shared_processor(recipe, chain(known[QUESTION][:], known[ANSWER][:]))
    made_here = not (recipe.teacher_model_name_or_path or recipe.student_model_name_or_path)
    collate = QuestionCollator(processor, recipe.max_length, keep=made_here)
    if "unlabeled" in splits and args.rollout is None:
        args.rollout = {"seq_kd": 1.0, "max_new_tokens": collate.longest(splits["train"])}
    kind = ModelKind(
        AutoModelForImageTextToText, "CAUSAL_LM", blank=blank_llava, small=small_llava,
        vision_layers=recipe.student_vision_layers,
    )  # fmt: skip
    scoring = AnswerScoring(collate, splits["test"])
    options = {
        "data_collator": collate,
        "compute_metrics": scoring.compute_metrics,
        "preprocess_logits_for_metrics": likeliest,
    }
    return (FrozenVisionExperiment if recipe.freeze_vision else Experiment)(
        recipe, args, root, kind, splits, processor, scoring, options,
        student_splits=DatasetDict({**splits, "train": taught}), teacher_rows=known,
    )  # fmt: skip


RECIPE = Recipe(Arguments, TrainingArguments, experiment)

if __name__ == "__main__":
    run(RECIPE)
