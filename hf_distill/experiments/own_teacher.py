"""What makes two teachers different that are trained here: each is kept, and is found again by what it was trained on.

Knows: rows, the settings that shape a training. Does not know: how a teacher is trained, students.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from datasets import Dataset, Image

from hf_distill.experiments.settings import RecipeTrainingArguments

READ = ("input_ids", "label", "labels", "start_positions", "end_positions", "objects", "question", "answer")
"""The columns whose content makes a teacher that is trained on them another one."""

SHAPES = (
    "seed", "data_seed", "per_device_train_batch_size", "gradient_accumulation_steps", "max_steps", "optim",
    "optim_args", "adam_beta1", "adam_beta2", "adam_epsilon", "weight_decay", "max_grad_norm", "lr_scheduler_type",
    "lr_scheduler_kwargs", "warmup_steps", "label_smoothing_factor", "neftune_noise_alpha", "train_sampling_strategy",
    "bf16", "fp16",
)  # fmt: skip
"""Trainer's arguments that make a training of the same rows another one, beside its learning rate and epochs."""


def identity(recipe: Any, args: RecipeTrainingArguments, rows: Dataset, tokenizer: Any) -> Mapping[str, Any]:
    """Say what a teacher is trained on: other settings make another one, and none is ever written over.

    Args:
        recipe: the recipe's own arguments.
        args: of the student's training.
        rows: what it learns from.
        tokenizer: of all models; of those that read images their processor.

    Returns:
        What JSON holds of it; its hash names the folder.
    """
    read = [rows[column][:] for column in READ if column in rows.column_names]
    for column in ("image", "map"):
        if column in rows.column_names:
            read.append(content_of(rows.select_columns(column).cast_column(column, Image(decode=False))))
    if "audio" in rows.column_names:
        read.append(content_of(rows.select_columns("audio")))
        read += [rows["text"][:] if "text" in rows.column_names else None, tokenizer.to_json_string()]
    return {
        "rows": hashlib.sha256(repr(read).encode()).hexdigest(),
        "vocabulary": len(tokenizer) if hasattr(tokenizer, "__len__") else None,
        **{n: value for n, value in asdict(recipe).items() if n.startswith(("teacher", "finetune", "max", "mlm"))},
        **{name: getattr(args, name) for name in SHAPES},
    }


def content_of(rows: Dataset) -> str:
    """Hash the images or recordings of a data set, one after the other: together they may be larger than memory.

    Args:
        rows: with one column of them, not decoded.
    """
    state = hashlib.sha256()
    for image in (image for row in rows for image in row.values()):
        if image is None:  # a map that nobody drew
            state.update(b"none")
        else:
            state.update(Path(image["path"]).read_bytes() if image["bytes"] is None else image["bytes"])
    return state.hexdigest()
