"""Distil an encoder-decoder that writes one text from another, and prove what the teacher gave.

    accelerate launch recipes/translation.py                                    # Chinese words to pinyin, embedded
    accelerate launch recipes/translation.py --rollout '{"seq_kd": 1.0}'        # and on texts that the teacher writes
    accelerate launch recipes/translation.py --train_file pairs.jsonl --source_column de --target_column en
    accelerate launch recipes/translation.py recipes/translation.yaml --hub_model_id me/student

It trains a teacher (or takes one), the student alone, and the same student under the teacher; all three then write the
test rows, and a table, ``report.json``, a picture and the model card stand beside the student's weights.

Knows: pairs of texts, how writing is scored. Does not know: how a loss is computed or a report is written.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from accelerate import PartialState
from chinese_pinyin import pinyin
from chinese_words import load_words
from data_files import DataArguments, check_columns, limited, read_splits
from datasets import Dataset, DatasetDict
from recipe_run import RecipeTrainingArguments as Defaults
from recipe_run import begin, say
from text_data import described
from text_tokenizer import text_tokenizer
from three_models import Job, distil
from transformers import AutoModelForSeq2SeqLM, DataCollatorForSeq2Seq, MarianConfig, PreTrainedTokenizerBase
from two_models import Kind, ModelArguments, shared_tokenizer
from writing_scores import Writing

from hf_distill import Seq2SeqDistillationTrainer, Seq2SeqDistillationTrainingArguments
from hf_distill.cli.text_rows import as_texts

ROOT = Path("outputs/translation")
EMBEDDED_ROWS, EMBEDDED_TEST_ROWS, SYLLABLES = 40_000, 2_000, 3_000


@dataclass
class RecipeArguments(ModelArguments, DataArguments):
    """The columns, and what is particular to this recipe; the data's and the models' arguments are inherited."""

    embedded: ClassVar[str] = "jieba dictionary, pinyin"

    teacher_layers: int = field(default=2, metadata={"help": "Layers of a teacher trained here, and its decoder's."})
    teacher_hidden_size: int = field(default=128, metadata={"help": "Its width, in heads of 64."})
    teacher_epochs: float = field(default=3.0, metadata={"help": "Epochs of training or fine-tuning the teacher."})
    teacher_learning_rate: float = field(default=2e-3, metadata={"help": "Its peak learning rate."})
    teacher_dropout: float = field(
        default=0.0, metadata={"help": "Of a teacher that is trained from nothing, and of a student of its kind."}
    )
    student_hidden_size: int = field(default=64, metadata={"help": "Its width, in heads of 64."})
    vocab_size: int = field(
        default=0, metadata={"help": "Tokens of a tokenizer made here, by byte-pair encoding. Default: characters."}
    )
    source_column: str = field(default="source", metadata={"help": "The column with the text that is read."})
    target_column: str = field(default="target", metadata={"help": "The column with the text to be written."})
    language: str | None = field(default=None, metadata={"help": "Of what is written, for the card: en, zh, ..."})
    tones: bool = field(default=True, metadata={"help": "Write the embedded words' pinyin with tones: zhong1 guo2."})
    student_decoder_layers: int | None = field(
        default=None, metadata={"help": "With student_from_teacher. Default: as many as its encoder has."}
    )
    max_source_length: int = field(default=128, metadata={"help": "Longer texts are cut to this many tokens."})
    max_target_length: int = field(default=128, metadata={"help": "The same, and what is written ends there."})


@dataclass
class RecipeTrainingArguments(Defaults, Seq2SeqDistillationTrainingArguments):
    """The recipe's own defaults; every field of Seq2SeqTrainingArguments can be set."""

    output_dir: str = str(ROOT)
    temperature: float = 1.0
    objective: dict | str | None = None
    teacher_cache: str = "off"  # to keep a distribution for each token takes longer than to ask a small teacher again
    per_device_train_batch_size: int = 64
    per_device_eval_batch_size: int = 128
    learning_rate: float = 4e-3
    predict_with_generate: bool = True


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
    if recipe.source == recipe.embedded:
        recipe.max_train_samples = recipe.max_train_samples or EMBEDDED_ROWS
        recipe.max_eval_samples = recipe.max_eval_samples or EMBEDDED_TEST_ROWS
    with args.main_process_first(desc="reading the rows"):
        pairs, empty = load_pairs(recipe, args.seed)
    left_out = f"; left out without a source or a target: {', '.join(empty)}" if empty else ""
    say(args, f"{recipe.source}: {described(pairs, recipe.tested)}{left_out}")
    tokenizer = shared_tokenizer(recipe, lambda: made_tokenizer(recipe, pairs["train"]), aligned=True)
    with args.main_process_first(desc="tokenising"):
        splits = tokenised(pairs, tokenizer, recipe)
    if args.generation_max_length is None:  # as much as was ever taught, behind the decoder's first token
        args.generation_max_length = 1 + max(map(len, splits["train"]["labels"]))
    return Job(
        recipe,
        args,
        root,
        Kind(AutoModelForSeq2SeqLM, "SEQ_2_SEQ_LM", blank=blank_marian, decoder_layers=recipe.student_decoder_layers),
        splits,
        tokenizer,
        scoring := Writing(tokenizer, pairs["test"]),
        recipe.source,
        {"data_collator": DataCollatorForSeq2Seq(tokenizer), "compute_metrics": scoring.on_the_way},
        language=recipe.language or ("zh" if recipe.source == recipe.embedded else None),
        noted={"left_out": left_out.removeprefix("; ")} if left_out else {},
        trainer_class=Seq2SeqDistillationTrainer,
    )


def load_pairs(recipe: RecipeArguments, seed: int) -> tuple[DatasetDict, list[str]]:
    """Load the splits with the columns ``source`` and ``target``, and say in how many rows of each one is empty."""
    splits, empty = limited(recipe, read_splits(recipe, seed, load_words), seed), []
    if recipe.source == recipe.embedded:
        return splits.map(
            lambda row: {"source": row["text"], "target": pinyin(row["text"], recipe.tones)},
            remove_columns=splits["train"].column_names,
        ), empty
    splits = splits.flatten()  # the Hub's sets of translations have one column with both languages
    columns = [recipe.source_column, recipe.target_column]
    check_columns(recipe, splits, columns, "--source_column and --target_column")
    names = dict(zip(columns, ("source", "target"), strict=True))
    for name, rows in splits.items():
        rows = as_texts(rows, columns, f"the {name} rows of {recipe.source}")
        rows = rows.select_columns(columns).rename_columns({a: b for a, b in names.items() if a != b})
        kept = rows.filter(lambda row: bool(row["source"]) and bool(row["target"]))
        empty += [f"{len(rows) - len(kept)} {name}"] if len(kept) < len(rows) else []
        if not len(kept):
            raise ValueError(f"none of the {len(rows)} {name} rows has both texts, {columns}: give rows with both.")
        splits[name] = kept
    return splits, empty


def made_tokenizer(recipe: RecipeArguments, rows: Dataset) -> PreTrainedTokenizerBase:
    """Make one tokenizer of both texts; of the embedded words a token is a character, or a syllable of pinyin."""
    if recipe.source != recipe.embedded:
        return text_tokenizer([*rows["source"], *rows["target"]], recipe.vocab_size)
    characters = sorted({character for text in rows["source"] for character in text})
    return text_tokenizer(rows["target"][:], len(characters) + SYLLABLES, alphabet=characters)


def blank_marian(recipe: RecipeArguments, tokenizer: PreTrainedTokenizerBase) -> MarianConfig:
    """Shape a teacher that is trained from nothing, with as many layers in its decoder as in its encoder.

    Its sinusoidal positions tell random weights soon which word of the source is to be written next; a T5, whose
    decoder is not told the positions in the source, does not look at it in as many steps.

    Args:
        recipe: its sizes.
        tokenizer: of its vocabulary.
    """
    width, layers, pad = recipe.teacher_hidden_size, recipe.teacher_layers, tokenizer.pad_token_id
    heads, longest = max(1, width // 64), max(512, recipe.max_source_length, recipe.max_target_length)
    return MarianConfig(
        vocab_size=len(tokenizer), d_model=width, encoder_layers=layers, decoder_layers=layers,
        encoder_attention_heads=heads, decoder_attention_heads=heads, encoder_ffn_dim=4 * width,
        decoder_ffn_dim=4 * width, max_position_embeddings=longest, activation_function="relu", scale_embedding=True,
        dropout=recipe.teacher_dropout, pad_token_id=pad, decoder_start_token_id=pad,
        eos_token_id=tokenizer.eos_token_id, forced_eos_token_id=None,
    )  # fmt: skip


def tokenised(splits: DatasetDict, tokenizer: PreTrainedTokenizerBase, recipe: RecipeArguments) -> DatasetDict:
    """Turn both texts into token ids, in batches, with a progress bar for each split."""

    def encode(rows: dict[str, list]) -> dict[str, list]:
        read = tokenizer(rows["source"], truncation=True, max_length=recipe.max_source_length)
        written = tokenizer(text_target=rows["target"], truncation=True, max_length=recipe.max_target_length)
        columns = ("input_ids", "attention_mask")
        return {**{name: read[name] for name in columns}, "labels": written["input_ids"]}

    return splits.map(encode, batched=True, remove_columns=["source", "target"], desc="tokenising")


if __name__ == "__main__":
    try:
        main()
        PartialState().destroy_process_group()
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"error: {' '.join(str(error).split())}")
