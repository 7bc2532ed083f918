"""Distil a Chinese BERT classifier, and prove what the teacher gave.

    accelerate launch recipes/bert_chinese.py                                   # the whole job on embedded data
    accelerate launch recipes/bert_chinese.py --train_file my.jsonl --teacher_model_name_or_path my/teacher
    accelerate launch recipes/bert_chinese.py recipes/bert_chinese.yaml --hub_model_id me/student

It trains a teacher (or takes one), the student alone, and the same student under the teacher; then it writes a table,
``report.json``, a picture and the model card beside the student's weights.

Knows: the order of these steps. Does not know: how a loss is computed or a model measured.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import PartialState
from chinese_words import character_tokenizer
from datasets import DatasetDict
from predictions import ClassScoring
from recipe_run import RecipeTrainingArguments as Defaults
from recipe_run import begin, say
from text_data import TextDataArguments, described, load_text, texts_to_read, with_unlabeled
from three_models import Job, distil
from transformers import AutoModelForSequenceClassification, DataCollatorWithPadding, PreTrainedTokenizerBase
from two_models import Kind, ModelArguments, shared_tokenizer, teachers_labels

ROOT = Path("outputs/bert_chinese")
EMBEDDED_ROWS = 120_000


@dataclass
class RecipeArguments(ModelArguments, TextDataArguments):
    """The data and the models."""


@dataclass
class RecipeTrainingArguments(Defaults):
    """The recipe's own defaults."""

    output_dir: str = str(ROOT)


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Run the recipe.

    Args:
        argv: flags, or a YAML or JSON file with flags that override it; None takes the command line.

    Returns:
        What ``report.json`` holds.
    """
    started = time.time()
    return distil(prepare(argv), started)


def prepare(argv: list[str] | None = None) -> Job:
    """Read the settings and the rows.

    Args:
        argv: as in ``main``.

    Returns:
        All that the three models share.
    """
    recipe, args, root = begin([RecipeArguments, RecipeTrainingArguments], argv, ROOT)
    if recipe.max_train_samples is None and recipe.source == recipe.embedded:
        recipe.max_train_samples = EMBEDDED_ROWS
    with args.main_process_first(desc="reading the rows"):
        splits = load_text(recipe, args.seed, teachers_labels(recipe))
    say(args, f"{recipe.source}: {described(splits, recipe.tested)}")
    noted, columns = {"left_out": splits.left_out} if splits.left_out else {}, recipe.text_columns
    tokenizer = shared_tokenizer(recipe, lambda: character_tokenizer(texts_to_read(splits, columns)))
    with args.main_process_first(desc="tokenising"):
        splits = tokenised(splits, columns, tokenizer, recipe.max_length)
    names = splits["train"].features["label"].names
    return Job(
        recipe,
        args,
        root,
        Kind(AutoModelForSequenceClassification, "SEQ_CLS", names, "single_label_classification"),
        splits,
        tokenizer,
        scoring := ClassScoring(names),
        recipe.source,
        {"data_collator": DataCollatorWithPadding(tokenizer), "compute_metrics": scoring.on_the_way},
        language="zh" if recipe.source == recipe.embedded else None,
        heard=with_unlabeled(splits, args.alpha),
        noted={**noted, "pair": len(columns) > 1},
    )


def tokenised(
    splits: DatasetDict, columns: list[str], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> DatasetDict:
    """Turn text into token ids, in batches, with a progress bar for each split."""

    def encode(rows: dict[str, list]) -> dict[str, list]:
        return dict(tokenizer(*(rows[c] for c in columns), truncation=True, max_length=max_length))

    return splits.map(encode, batched=True, remove_columns=columns, desc="tokenising")


if __name__ == "__main__":
    try:
        main()
        PartialState().destroy_process_group()
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"error: {' '.join(str(error).split())}")
