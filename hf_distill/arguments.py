"""What a user may set: the distillation fields, mixed into TrainingArguments.

Knows: names, defaults, validity. Does not know: models, data, how a field is used.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import Seq2SeqTrainingArguments, TrainingArguments

from hf_distill.augmentation import TransferArguments
from hf_distill.objectives import build
from hf_distill.objectives.presets import AUTO
from hf_distill.rollouts import RolloutArguments
from hf_distill.tasks.alignment.settings import AlignmentArguments
from hf_distill.tasks.reading import ReadingArguments
from hf_distill.training.alpha import TEMPERATURE
from hf_distill.training.fused_logits import FusionArguments
from hf_distill.training.quantized_student import QuantizationArguments
from hf_distill.training.reader import ReaderArguments
from hf_distill.training.shared_encoder import SharingArguments
from hf_distill.training.whole_step import NegativesArguments

LOWER = re.compile(r"(^|_)(kl|perplexity|wer|cer|mse)$|(^|_)loss/")
"""What an evaluation says that is better the lower it is: ``eval_kl``, ``eval_wer``, ``eval_loss/hard``, ..."""


@dataclass
class DistillationArguments(
    AlignmentArguments,
    RolloutArguments,
    TransferArguments,
    FusionArguments,
    SharingArguments,
    NegativesArguments,
    ReadingArguments,
    ReaderArguments,
    QuantizationArguments,
):
    """The fields that distillation adds to ``TrainingArguments``.

    Each is a plain value, so that a command line, a YAML file and a hyperparameter search can all set it.

    Args:
        alpha: the teacher's share of the loss, ``(1 - alpha) * hard + alpha * soft``, from 0 (plain fine-tuning) to 1
            (no labels needed). None means 0.5 with a teacher and 0 without.
        temperature: softens both distributions where a term is not given its own; greater than 0.
        objective: what to learn from the teacher: a name (``forward_kl``), ``module:Name``, or a mapping from names
            to weights or options, written as JSON on a command line. None means the task's own: forward KL between
            distributions, mean squared error between regression predictions. ``auto`` adds hidden states to it where
            both models have them; see ``objectives.presets``.
        teacher_dtype: the precision of the teacher's weights and computation: ``float32``, ``bfloat16``, ``float16``
            or ``auto``, the run's own. None leaves the weights as they are and runs them under the student's autocast.
        teacher_quantization: quantise the teacher while it is loaded from its path: ``bitsandbytes_8bit``,
            ``bitsandbytes_4bit``, ``torchao_int8``, or a mapping with ``quant_method``, as JSON on a command line.
        teacher_cache: ``auto`` keeps a model's answers in memory if the run sees rows more than once, ``off`` asks
            each time, anything else is a folder in which the answers are kept for the next run too.
        teacher_cache_gb: how many 10**9 bytes of memory kept answers may take, in each process.
        teacher_whole_window: run the teacher once for all micro-batches of an optimizer step.
        teacher_prepass: run the teacher for all training rows before the first step, sorted by length: faster where
            rows are padded, and one rounding off what it would have answered in training order.

        augmentation, rollout, teacher_alignment, fused_logits, share_encoder, accumulate_negatives, reads_teacher,
            reader, student_quantization: see ``TransferArguments``, ``RolloutArguments``, ``AlignmentArguments``,
            ``FusionArguments``, ``SharingArguments``, ``NegativesArguments``, ``ReadingArguments``,
            ``ReaderArguments`` and ``QuantizationArguments``.

    Raises:
        ValueError: a value that cannot be used.

    Example:
        >>> DistillationArguments(alpha=1.5)
        Traceback (most recent call last):
        ...
        ValueError: alpha=1.5 was given: it is the teacher's share of the loss, give a number from 0 to 1.
    """

    alpha: float | None = field(
        default=None,
        metadata={"help": "The teacher's share of the loss, 0 to 1. Default: 0.5 with a teacher, 0 without."},
    )
    temperature: float = field(
        default=TEMPERATURE,
        metadata={"help": "Softens both distributions; greater than 0. KL terms carry its square."},
    )
    objective: dict | str | None = field(
        default=None,
        metadata={
            "help": "What to learn from the teacher: a name such as forward_kl, auto, 'module:Name', or JSON such as "
            '\'{"forward_kl": 1.0, "jsd": {"weight": 0.5, "beta": 0.1}}\'. Default: forward_kl; regression: logit_mse'
        },
    )

    teacher_dtype: str | None = field(
        default=None,
        metadata={
            "help": "The teacher's precision: float32, bfloat16, float16 or auto (the run's). Default: as it is."
        },
    )
    teacher_quantization: dict | str | None = field(
        default=None,
        metadata={
            "help": "Quantise the teacher while it is loaded: bitsandbytes_8bit, bitsandbytes_4bit, torchao_int8, or "
            "JSON with quant_method and its options."
        },
    )

    teacher_cache: str = field(
        default="auto",
        metadata={
            "help": "auto: keep the teacher's answers in memory if rows are seen more than once; off: ask each time; "
            "or a folder, in which they are kept for the next run too."
        },
    )
    teacher_cache_gb: float = field(
        default=4.0, metadata={"help": "Memory for kept answers, in 10**9 bytes, in each process."}
    )
    teacher_whole_window: bool = field(
        default=False, metadata={"help": "Run the teacher once for all micro-batches of an optimizer step."}
    )
    teacher_prepass: bool = field(
        default=False, metadata={"help": "Run the teacher for all training rows before the first step, by length."}
    )

    def __post_init__(self) -> None:
        """Check the values, then let ``TrainingArguments`` check its own."""
        mappings = ("objective", "teacher_quantization", "augmentation", "rollout", "reads_teacher", "reader")
        for name in (*mappings, "student_quantization"):
            if isinstance(value := getattr(self, name), str) and value.lstrip().startswith("{"):
                try:
                    setattr(self, name, json.loads(value))
                except json.JSONDecodeError as error:
                    raise ValueError(f"{name}={value!r} is not valid JSON ({error}): correct it.") from error
        if self.teacher_dtype not in (None, "auto", "float32", "bfloat16", "float16"):
            raise ValueError(
                f"teacher_dtype={self.teacher_dtype!r} is not known: use float32, bfloat16, float16 or auto."
            )
        if self.teacher_dtype and self.teacher_quantization:
            raise ValueError(
                f"teacher_dtype={self.teacher_dtype} and teacher_quantization={self.teacher_quantization!r} were both "
                "given: a quantised teacher has its own dtype, leave one of them out."
            )
        if self.teacher_cache is False:  # what YAML makes of a bare "off"
            self.teacher_cache = "off"
        if not self.teacher_cache or not isinstance(self.teacher_cache, str):
            raise ValueError(f"teacher_cache={self.teacher_cache!r} was given: use auto, off, or a folder.")
        if (folder := getattr(self, "output_dir", None)) is not None:
            check_folder("output_dir", folder)
        if not self.teacher_cache_gb > 0:
            raise ValueError(
                f"teacher_cache_gb={self.teacher_cache_gb} was given: give memory, or set teacher_cache=off."
            )
        check_blend(self.alpha, self.temperature)
        if self.objective not in (None, AUTO):
            build(self.objective)
        metric = getattr(self, "metric_for_best_model", None) or ""
        if LOWER.search(metric) and self.greater_is_better is None:  # Trainer knows that of names that end in "loss"
            self.greater_is_better = False
        if hasattr(super(), "__post_init__"):
            super().__post_init__()


@dataclass
class DistillationTrainingArguments(DistillationArguments, TrainingArguments):
    """``TrainingArguments`` with the fields of ``DistillationArguments``.

    Example:
        >>> DistillationTrainingArguments("out", alpha=0.9, learning_rate=1e-3, use_cpu=True).alpha
        0.9
    """


@dataclass
class Seq2SeqDistillationTrainingArguments(DistillationArguments, Seq2SeqTrainingArguments):
    """``Seq2SeqTrainingArguments`` with the fields of ``DistillationArguments``.

    Example:
        >>> Seq2SeqDistillationTrainingArguments("out", temperature=1.0, use_cpu=True).temperature
        1.0
    """


def check_folder(name: str, folder: str | Path) -> None:
    """Refuse a file where a folder is to be written, before anything is loaded or trained for it.

    Args:
        name: the argument's.
        folder: what it was given; it need not exist yet.

    Raises:
        ValueError: it, or a folder that it is in, is a file.

    Example:
        >>> check_folder("output_dir", Path(__file__) / "run")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        ValueError: output_dir=.../arguments.py/run was given, and .../arguments.py is a file: name a folder.
    """
    there = next(part for part in (Path(folder), *Path(folder).absolute().parents) if part.exists())
    if not there.is_dir():
        raise ValueError(f"{name}={folder} was given, and {there} is a file: name a folder.")


def check_blend(alpha: float | None, temperature: float, teacher: bool = True) -> None:
    """Refuse an alpha or a temperature that cannot be used; a search may set them after construction.

    Args:
        alpha: from 0 to 1, or None.
        temperature: greater than 0.
        teacher: whether there is one.

    Raises:
        ValueError: in one sentence.
    """
    if alpha is not None and not 0 <= alpha <= 1:
        raise ValueError(f"alpha={alpha} was given: it is the teacher's share of the loss, give a number from 0 to 1.")
    if alpha and not teacher:
        raise ValueError(
            f"alpha={alpha} asks to learn from a teacher, there is none: pass teacher_model=, or set alpha=0."
        )
    if not (temperature > 0 and math.isfinite(temperature)):
        raise ValueError(f"temperature={temperature} was given: it divides the logits, give a number greater than 0.")


def cache_settings(args: TrainingArguments) -> dict[str, Any]:
    """Return how a teacher's answers are kept, as ``with_cache`` takes it.

    Args:
        args: with the distillation fields, or without: then their defaults.

    Example:
        >>> cache_settings(TrainingArguments("out", use_cpu=True))
        {'cache': 'auto', 'gb': 4.0, 'whole_window': False, 'prepass': False}
    """
    fields = {name: f"teacher_{name}" for name in ("cache", "cache_gb", "whole_window", "prepass")}
    given = {name: getattr(args, own, getattr(DistillationArguments, own)) for name, own in fields.items()}
    return {"gb" if name == "cache_gb" else name: value for name, value in given.items()}


def teacher_dtype(args: TrainingArguments) -> torch.dtype | None:
    """Return the precision that was asked for the teacher, with ``auto`` resolved.

    Args:
        args: the run's arguments, with or without the fields above.

    Example:
        >>> print(teacher_dtype(DistillationTrainingArguments("out", teacher_dtype="bfloat16", use_cpu=True)))
        torch.bfloat16
    """
    asked = getattr(args, "teacher_dtype", None)
    if asked == "auto":
        asked = "bfloat16" if args.bf16 else "float16" if args.fp16 else None
    return None if asked is None else getattr(torch, asked)
