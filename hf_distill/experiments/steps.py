"""A training of a recipe: from which random state it starts, how many steps it takes, and when it is lost.

Knows: a trainer's arguments and its rows. Does not know: whose trainer it is.
"""

from __future__ import annotations

import math
from typing import Any

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments, set_seed

from hf_distill.models.outputs import core_of


def train(trainer: Trainer, resume: str | None = None) -> None:
    """Train, from the same random state whatever was done before, or go on from a checkpoint ("true": the last).

    Args:
        trainer: of any model.
        resume: ``resume_from_checkpoint``, as the command line has it.

    Raises:
        ValueError: a part of the loss is not a number any more, and nothing would be learned from there on.
    """
    trainer.remove_callback(StopsAtNaN)  # one is enough of a trainer that is trained twice
    trainer.add_callback(StopsAtNaN)
    set_seed(trainer.args.seed)
    trainer.train(resume_from_checkpoint=True if resume and resume.lower() == "true" else resume)


class StopsAtNaN(TrainerCallback):
    """Ends a training whose loss is not a number: Trainer goes on, and what it saves is a teacher of nothing."""

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **others: Any
    ) -> None:
        """Look at the parts of the loss, of which Trainer's filter hides nothing."""
        for name, value in (logs or {}).items():
            if name.startswith("loss/") and value != value:
                raise ValueError(
                    f"{name} of {type(core_of(others['model'])).__name__} is NaN by step {state.global_step} of "
                    f"{state.max_steps}: lower the learning rate of {args.learning_rate:g}, or train in float32 "
                    "(--bf16 0)."
                )


def steps_of(trainer: Trainer) -> int:
    """Count the optimizer steps of a trainer that is not trained yet.

    Args:
        trainer: of any model.
    """
    args = trainer.args
    return args.max_steps if args.max_steps > 0 else math.ceil(args.num_train_epochs * steps_of_epoch(trainer))


def steps_of_epoch(trainer: Trainer) -> int:
    """Count the optimizer steps in which a trainer sees its rows once.

    Args:
        trainer: of any model.
    """
    return max(1, math.ceil(len(trainer.get_train_dataloader()) / trainer.args.gradient_accumulation_steps))


def about(args: TrainingArguments, rows: int, epochs: float) -> float:
    """Count about how many steps some rows make, before there is a trainer.

    Args:
        args: Trainer's; its ``max_steps`` decides where it is set.
        rows: of one epoch.
        epochs: how many.
    """
    if args.max_steps > 0:
        return args.max_steps
    return epochs * rows / (args.train_batch_size * args.gradient_accumulation_steps * args.world_size)


def epochs_of(rows: int, new: bool = True) -> float:
    """Choose how many epochs a model learns from some rows, where nobody said it.

    A model that is made new reads about 120,000 rows: twice where they are many, up to 20 times where they are few. A
    pretrained one reads them twice.

    Args:
        rows: of one epoch.
        new: whether it begins with random weights.

    Example:
        >>> epochs_of(1_000_000), epochs_of(20_000), epochs_of(1_350), epochs_of(1_350, new=False)
        (2.0, 6.0, 20.0, 2.0)
    """
    return min(20.0, max(2.0, 120_000 / rows)) if new else 2.0


def choose_epochs(recipe: Any, args: TrainingArguments, rows: int) -> None:
    """Let teacher and students learn for as long as their rows are worth, where nobody said for how long.

    Args:
        recipe: the recipe's own arguments: which models, and the teacher's epochs, which are filled in.
        args: of the students, whose epochs are filled in.
        rows: of one epoch. A quick run has a tenth of them, and as many epochs.
    """
    rows *= 10 if recipe.quick else 1
    if args.num_train_epochs is None:
        given = recipe.student_model_name_or_path or recipe.student_from_teacher or recipe.student_parameters
        args.num_train_epochs = epochs_of(rows, new=not given)
    if recipe.teacher_epochs is None:
        recipe.teacher_epochs = epochs_of(rows, new=recipe.teacher_model_name_or_path is None)
