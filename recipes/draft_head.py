# /// script
# requires-python = ">=3.11"
# dependencies = ["hf_distill[recipes]"]
# ///
"""Train a draft head for speculative decoding, and see what it saves where its teacher writes.

    accelerate launch recipes/draft_head.py                                     # Python documentation, embedded
    accelerate launch recipes/draft_head.py --train_file texts.jsonl --teacher_model_name_or_path my/llama
    accelerate launch recipes/draft_head.py recipes/draft_head.yaml --hub_model_id me/draft

It trains a teacher (or takes one), a head that reads what its teacher saw (EAGLE-3), and a plain layer that does not;
then it writes a table, ``report.json`` and the model card beside the head's weights, which vLLM and SGLang load as an
EAGLE-3 draft.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from transformers import AutoModelForCausalLM, DataCollatorForSeq2Seq

from hf_distill.experiments import ModelKind, Recipe, run, say, shared_tokenizer
from hf_distill.experiments.assisted_generation import prompts
from hf_distill.experiments.causal_lm import blank_llama
from hf_distill.experiments.data.chats import encoded, load_texts_or_chats, texts_in
from hf_distill.experiments.data.files import DataArguments, described
from hf_distill.experiments.data.python_prose import load_sentences
from hf_distill.experiments.draft_head import NOTE, DraftScoring
from hf_distill.experiments.drafts import DraftArguments, DraftExperiment
from hf_distill.experiments.settings import RecipeTrainingArguments
from hf_distill.experiments.tokenizers import text_tokenizer


@dataclass
class Arguments(DraftArguments, DataArguments):
    """The columns; the data's and the models' arguments are inherited."""

    embedded: ClassVar[str] = "Python documentation"

    text_column: str = field(default="text", metadata={"help": "The column with whole texts."})
    messages_column: str = field(
        default="messages",
        metadata={"help": "The column with conversations; where it is there, the last answer of each is learned."},
    )
    language: str | None = field(default=None, metadata={"help": "Of the texts, for the card: en, zh, ..."})
    max_length: int = field(default=64, metadata={"help": "Longer rows are cut to this many tokens."})


@dataclass
class TrainingArguments(RecipeTrainingArguments):
    """The recipe's own defaults; every argument of Trainer can be set."""

    output_dir: str = "outputs/draft_head"
    alpha: float | None = 1.0
    temperature: float = 1.0
    objective: dict | str | None = None
    per_device_train_batch_size: int = 32
    per_device_eval_batch_size: int = 32
    num_train_epochs: float = 1.0
    save_strategy: str = "no"


def experiment(recipe: Arguments, args: TrainingArguments, root: Path) -> DraftExperiment:
    """Read the rows, and say which drafts learn from them.

    Args:
        recipe: the data and the models.
        args: of the drafts' training.
        root: where a teacher that is trained here is kept.
    """
    if recipe.source == recipe.embedded and recipe.max_train_samples is None:
        recipe.max_train_samples = 5000  # the run without an argument is to take less than five minutes
    with args.main_process_first(desc="reading the rows"):
        columns = recipe.text_column, recipe.messages_column
        given, column, chat = load_texts_or_chats(recipe, args.seed, *columns, load_sentences)
        tokenizer = shared_tokenizer(
            recipe, lambda: text_tokenizer(texts_in(given["train"], column, chat), begins=True)
        )
        rows, left_out = encoded(given, tokenizer, column, chat, recipe.max_length)
    nothing = f"; left out with nothing to learn: {', '.join(left_out)}" if left_out else ""
    say(args, f"{recipe.source}: {described(rows, recipe.tested)}{nothing}")
    written = prompts(rows["test"], recipe.prompts, recipe.prompt_tokens)
    return DraftExperiment(
        recipe,
        args,
        root,
        ModelKind(AutoModelForCausalLM, "CAUSAL_LM", blank=blank_llama),
        rows,
        tokenizer,
        DraftScoring(written, recipe.new_tokens, recipe.unrolled),
        {"data_collator": DataCollatorForSeq2Seq(tokenizer)},
        language=recipe.language or ("en" if recipe.source == recipe.embedded else None),
        notes={"note": NOTE},
    )


RECIPE = Recipe(Arguments, TrainingArguments, experiment, labelled=False)

if __name__ == "__main__":
    run(RECIPE)
