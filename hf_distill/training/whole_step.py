"""Negatives of a whole optimizer step: what all its micro-batches show, before any of them has gradients.

Knows: micro-batches, how a student and a teacher are asked, which random numbers a forward draws. Does not know: how
vectors are compared, losses.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from hf_distill.objectives.all_gather import gathered
from hf_distill.signals import Signals
from hf_distill.tasks import Task
from hf_distill.tasks.company import Step
from hf_distill.tasks.layout import STEP

logger = logging.getLogger(__name__)
APART = (
    "%d micro-batches make a step, each of which is compared within itself: a pair's negatives are those of its "
    "micro-batch (%d rows on each of %d ranks), which is not one batch of all. Set accumulate_negatives=True, for "
    "another forward of the student, to have those of the whole step; the log tells how many there are (negatives)."
)


@dataclass
class NegativesArguments:
    """The field that pairs which are compared with each other add to ``TrainingArguments``.

    Args:
        accumulate_negatives: compare each pair of an image and a text with those of all micro-batches of an optimizer
            step, on all ranks: so many micro-batches are then one batch, gradients included. It costs one more forward
            of the student. Batch norms in training see each micro-batch twice.

    Reference:
        Gao, Zhang, Han, Callan: Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup,
        arXiv:2101.06983.

    Example:
        >>> NegativesArguments().accumulate_negatives
        False
    """

    accumulate_negatives: bool = field(
        default=False,
        metadata={
            "help": "Image and text: compare each pair with those of all micro-batches of a step, for one more "
            "forward of the student. Default: with those of its own micro-batch, of all ranks."
        },
    )


def check_company(args: Any, ranks: int) -> None:
    """Refuse pairs that have nobody to be compared with, and tell that micro-batches do not see each other.

    Args:
        args: the run's arguments.
        ranks: how many processes hold different data.

    Raises:
        ValueError: in one sentence.

    Example:
        >>> from types import SimpleNamespace
        >>> check_company(SimpleNamespace(gradient_accumulation_steps=4, per_device_train_batch_size=1), ranks=1)
        Traceback (most recent call last):
        ...
        ValueError: a batch of one pair of an image and a text was asked for, which has no other to be told from: ...
    """
    parts, rows = args.gradient_accumulation_steps, args.per_device_train_batch_size
    together = getattr(args, "accumulate_negatives", False)
    if rows * ranks * (parts if together else 1) == 1:
        raise ValueError(
            "a batch of one pair of an image and a text was asked for, which has no other to be told from: raise "
            "per_device_train_batch_size, or set accumulate_negatives=True with gradient_accumulation_steps."
        )
    if parts > 1 and not together:
        logger.warning(APART, parts, rows, ranks)


def see_whole_step(
    batches: Sequence[dict[str, Any]],
    task: Task,
    student: Callable[[Mapping[str, Any]], Signals],
    teacher: Callable[[Mapping[str, Any]], Signals] | None,
    ranks: int,
) -> None:
    """Put into each micro-batch what all of them show; every rank must call it at the same time.

    Random numbers are drawn as if nothing had been run: each forward with gradients then drops what the one without
    them dropped.

    Args:
        batches: of one optimizer step, on the trainer's device; as many on every rank.
        task: how the models are read.
        student: runs the student on a micro-batch as in training, but without gradients.
        teacher: asks the teacher about one; None: nobody is asked.
        ranks: how many processes hold different data.
    """
    device = next(value.device for value in batches[0].values() if isinstance(value, Tensor))
    own = [] if device.type in ("cpu", "mps") else [device]  # those with a generator each
    kind = {"devices": own, "device_type": device.type} if own else {"devices": []}
    with torch.no_grad(), torch.random.fork_rng(**kind):
        shown = [student(batch) for batch in batches]
    answers = [] if teacher is None else [teacher(batch) for batch in batches]
    whose: dict[str | None, list[Signals]] = {None: shown}
    if answers and answers[0].vectors:
        whose[""] = answers
    for name in answers[0].named if answers else ():
        whose[name] = [one.named[name] for one in answers]
    vectors = {who: gathered(torch.cat([_both(one) for one in parts]))[0] for who, parts in whose.items()}
    numbers, first = gathered(torch.cat([task.numbers(batch) for batch in batches]))
    for number, batch in enumerate(batches):
        batch[STEP] = Step(vectors, numbers, first, len(batches) * ranks, answers[number] if answers else None)
        first += len(shown[number].vectors["image"])


def _both(shown: Signals) -> Tensor:
    return torch.cat((shown.vectors["image"], shown.vectors["text"]), dim=1)
