"""A student that a budget allows: what of a recipe's settings contradicts it, and how it is cut, at once or in rounds.

Knows: shares of a teacher's parameters, on which training rows a cut is calibrated. Does not know: how a model is cut,
training.
"""

from __future__ import annotations

import copy
import inspect
import math
import os
from collections.abc import Callable
from dataclasses import MISSING, fields
from typing import Any

from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedModel, TrainingArguments, set_seed
from transformers.utils.generic import find_labels

from hf_distill.models.sharding import unsharded
from hf_distill.students.budget import cut_to, fit_budget, shapes_on_the_way
from hf_distill.students.shapes import Shape

ROWS = 512
"""So many of the first training rows say which parts of a model are used most."""
CHOSEN = (
    "student_layers", "student_decoder_layers", "student_vision_layers", "student_hidden_size", "student_preset",
    "student_model_name_or_path",
)  # fmt: skip
"""What a budget chooses by itself."""
WHOLE = ("freeze_encoder", "freeze_vision")
"""What leaves a part of the teacher as it is."""


def check_budget(recipe: Any) -> None:
    """Refuse a budget that is none, or that contradicts other settings.

    Args:
        recipe: the recipe's own arguments.

    Raises:
        ValueError: in one sentence.

    Example:
        >>> from dataclasses import dataclass
        >>> @dataclass
        ... class Arguments:
        ...     student_parameters: float | None = None
        ...     student_layers: int = 1
        >>> check_budget(Arguments(0.25, student_layers=3))
        Traceback (most recent call last):
        ...
        ValueError: student_parameters=0.25 and student_layers=3 were given, and a budget chooses that itself: leave \
one of them out.
    """
    asked, rounds = recipe.student_parameters, getattr(recipe, "shrink_rounds", 1)
    if rounds < 1:
        raise ValueError(f"shrink_rounds={rounds} was given: give 1 for one cut, or more.")
    if asked is None:
        if rounds > 1:
            raise ValueError(
                f"shrink_rounds={rounds} was given without what to shrink to: add --student_parameters, such as 0.25."
            )
        return
    if not (asked > 0 and math.isfinite(asked)):
        raise ValueError(
            f"student_parameters={asked} was given: give a number above 0, below 1 as a share of the teacher's."
        )
    usual = {one.name: None if one.default is MISSING else one.default for one in fields(recipe)}
    if given := [name for name in CHOSEN if name in usual and getattr(recipe, name) != usual[name]]:
        raise ValueError(
            f"student_parameters={asked:g} and {given[0]}={getattr(recipe, given[0])} were given, and a budget "
            "chooses that itself: leave one of them out."
        )
    if whole := next((name for name in WHOLE if getattr(recipe, name, False)), None):
        raise ValueError(
            f"student_parameters={asked:g} cuts all of the teacher, and {whole} leaves a part of it as it is: give "
            f"--{whole} 0, or a count of layers in the place of the budget."
        )
    if rounds > 1 and getattr(recipe, "lora_rank", 0):
        raise ValueError(
            f"shrink_rounds={rounds} and lora_rank={recipe.lora_rank} were given, and an adapter is not cut: train "
            "all weights, or shrink in one round."
        )


def check_rounds(recipe: Any, args: TrainingArguments) -> None:
    """Refuse what a student that shrinks on the way cannot be trained with.

    Args:
        recipe: the recipe's own arguments.
        args: Trainer's.

    Raises:
        ValueError: in one sentence.
    """
    if (rounds := getattr(recipe, "shrink_rounds", 1)) == 1:
        return
    kinds = {"FSDP": (args.fsdp, "ACCELERATE_USE_FSDP"), "DeepSpeed": (args.deepspeed, "ACCELERATE_USE_DEEPSPEED")}
    for kind, (asked, variable) in kinds.items():
        if asked or os.environ.get(variable, "false").lower() in ("1", "true"):
            raise ValueError(
                f"shrink_rounds={rounds} was given under {kind}, which spreads over processes what is to be cut "
                "between the rounds: use DDP, or one round."
            )
    if (asked := getattr(args, "student_quantization", None)) is not None:
        raise ValueError(
            f"shrink_rounds={rounds} and student_quantization={asked!r} were given, and a student that learns to "
            "be quantised is not cut: shrink it first, and quantise what came out."
        )
    if args.resume_from_checkpoint and args.resume_from_checkpoint.lower() != "true":
        raise ValueError(
            f"resume_from_checkpoint={args.resume_from_checkpoint} was given with shrink_rounds={rounds}: give "
            "--resume_from_checkpoint true, which goes on in the round that was not finished."
        )


class Budget:
    """How large a recipe's student may be; it is cut once from its teacher, and copied for each training.

    Args:
        asked: at most so many parameters; below 1 a share of the teacher's.
        rounds: in so many the student shrinks, with a training after each; see ``shapes_on_the_way``.
        rows: of the training.
        collator: makes a batch of rows.
        args: the run's, for the size of a batch, the seed and the device.
        same_width: whether the width stays the teacher's, as where vectors are compared; then there is one round.
    """

    def __init__(
        self, asked: float, rounds: int, rows: Dataset, collator: Callable[..., Any], args: TrainingArguments,
        same_width: bool = False,
    ) -> None:  # fmt: skip
        self.asked, self.rounds, self.rows, self.collator, self.args = asked, rounds, rows, collator, args
        self.same_width = same_width
        self.way: list[tuple[float, Shape]] = []
        self._made: PreTrainedModel | None = None  # cut at once
        self._first: PreTrainedModel | None = None  # cut for the first of several rounds
        self._batches: list[dict[str, Tensor]] | None = None

    @classmethod
    def of(
        cls, recipe: Any, rows: Dataset, collator: Callable[..., Any], args: TrainingArguments,
        same_width: bool = False,
    ) -> Budget | None:  # fmt: skip
        """Return the one that a recipe's settings ask for; None: they ask for none.

        Args:
            recipe: the recipe's own arguments.
            rows: of the training.
            collator: makes a batch of rows.
            args: the run's.
            same_width: whether the width stays the teacher's.
        """
        if recipe.student_parameters is None:
            return None
        return cls(recipe.student_parameters, getattr(recipe, "shrink_rounds", 1), rows, collator, args, same_width)

    def check(self, teacher: PreTrainedModel) -> None:
        """Refuse a teacher that has no such student, before it is trained.

        Args:
            teacher: of its weights nothing is read.

        Raises:
            ValueError: it is not cut, or its smallest student is larger.
        """
        shapes_on_the_way(teacher, self.asked, 1)

    def student(self, teacher: PreTrainedModel) -> PreTrainedModel:
        """Return a copy of the student, untrained and cut at once: in rounds it has the same shape in the end.

        Args:
            teacher: of which it is made, the same each time.
        """
        if self._made is None:
            model = unsharded(teacher).to(self.args.device)
            if self.rounds == 1:
                width = {"hidden_size": model.config.hidden_size} if self.same_width else {}
                self._made = fit_budget(model, parameters=self.asked, batches=self.batches(model), **width).cpu()
            else:
                self.way = shapes_on_the_way(model, self.asked, self.rounds)
                self._made = cut_to(model, self.way[-1:], 1, self.batches(model)).cpu()
                self._first = self.cut(model, 1).cpu()
        return copy.deepcopy(self._made)

    def first(self) -> PreTrainedModel:
        """Return a copy of what the first of several rounds starts with, once ``student`` was asked for."""
        return copy.deepcopy(self._first)

    def cut(self, model: PreTrainedModel, number: int) -> PreTrainedModel:
        """Cut a model to what a round allows.

        Args:
            model: the teacher, or the student of the round before.
            number: of the round, from 1.
        """
        return cut_to(model, self.way, number, self.batches(model))

    def batches(self, model: PreTrainedModel) -> list[dict[str, Tensor]]:
        """Collate the first training rows as Trainer does, without labels; the same ones on every process.

        Args:
            model: whose forward takes them.
        """
        if self._batches is None:
            taken, labels = inspect.signature(type(model).forward).parameters, find_labels(type(model))
            rows, size = self.rows.select(range(min(ROWS, len(self.rows)))), self.args.per_device_train_batch_size
            if self.args.remove_unused_columns:
                known = {*taken, *labels, "label", "label_ids"}
                rows = rows.select_columns([name for name in rows.column_names if name in known])
            set_seed(self.args.seed)  # a collator may draw numbers
            made = [self.collator([rows[at] for at in some]) for some in _groups(len(rows), size)]
            drop = {"label", "labels", "label_ids", *labels}
            self._batches = [{n: one for n, one in batch.items() if n in taken and n not in drop} for batch in made]
        return self._batches


def _groups(count: int, size: int) -> list[range]:
    return [range(start, min(start + size, count)) for start in range(0, count, size)]
