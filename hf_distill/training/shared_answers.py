"""One teacher's answers, and one draw of each batch, for several trainings of the same rows.

Knows: batches, what a teacher reads of them, which training has come how far. Does not know: trainers, models, losses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hf_distill.models.hooks import LINEAR
from hf_distill.signals import Signals
from hf_distill.tasks.batches import plain
from hf_distill.tasks.layout import without_layout
from hf_distill.teachers import Teacher
from hf_distill.training.answered import answered
from hf_distill.training.turns import BEGINNING, Place, Turns


@dataclass(frozen=True)
class Answer:
    """What a teacher said of a batch, and what it was asked to show."""

    batch: Mapping[str, Any]
    needs: frozenset[str]
    shown: Signals

    def serves(self, batch: Mapping[str, Any], needs: frozenset[str], read: frozenset[str]) -> bool:
        """Say whether it is the answer to a question too.

        Args:
            batch: that the teacher would be asked about; a column that one student alone reads may be missing.
            needs: what it would be asked to show.
            read: the columns that the teacher reads.
        """
        if not needs <= self.needs or (LINEAR in needs) != (LINEAR in self.needs):
            return False
        both = batch.keys() & self.batch.keys()
        return not (batch.keys() ^ self.batch.keys()) & read and all(same(batch[n], self.batch[n]) for n in both)


def same(one: Any, other: Any) -> bool:
    """Say whether two batches, or two values of theirs, are equal.

    Args:
        one: a tensor, numbers, words, or a mapping or sequence of these.
        other: the other's.

    Example:
        >>> same({"boxes": [torch.ones(2)]}, {"boxes": [torch.ones(2)]}), same(torch.ones(2), torch.ones(1))
        (True, False)
    """
    if one is other:
        return True
    if type(one) is not type(other):
        return False
    if isinstance(one, Tensor):
        return one.shape == other.shape and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(np.array_equal(one, other)) if isinstance(one, np.ndarray) else bool(one == other)


class SharedAnswers:
    """Lets the first training that asks a question ask the teacher, and the others have its answer.

    Args:
        turns: in which the trainings run.
        needs: for each training, what its teacher is asked to show, read anew each time.

    Attributes:
        asked: how often a teacher was asked, by each training.
        given: how often a training was given another one's answer.
    """

    def __init__(self, turns: Turns, needs: Sequence[Callable[[], frozenset[str]]]) -> None:
        self.turns, self.needs = turns, needs
        self.asked, self.given = [0] * len(needs), [0] * len(needs)
        self._answers: dict[Place, Answer] = {}
        self._drawn: dict[Place, tuple[list[dict[str, Any]], Any]] = {}
        self._questions: list[Place] = [BEGINNING] * len(needs)  # the last one of each training
        self._draws: list[Place] = [BEGINNING] * len(needs)

    def answer(
        self, number: int, teacher: Teacher, batch: Mapping[str, Any], needs: frozenset[str], step: int
    ) -> Signals:
        """Answer a training, in its turn; see ``answered``.

        Args:
            number: of the training.
            teacher: its teacher.
            batch: the batch, on its device.
            needs: what to show.
            step: after how many optimizer steps.
        """
        place = self._questions[number] = following(self._questions[number], step)
        self.turns.wait(number, place)
        self._forget()
        asked, kept = without_layout(plain(batch)), self._answers.get(place)
        if kept is not None and kept.serves(asked, needs, teacher.columns):
            self.given[number] += 1
            return kept.shown
        self.asked[number] += 1
        needs = needs.union(*(self.needs[other]() for other in self.turns.live))
        shown = answered(teacher, batch, needs, step)
        if kept is None and len(self.turns.live) > 1:
            self._answers[place] = Answer(asked, needs, shown)
        return shown

    def draw(self, number: int, step: int, batches: Sequence[MutableMapping[str, Any]], counted: Any) -> Any:
        """Let the batches of a step be those of the training that drew them first, where dropout moves what is drawn.

        Args:
            number: of the training.
            step: after how many optimizer steps.
            batches: as this training drew them; they are changed in place.
            counted: Trainer's count of their labels.

        Returns:
            The count of the labels that are in them now.
        """
        place = self._draws[number] = following(self._draws[number], step)
        first, counted = self._drawn.setdefault(place, ([{**batch} for batch in batches], counted))
        for batch, drawn in zip(batches, first, strict=True):
            batch.update({name: drawn[name] for name in batch.keys() & drawn.keys()})
        return counted

    def _forget(self) -> None:
        """Forget what nobody is going to ask for any more."""
        behind = self.turns.behind
        self._answers = {place: answer for place, answer in self._answers.items() if place >= behind}
        self._drawn = {place: drawn for place, drawn in self._drawn.items() if place[0] >= behind[0]}


def following(last: Place, step: int) -> Place:
    """Number what comes after the same number of steps.

    Args:
        last: the place before.
        step: after how many optimizer steps.

    Example:
        >>> following((3, 0), 3), following((3, 1), 4)
        ((3, 1), (4, 0))
    """
    return (step, last[1] + 1 if last[0] == step else 0)
