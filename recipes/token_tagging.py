# /// script
# requires-python = ">=3.11"
# dependencies = ["hf_distill[recipes]"]
# ///
"""Distil a tagger: the words of Chinese text, named entities, whatever has a tag for each token.

    accelerate launch recipes/token_tagging.py                                          # Chinese words, embedded data
    accelerate launch recipes/token_tagging.py --train_file train.conll --test_file test.conll
    accelerate launch recipes/token_tagging.py recipes/token_tagging.yaml --hub_model_id me/student

It trains a teacher (or takes one), the student alone, and the same student under the teacher; then it writes a table,
``report.json``, a picture and the model card beside the student's weights.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from transformers import AutoModelForTokenClassification, DataCollatorForTokenClassification

from hf_distill.experiments import (
    Experiment,
    ModelArguments,
    ModelKind,
    Recipe,
    run,
    say,
    shared_tokenizer,
    teachers_labels,
)
from hf_distill.experiments.data.files import described
from hf_distill.experiments.data.tagging import TaggingDataArguments, load_tagged
from hf_distill.experiments.settings import RecipeTrainingArguments
from hf_distill.experiments.token_tagging import TagScoring, tokenised
from hf_distill.experiments.tokenizers import character_tokenizer

EMBEDDED_ROWS = 20_000


@dataclass
class Arguments(ModelArguments, TaggingDataArguments):
    """The data and the models."""

    # In two epochs a deeper teacher at a lower rate learns less than a student of its depth, and then does harm; after
    # four this one is far enough ahead of a student of two layers to teach it.
    teacher_layers: int = field(default=2, metadata={"help": "Layers of a teacher that is trained from nothing."})
    teacher_epochs: float = field(default=4.0, metadata={"help": "Epochs of training or fine-tuning the teacher."})
    teacher_learning_rate: float = field(default=2e-3, metadata={"help": "Its peak learning rate."})
    student_layers: int = field(default=2, metadata={"help": "Layers of a student made here."})


@dataclass
class TrainingArguments(RecipeTrainingArguments):
    """The recipe's own defaults; every argument of Trainer can be set."""

    output_dir: str = "outputs/token_tagging"
    per_device_train_batch_size: int = 64
    per_device_eval_batch_size: int = 256
    learning_rate: float = 4e-3  # the best of 2e-3, 4e-3 and 8e-3 for the student alone
    temperature: float = 1.0


def experiment(recipe: Arguments, args: TrainingArguments, root: Path) -> Experiment:
    """Read the rows, and say which models learn from them.

    Args:
        recipe: the data and the models.
        args: of the student's training.
        root: where a teacher that is trained here is kept.
    """
    if recipe.max_train_samples is None and recipe.source == recipe.embedded:
        recipe.max_train_samples = EMBEDDED_ROWS
    with args.main_process_first(desc="reading the rows"):
        tagged = load_tagged(recipe, args.seed, teachers_labels(recipe))
    names = tagged["train"].features["tags"].feature.names
    tokenizer = shared_tokenizer(
        recipe, lambda: character_tokenizer(list(map(" ".join, tagged["train"]["tokens"][:])))
    )
    with args.main_process_first(desc="tokenising"):  # the first piece of a token has its tag
        splits, lost = tokenised(tagged, tokenizer, recipe.max_length)
    say(args, f"{recipe.source}: {described(splits, recipe.tested)}, {len(names)} tags{lost}")
    return Experiment(
        recipe,
        args,
        root,
        ModelKind(AutoModelForTokenClassification, "TOKEN_CLS", names),
        splits,
        tokenizer,
        scoring := TagScoring(names, tagged["test"]["tokens"][:]),
        {"data_collator": DataCollatorForTokenClassification(tokenizer), "compute_metrics": scoring.compute_metrics},
        language="zh" if recipe.source == recipe.embedded else None,
        notes={"left_out": lost.removeprefix("; ")} if lost else {},
    )


RECIPE = Recipe(Arguments, TrainingArguments, experiment)

if __name__ == "__main__":
    run(RECIPE)
