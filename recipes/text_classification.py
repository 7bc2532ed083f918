# /// script
# requires-python = ">=3.11"
# dependencies = ["hf_distill[recipes]"]
# ///
"""Distil a text classifier, of one text or two, and prove what the teacher gave.

    accelerate launch recipes/text_classification.py                            # the whole job, on Chinese words
    accelerate launch recipes/text_classification.py --train_file my.jsonl --teacher_model_name_or_path my/teacher
    accelerate launch recipes/text_classification.py recipes/text_classification.yaml --hub_model_id me/student

It trains a teacher (or takes one), the student alone, and the same student under the teacher; then it writes a table,
``report.json``, a picture and the model card beside the student's weights. ``bert_chinese.py`` is the same, with the
settings of a Chinese BERT.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from datasets import DatasetDict
from transformers import AutoModelForSequenceClassification, DataCollatorWithPadding, PreTrainedTokenizerBase

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
from hf_distill.experiments.data.classification import TextDataArguments, load_text, with_unlabeled
from hf_distill.experiments.data.files import described, texts_to_read
from hf_distill.experiments.settings import RecipeTrainingArguments
from hf_distill.experiments.steps import choose_epochs
from hf_distill.experiments.text_classification import ClassScoring
from hf_distill.experiments.tokenizers import character_tokenizer

EMBEDDED_ROWS = 20_000  # with a teacher of two layers: a run of three minutes on one core, with a gap to close


@dataclass
class Arguments(ModelArguments, TextDataArguments):
    """The data and the models."""

    teacher_layers: int = field(default=2, metadata={"help": "Layers of a teacher that is trained from nothing."})

    teacher_epochs: float | None = field(default=None, metadata={"help": "Default: two, of few rows up to 20."})

    def check(self) -> None:
        """Take one thread for the embedded words, where a second saves a tenth of the time and waits for others."""
        super().check()
        if self.num_threads is None and self.source == self.embedded:
            self.num_threads = 1


@dataclass
class TrainingArguments(RecipeTrainingArguments):
    """The recipe's own defaults; every argument of Trainer can be set."""

    output_dir: str = "outputs/text_classification"
    learning_rate: float = 1e-3
    num_train_epochs: float | None = field(default=None, metadata={"help": "Default: two, of few rows up to 20."})


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
        splits = load_text(recipe, args.seed, teachers_labels(recipe))
    say(args, f"{recipe.source}: {described(splits, recipe.tested)}")
    choose_epochs(recipe, args, len(splits["train"]))
    left_out, columns = splits.left_out, recipe.text_columns
    tokenizer = shared_tokenizer(recipe, lambda: character_tokenizer(texts_to_read(splits, columns)))
    texts = splits["test"].select_columns(columns)
    with args.main_process_first(desc="tokenising"):
        splits = tokenised(splits, columns, tokenizer, recipe.max_length)
    names = splits["train"].features["label"].names
    return Experiment(
        recipe,
        args,
        root,
        ModelKind(AutoModelForSequenceClassification, "SEQ_CLS", names, "single_label_classification"),
        splits,
        tokenizer,
        scoring := ClassScoring(names, texts),
        {"data_collator": DataCollatorWithPadding(tokenizer), "compute_metrics": scoring.compute_metrics},
        language="zh" if recipe.source == recipe.embedded else None,
        student_splits=with_unlabeled(splits, args.alpha),
        notes={**({"left_out": left_out} if left_out else {}), "pair": len(columns) > 1},
    )


def tokenised(
    splits: DatasetDict, columns: list[str], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> DatasetDict:
    """Turn text into token ids, in batches, with a progress bar for each split."""

    def encode(rows: dict[str, list]) -> dict[str, list]:
        return dict(tokenizer(*(rows[c] for c in columns), truncation=True, max_length=max_length))

    return splits.map(encode, batched=True, remove_columns=columns, desc="tokenising")


RECIPE = Recipe(Arguments, TrainingArguments, experiment)

if __name__ == "__main__":
    run(RECIPE)
