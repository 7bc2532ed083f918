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
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState
from chinese_pinyin import pinyin
from chinese_words import load_words
from datasets import Dataset, DatasetDict
from generation import Bench, Writes, begin, gained, make_teacher, measured, speed_batches, teach, write
from generation_data import GenerationArguments, check_columns, load_splits, shared_tokenizer, text_tokenizer
from recipe_run import FAST_BF16, ON_CPU, say, settings
from transformers import (
    AutoModelForSeq2SeqLM,
    DataCollatorForSeq2Seq,
    EvalPrediction,
    MarianConfig,
    MarianMTModel,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from writing_scores import COLUMNS, METRICS, text_scores

from hf_distill import Seq2SeqDistillationTrainer, Seq2SeqDistillationTrainingArguments
from hf_distill.parsing import parse_arguments
from hf_distill.sharding import unsharded

ROOT = Path("outputs/translation")
EMBEDDED_ROWS, EMBEDDED_TEST_ROWS, SYLLABLES = 40_000, 2_000, 3_000
SPEED_ROWS = 256


@dataclass
class TranslationArguments(GenerationArguments):
    """The columns, and what is particular to this recipe; the data's and the models' arguments are inherited."""

    source_column: str = field(default="source", metadata={"help": "The column with the text that is read."})
    target_column: str = field(default="target", metadata={"help": "The column with the text to be written."})
    language: str | None = field(default=None, metadata={"help": "Of what is written, for the card: en, zh, ..."})
    tones: bool = field(default=True, metadata={"help": "Write the embedded words' pinyin with tones: zhong1 guo2."})
    teacher_layers: int = field(default=2, metadata={"help": "Layers of a teacher trained here, and its decoder's."})
    teacher_hidden_size: int = field(default=128, metadata={"help": "Its width, in heads of 64."})
    teacher_learning_rate: float = field(default=2e-3, metadata={"help": "Its peak learning rate."})
    teacher_dropout: float = field(
        default=0.0, metadata={"help": "Of a teacher that is trained from nothing, and of a student of its kind."}
    )
    student_decoder_layers: int | None = field(
        default=None, metadata={"help": "With student_from_teacher. Default: as many as its encoder has."}
    )
    max_source_length: int = field(default=128, metadata={"help": "Longer texts are cut to this many tokens."})
    max_target_length: int = field(default=128, metadata={"help": "The same, and what is written ends there."})


@dataclass
class TranslationTrainingArguments(Seq2SeqDistillationTrainingArguments):
    """The recipe's own defaults; every field of Seq2SeqTrainingArguments can be set."""

    output_dir: str = str(ROOT)
    alpha: float | None = 0.9
    temperature: float = 1.0
    teacher_cache: str = "off"  # to keep a distribution for each token takes longer than to ask a small teacher again
    per_device_train_batch_size: int = 64
    per_device_eval_batch_size: int = 128
    learning_rate: float = 4e-3
    num_train_epochs: float = 2.0
    warmup_steps: float = 0.1
    logging_steps: float = 100
    predict_with_generate: bool = True
    use_cpu: bool = ON_CPU
    bf16: bool = FAST_BF16
    dataloader_pin_memory: bool = not ON_CPU
    save_strategy: str = "epoch"
    save_total_limit: int | None = 1


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Run the recipe.

    Args:
        argv: flags, or a YAML or JSON file with flags that override it; None takes the command line.

    Returns:
        What ``report.json`` holds.
    """
    started = time.time()
    recipe, args = parse_arguments([TranslationArguments, TranslationTrainingArguments], argv)
    root = begin(recipe, args, ROOT)
    if recipe.source is None and recipe.train_file is None:
        recipe.max_train_samples = recipe.max_train_samples or EMBEDDED_ROWS
        recipe.max_eval_samples = recipe.max_eval_samples or EMBEDDED_TEST_ROWS
    with args.main_process_first(desc="reading the rows"):
        splits, empty = load_pairs(recipe, args.seed)
    left_out = f"; left out without a source or a target: {', '.join(empty)}" if empty else ""
    say(args, ", ".join(f"{len(rows):,} {name}" for name, rows in splits.items()) + f" rows{left_out}")

    tokenizer = shared_tokenizer(recipe, lambda: made_tokenizer(recipe, splits["train"]))
    with args.main_process_first(desc="tokenising"):
        encoded = tokenised(splits, tokenizer, recipe)
    if args.generation_max_length is None:  # as much as was ever taught, behind the decoder's first token
        args.generation_max_length = 1 + max(map(len, encoded["train"]["labels"]))
    references = splits["test"]["target"][:]

    def scored(found: EvalPrediction) -> dict[str, float]:
        scores, each = text_scores(decoded(tokenizer, found.predictions), decoded(tokenizer, found.label_ids))
        return {**scores, **{name: float(one.mean()) for name, one in each.items()}}

    def make(model: PreTrainedModel, args: TranslationTrainingArguments, teacher: Any) -> Seq2SeqDistillationTrainer:
        return Seq2SeqDistillationTrainer(
            model,
            replace(args),  # made anew: under DeepSpeed each Trainer of a process needs a configuration of its own
            data_collator=DataCollatorForSeq2Seq(tokenizer),
            train_dataset=encoded["train"],
            eval_dataset=encoded["validation"],
            processing_class=tokenizer,
            compute_metrics=scored,
            teacher_model=teacher,
        )

    bench = Bench(recipe, args, root, AutoModelForSeq2SeqLM, make, recipe.student_decoder_layers)
    teacher = make_teacher(bench, encoded["train"], lambda: blank(recipe, tokenizer))
    trainers = teach(bench, teacher)
    student = trainers["distilled"]
    told = make(unsharded(student.teacher.model), settings(args, "_teacher_writes", rollout=None), None)
    trainers = {"teacher": told, **trainers}

    say(args, "measuring")
    for one in trainers.values():
        one.args.train_sampling_strategy = "random"  # with group_by_length Trainer draws the test rows' order as well
    # Over several processes Trainer may repeat rows behind the last one, to give each process as many.
    found = {name: one.predict(encoded["test"]).predictions[: len(references)] for name, one in trainers.items()}
    texts = {name: decoded(tokenizer, one) for name, one in found.items()}
    batches = speed_batches(student, encoded["test"], SPEED_ROWS)
    models, rows = [], {}
    for name, one in trainers.items():
        model, (whole_text, each) = unsharded(one.model).to(args.device), text_scores(texts[name], references)
        each["agreement"] = [float(a == b) for a, b in zip(texts[name], texts["teacher"], strict=True)]
        writes = Writes(model, args.generation_max_length)
        models.append({**measured(name, model, batches, each, writes), **whole_text})
        rows[name] = each["chrf"]
    found = {
        "dataset": recipe.source or "jieba dictionary, pinyin",
        "language": recipe.language or ("zh" if recipe.source is None else None),
        "models": models,
        **gained(rows),
        "metrics": METRICS,
        "rows": {name: len(split) for name, split in splits.items()},
        "settings": {n: getattr(args, n) for n in ("alpha", "temperature", "objective", "rollout", "seed")},
        "examples": [{n: t[i] for n, t in texts.items()} | splits["test"][i] for i in range(min(5, len(references)))],
        "seconds": round(time.time() - started, 1),
    }
    found["summary"] += " (chrF)" if found["gap"] else ""
    if student.is_world_process_zero():
        write(student, found, COLUMNS, ("chrf", "test chrF"))
    if args.push_to_hub:
        student.push_to_hub()
    return found


def load_pairs(recipe: TranslationArguments, seed: int) -> tuple[DatasetDict, list[str]]:
    """Load the splits with the columns ``source`` and ``target``, and say in how many rows of each one is empty."""
    splits, empty = load_splits(recipe, load_words, seed), []
    if recipe.source is None:
        return splits.map(
            lambda row: {"source": row["text"], "target": pinyin(row["text"], recipe.tones)},
            remove_columns=splits["train"].column_names,
        ), empty
    splits = splits.flatten()  # the Hub's sets of translations have one column with both languages
    columns = [recipe.source_column, recipe.target_column]
    check_columns(splits, columns, "--source_column and --target_column")
    names = dict(zip(columns, ("source", "target"), strict=True))
    for name, rows in splits.items():
        rows = rows.select_columns(columns).rename_columns({a: b for a, b in names.items() if a != b})
        kept = rows.filter(lambda row: bool(row["source"]) and bool(row["target"]))
        empty += [f"{len(rows) - len(kept)} {name}"] if len(kept) < len(rows) else []
        if not len(kept):
            raise ValueError(f"none of the {len(rows)} {name} rows has both texts, {columns}: give rows with both.")
        splits[name] = kept
    return splits, empty


def made_tokenizer(recipe: TranslationArguments, rows: Dataset) -> PreTrainedTokenizerBase:
    """Make one tokenizer of both texts; of the embedded words a token is a character, or a syllable of pinyin."""
    if recipe.source is not None:
        return text_tokenizer([*rows["source"], *rows["target"]], recipe.vocab_size)
    characters = sorted({character for text in rows["source"] for character in text})
    return text_tokenizer(rows["target"][:], len(characters) + SYLLABLES, alphabet=characters)


def blank(recipe: TranslationArguments, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """Make an untrained teacher: a Marian with as many layers in its decoder as in its encoder.

    Its sinusoidal positions tell random weights soon which word of the source is to be written next; a T5, whose
    decoder is not told the positions in the source, does not look at it in as many steps.
    """
    width, layers, pad = recipe.teacher_hidden_size, recipe.teacher_layers, tokenizer.pad_token_id
    heads, longest = max(1, width // 64), max(512, recipe.max_source_length, recipe.max_target_length)
    shape = MarianConfig(
        vocab_size=len(tokenizer), d_model=width, encoder_layers=layers, decoder_layers=layers,
        encoder_attention_heads=heads, decoder_attention_heads=heads, encoder_ffn_dim=4 * width,
        decoder_ffn_dim=4 * width, max_position_embeddings=longest, activation_function="relu", scale_embedding=True,
        dropout=recipe.teacher_dropout, pad_token_id=pad, decoder_start_token_id=pad,
        eos_token_id=tokenizer.eos_token_id, forced_eos_token_id=None,
    )  # fmt: skip
    return MarianMTModel(shape)


def tokenised(splits: DatasetDict, tokenizer: PreTrainedTokenizerBase, recipe: TranslationArguments) -> DatasetDict:
    """Turn both texts into token ids, in batches, with a progress bar for each split."""

    def encode(rows: dict[str, list]) -> dict[str, list]:
        read = tokenizer(rows["source"], truncation=True, max_length=recipe.max_source_length)
        written = tokenizer(text_target=rows["target"], truncation=True, max_length=recipe.max_target_length)
        columns = ("input_ids", "attention_mask")
        return {**{name: read[name] for name in columns}, "labels": written["input_ids"]}

    return splits.map(encode, batched=True, remove_columns=["source", "target"], desc="tokenising")


def decoded(tokenizer: PreTrainedTokenizerBase, ids: np.ndarray) -> list[str]:
    """Turn token ids back into texts; Trainer fills short rows with -100."""
    filled = np.where(ids == -100, tokenizer.pad_token_id, ids)
    return [text.strip() for text in tokenizer.batch_decode(filled, skip_special_tokens=True)]


if __name__ == "__main__":
    try:
        main()
        PartialState().destroy_process_group()
    except (ValueError, ImportError) as error:
        sys.exit(f"error: {error}")
