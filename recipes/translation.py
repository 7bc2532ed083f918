# /// script
# requires-python = ">=3.11"
# dependencies = ["hf_distill[recipes]"]
# ///
"""Distil an encoder-decoder that writes one text from another, and prove what the teacher gave.

    accelerate launch recipes/translation.py                                    # Chinese words to pinyin, embedded
    accelerate launch recipes/translation.py --rollout '{"seq_kd": 1.0}'        # and on texts that the teacher writes
    accelerate launch recipes/translation.py --train_file pairs.jsonl --source_column de --target_column en
    accelerate launch recipes/translation.py recipes/translation.yaml --hub_model_id me/student

It trains a teacher (or takes one), the student alone, and the same student under the teacher; all three then write the
test rows, and a table, ``report.json``, a picture and the model card stand beside the student's weights.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from datasets import DatasetDict
from transformers import AutoModelForSeq2SeqLM, DataCollatorForSeq2Seq, PreTrainedTokenizerBase

from hf_distill import Seq2SeqDistillationTrainer, Seq2SeqDistillationTrainingArguments
from hf_distill.experiments import Experiment, ModelArguments, ModelKind, Recipe, run, say, shared_tokenizer
from hf_distill.experiments.data.files import DataArguments, described
from hf_distill.experiments.data.pairs import load_pairs
from hf_distill.experiments.settings import RecipeTrainingArguments
from hf_distill.experiments.tokenizers import pair_tokenizer
from hf_distill.experiments.translation import TranslationScoring, blank_marian

EMBEDDED_ROWS, EMBEDDED_TEST_ROWS = 40_000, 2_000


@dataclass
class Arguments(ModelArguments, DataArguments):
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
class TrainingArguments(RecipeTrainingArguments, Seq2SeqDistillationTrainingArguments):
    """The recipe's own defaults; every argument of Seq2SeqTrainer can be set."""

    output_dir: str = "outputs/translation"
    temperature: float = 1.0
    objective: dict | str | None = None
    teacher_cache: str = "off"  # to keep a distribution for each token takes longer than to ask a small teacher again
    per_device_train_batch_size: int = 64
    per_device_eval_batch_size: int = 128
    learning_rate: float = 4e-3
    predict_with_generate: bool = True


def experiment(recipe: Arguments, args: TrainingArguments, root: Path) -> Experiment:
    """Read the pairs, and say which models learn from them."""
    if own := recipe.source == recipe.embedded:
        recipe.max_train_samples = recipe.max_train_samples or EMBEDDED_ROWS
        recipe.max_eval_samples = recipe.max_eval_samples or EMBEDDED_TEST_ROWS
    with args.main_process_first(desc="reading the rows"):
        pairs, empty = load_pairs(recipe, args.seed, [recipe.source_column, recipe.target_column], recipe.tones)
    left_out = f"left out without a source or a target: {', '.join(empty)}" if empty else ""
    say(args, f"{recipe.source}: {described(pairs, recipe.tested)}{left_out and '; '}{left_out}")
    tokenizer = shared_tokenizer(
        recipe, lambda: pair_tokenizer(pairs["train"], recipe.vocab_size, pinyin=own), aligned=True
    )
    with args.main_process_first(desc="tokenising"):
        splits = tokenised(pairs, tokenizer, recipe)
    if args.generation_max_length is None:  # as much as was ever taught, behind the decoder's first token
        args.generation_max_length = 1 + max(map(len, splits["train"]["labels"]))
    layers = recipe.student_decoder_layers
    return Experiment(
        recipe,
        args,
        root,
        ModelKind(AutoModelForSeq2SeqLM, "SEQ_2_SEQ_LM", blank=blank_marian, decoder_layers=layers),
        splits,
        tokenizer,
        scoring := TranslationScoring(tokenizer, pairs["test"]),
        {"data_collator": DataCollatorForSeq2Seq(tokenizer), "compute_metrics": scoring.compute_metrics},
        language=recipe.language or ("zh" if own else None),
        notes={"left_out": left_out} if left_out else {},
        trainer_class=Seq2SeqDistillationTrainer,
    )


def tokenised(splits: DatasetDict, tokenizer: PreTrainedTokenizerBase, recipe: Arguments) -> DatasetDict:
    """Turn both texts into token ids, in batches, with a progress bar for each split."""

    def encode(rows: dict[str, list]) -> dict[str, list]:
        read = tokenizer(rows["source"], truncation=True, max_length=recipe.max_source_length)
        written = tokenizer(text_target=rows["target"], truncation=True, max_length=recipe.max_target_length)
        return {**{name: read[name] for name in ("input_ids", "attention_mask")}, "labels": written["input_ids"]}

    return splits.map(encode, batched=True, remove_columns=["source", "target"], desc="tokenising")


RECIPE = Recipe(Arguments, TrainingArguments, experiment)

if __name__ == "__main__":
    run(RECIPE)
