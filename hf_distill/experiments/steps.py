"""A training of a recipe: from which random state it starts, and how many steps it takes.

Knows: a trainer's arguments and its rows. Does not know: whose trainer it is.
"""

from __future__ import annotations

import math

from transformers import Trainer, TrainingArguments, set_seed


def train(trainer: Trainer, resume: str | None = None) -> None:
    """Train, from the same random state whatever was done before, or go on from a checkpoint ("true": the last).

    Args:
        trainer: of any model.
        resume: ``resume_from_checkpoint``, as the command line has it.
    """
    set_seed(trainer.args.seed)
    trainer.train(resume_from_checkpoint=True if resume and resume.lower() == "true" else resume)


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
