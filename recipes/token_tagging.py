"""Distil a tagger: the words of Chinese text, named entities, whatever has a tag for each token.

    accelerate launch recipes/token_tagging.py                                          # Chinese words, embedded data
    accelerate launch recipes/token_tagging.py --train_file train.conll --test_file test.conll
    accelerate launch recipes/token_tagging.py recipes/token_tagging.yaml --hub_model_id me/student

It trains a teacher (or takes one), the student alone, and the same student under the teacher; then it writes a table,
``report.json``, a picture and the model card beside the student's weights.

Knows: how tags become labels of pieces, and predictions spans. Does not know: how the models are made and trained.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from accelerate import PartialState
from chinese_words import character_tokenizer
from datasets import DatasetDict
from predictions import AGREES, PROBABILITIES, PredictionScoring, nearness
from recipe_run import RecipeTrainingArguments as Defaults
from recipe_run import begin, say
from scoring import percent
from tagging_data import BMES, TaggingDataArguments, load_tagged
from text_data import described
from three_models import Job, distil
from transformers import AutoModelForTokenClassification, DataCollatorForTokenClassification, PreTrainedTokenizerBase
from two_models import Kind, ModelArguments, shared_tokenizer, teachers_labels

from hf_distill.reports import f1_shares, span_counts, span_scores

ROOT = Path("outputs/token_tagging")
EMBEDDED_ROWS = 20_000
NO_LABEL = -100


@dataclass
class RecipeArguments(ModelArguments, TaggingDataArguments):
    """The data and the models."""

    # In two epochs a deeper teacher at a lower rate learns less than a student of its depth, and then does harm.
    teacher_layers: int = field(default=2, metadata={"help": "Layers of a teacher that is trained from nothing."})
    teacher_learning_rate: float = field(default=2e-3, metadata={"help": "Its peak learning rate."})


@dataclass
class RecipeTrainingArguments(Defaults):
    """The recipe's own defaults."""

    output_dir: str = str(ROOT)
    per_device_train_batch_size: int = 64
    per_device_eval_batch_size: int = 256


class TagScoring(PredictionScoring):
    """Exact spans: F1 of words or entities, and the share of tokens with the right tag.

    Args:
        names: the tags, in the order of the classes.
    """

    score: ClassVar[str] = "f1"
    drawn: ClassVar[tuple[str, str]] = ("f1", "{split} F1 of exact spans")
    hub: ClassVar[Mapping[str, str]] = {name: name for name in ("f1", "precision", "recall", "accuracy")}

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.names = np.array(names)
        spans = "word" if set(names) == set(BMES) else "entity"
        shares = {f"{spans} F1": "f1", "precision": "precision", "recall": "recall", "tag accuracy": "accuracy"}
        self.columns = {**{f"{heading} %": percent(key) for heading, key in shares.items()}, **AGREES, **PROBABILITIES}

    def counts(self, predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Count the spans of each row; a token without a label is no part of its row.

        Args:
            predictions: logits [N, T, C].
            labels: [N, T].
        """
        chosen = predictions.argmax(-1)
        said, right = (
            [self.names[row[known]] for row, known in zip(classes, labels != NO_LABEL, strict=True)]
            for classes in (chosen, labels)
        )
        return span_counts(said, right)

    def figures(self, predictions: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        """Precision, recall and F1 of spans, accuracy of tags; see ``PredictionScoring.figures``."""
        known = labels != NO_LABEL
        accuracy = float((predictions.argmax(-1) == labels)[known].mean())
        return {**span_scores(self.counts(predictions, labels)), "accuracy": accuracy}

    def probabilities(self, predictions: np.ndarray, labels: np.ndarray, told: np.ndarray) -> dict[str, float]:
        """KL to the teacher and calibration error of tags; see ``PredictionScoring``."""
        return nearness(predictions, labels, told)

    def units(self, predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """What each row adds to F1; see ``PredictionScoring.units``."""
        return f1_shares(self.counts(predictions, labels))

    def agreement(self, predictions: np.ndarray, teacher: np.ndarray, labels: np.ndarray) -> float:
        """The share of tokens with the same tag; see ``PredictionScoring.agreement``."""
        same = predictions.argmax(-1) == teacher.argmax(-1)
        return float(same[labels != NO_LABEL].mean())


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
        tagged = load_tagged(recipe, args.seed, teachers_labels(recipe))
    names = tagged["train"].features["tags"].feature.names
    tokenizer = shared_tokenizer(
        recipe, lambda: character_tokenizer(list(map(" ".join, tagged["train"]["tokens"][:])))
    )
    with args.main_process_first(desc="tokenising"):
        splits, lost = tokenised(tagged, tokenizer, recipe.max_length)
    say(args, f"{recipe.source}: {described(splits, recipe.tested)}, {len(names)} tags{lost}")
    return Job(
        recipe,
        args,
        root,
        Kind(AutoModelForTokenClassification, "TOKEN_CLS", names),
        splits,
        tokenizer,
        scoring := TagScoring(names),
        recipe.source,
        {"data_collator": DataCollatorForTokenClassification(tokenizer), "compute_metrics": scoring.on_the_way},
        language="zh" if recipe.source == recipe.embedded else None,
        noted={"left_out": lost.removeprefix("; ")} if lost else {},
    )


def tokenised(splits: DatasetDict, tokenizer: PreTrainedTokenizerBase, max_length: int) -> tuple[DatasetDict, str]:
    """Turn tokens into a model's pieces; the first piece of a token has its tag, the others have no label.

    Args:
        splits: with ``tokens`` and ``tags``.
        tokenizer: of the models.
        max_length: longer rows are cut to this many pieces.

    Returns:
        The rows, with ``labels``; and how many tokens have no piece, in words, empty where there are none.

    Raises:
        ValueError: the tokenizer cannot say which piece is of which token.
    """
    if not tokenizer.is_fast:
        raise ValueError(
            f"{type(tokenizer).__name__} cannot say which piece is of which token: use a model with a fast tokenizer."
        )

    def encode(rows: dict[str, list]) -> dict[str, list]:
        pieces = tokenizer(rows["tokens"], is_split_into_words=True, truncation=True, max_length=max_length)
        labels = []
        for row, tags in enumerate(rows["tags"]):
            words = pieces.word_ids(row)
            before = [None, *words[:-1]]
            labels.append(
                [
                    NO_LABEL if word is None or word == last else tags[word]
                    for word, last in zip(words, before, strict=True)
                ]
            )
        return {**pieces, "labels": labels}

    sizes = {name: sum(map(len, rows["tokens"][:])) for name, rows in splits.items()}
    made = splits.map(encode, batched=True, remove_columns=["tokens", "tags"], desc="tokenising")
    lost = {
        name: sizes[name] - sum(label != NO_LABEL for labels in rows["labels"][:] for label in labels)
        for name, rows in made.items()
    }
    if not any(lost.values()):
        return made, ""
    counted = ", ".join(f"{count:,} of {sizes[name]:,} {name}" for name, count in lost.items())
    return made, f"; {counted} tokens are behind max_length or of no piece, and neither taught nor measured"


if __name__ == "__main__":
    try:
        main()
        PartialState().destroy_process_group()
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"error: {' '.join(str(error).split())}")
