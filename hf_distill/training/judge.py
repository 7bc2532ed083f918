"""Listens while a student is compared with its teacher: how near they are, how right each is, what is to be said.

Knows: both models' signals of a batch, tasks. Does not know: who compares them, how a figure is made, where it goes.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from hf_distill.objectives.fidelity import fidelity
from hf_distill.objectives.rightness import ACCURACY, NATS, SQUARES, Heard, Rightness, can_be_right
from hf_distill.signals import Signals, Sum
from hf_distill.tasks import Task
from hf_distill.training.worth import Worth

logger = logging.getLogger(__name__)
EARLY = (256, 512, 1024)
"""After so many training samples a teacher that has nothing to teach is looked for."""


class Judge:
    """What a run finds of its teacher, and what was said of it already: each thing is said once.

    Attributes:
        worth: of the evaluation that is going on; None where nobody knows what is right in its rows.
    """

    def __init__(self) -> None:
        self.worth: Worth | None = None
        self._early: Worth | None = None
        self._looked, self._said = 0, set()

    def hear(self, task: Task, both: tuple[Signals, Signals], batch: Mapping[str, Any], own: Tensor) -> dict[str, Sum]:
        """Compare both models in an evaluation; how right they are is added up.

        Args:
            task: how they are read.
            both: what the student shows, and what the teacher, comparable with it.
            batch: the batch.
            own: bool [B], the samples that do not only fill up the last batch.

        Returns:
            What ``fidelity`` finds.
        """
        found, heard = listen(task, *both, batch)
        if heard is not None:
            self.worth = self.worth or worth_of(task, both[0])
            self.worth.add(heard.of(own))
        return found

    def hear_early(self, task: Task, both: tuple[Signals, Signals], batch: Mapping[str, Any], first: bool) -> None:
        """Hold a teacher against the labels of the first training rows: one that knows nothing is found before hours.

        Args:
            task: how both models are read; of one that predicts tokens nothing is looked at, which would take time.
            both: as in ``hear``.
            batch: the batch.
            first: whether this process speaks for all.
        """
        if self._looked == len(EARLY) or task.linear:
            return
        heard = listen(task, *both, batch, near=False)[1]
        if heard is None:
            return
        self._early = self._early or worth_of(task, both[0])
        self._early.add(heard)
        if self._early.samples >= EARLY[self._looked]:
            self._looked += 1
            self.say("no lead", self._early.gather().no_lead("training"), first)

    def start(self) -> None:
        """Listen to the first rows of a training anew."""
        self._early, self._looked = None, 0

    def say(self, about: str, sentence: str | None, first: bool) -> None:
        """Warn of something once.

        Args:
            about: what it is.
            sentence: what is to be said; None: nothing.
            first: whether this process speaks for all.
        """
        if sentence is None or about in self._said:
            return
        self._said.add(about)
        if about == "no lead":
            self._looked = len(EARLY)
        if first:
            logger.warning("%s", sentence)


def kind_of(task: Task) -> str:
    """Return how right a row of a task is; see ``Rightness``.

    Args:
        task: how models are read.
    """
    return NATS if task.linear else ACCURACY if task.distributions else SQUARES


def worth_of(task: Task, student: Signals) -> Worth:
    """Return what adds up how right two models are.

    Args:
        task: how they are read.
        student: what one of them shows.
    """
    head = next(iter(student.heads.values()))
    return Worth(kind_of(task), task.heads[0].kind, head.logits.shape[-1], head.rows.device)


def listen(
    task: Task, student: Signals, teacher: Signals, batch: Mapping[str, Any], near: bool = True
) -> tuple[dict[str, Sum], Heard | None]:
    """Compare two models, and both with what is right, in one pass over their logits.

    Args:
        task: how they are read.
        student: what the student shows.
        teacher: what the teacher shows, comparable with it.
        batch: the batch.
        near: whether they are compared with each other at all.

    Returns:
        What ``fidelity`` finds; and how right both are, None where nobody can say it.
    """
    kind, truths, near = kind_of(task), task.truths(student, batch), near and task.distributions
    with torch.no_grad():
        if not can_be_right(kind, student, teacher, truths):
            return (fidelity(student, teacher) if near else {}), None
        term = Rightness(kind)
        found = fidelity(student, teacher, {kind: (term, term.reading(student, truths))}) if near else {}
        if found.pop(kind, None) is None:  # of a few ids no distance is known, and yet which is the highest
            return {}, term.hear(student, teacher, truths)
        return found, term.written()
