"""Objective: weighted terms under their names.

Knows: terms and weights. Does not know: what a term compares, the hard loss, alpha, trainers or process groups.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from hf_distill.models.facts import Facts
from hf_distill.objectives.chunked.one_pass import compared
from hf_distill.objectives.logits import LabelCrossEntropy, LogitTerm
from hf_distill.objectives.schedule import Schedule
from hf_distill.objectives.term import Term
from hf_distill.signals import Signals, Sum

CHILD = "distillation"
"""The name under which a student carries its objective, if that has something to train; no part of the student."""


class Objective(nn.Module):
    """A weighted sum of terms: the soft half of the loss.

    Args:
        terms: name -> term; the name is the one in the logs (``loss/<name>``).
        weights: name -> weight, finite, not negative and not all zero, or a ``Schedule`` of it; a missing one is 1.
        teachers: name -> which of several teachers the term listens to; a missing one hears all of them together.
        temperatures: name -> ``Schedule`` of the term's temperature, in place of its own or the run's.

    Attributes:
        weights: name -> weight at the step that ``at`` was last told of; a term of weight 0 is not computed.
        reader: what else is trained with the student and no part of it, see ``training.reader``; None: nothing.

    Raises:
        ValueError: no term, a weight, teacher or temperature for a term that is not there, or one that cannot be used.

    Example:
        >>> from hf_distill.objectives.logits import ForwardKL, LogitMSE
        >>> objective = Objective({"kl": ForwardKL(temperature=4.0), "mse": LogitMSE()}, {"mse": 0.1})
        >>> objective.weights, sorted(objective.needs)
        ({'kl': 1.0, 'mse': 0.1}, ['heads'])
        >>> sorted(Objective({"kl": ForwardKL(), "mse": LogitMSE()}, teachers={"mse": "big"}).teacher_needs)
        ['heads', 'heads@big']
    """

    def __init__(
        self,
        terms: Mapping[str, Term],
        weights: Mapping[str, float] | None = None,
        teachers: Mapping[str, str] | None = None,
        temperatures: Mapping[str, Schedule] | None = None,
    ) -> None:
        super().__init__()
        if not terms:
            raise ValueError("an objective without any term was asked for: name at least one, such as 'forward_kl'.")
        if "hard" in terms:
            raise ValueError("a term was named 'hard', which is the supervised loss in the logs: name it otherwise.")
        weights = dict(weights or {})
        self.teachers = {name: str(teacher) for name, teacher in (teachers or {}).items()}
        self.temperatures = dict(temperatures or {})
        both = (("weights", weights), ("teachers", self.teachers), ("temperatures", self.temperatures))
        for what, given in both:
            if strangers := sorted(set(given) - set(terms)):
                raise ValueError(f"{what} were given for {strangers}, but the terms are {sorted(terms)}: name those.")
        self.asked = {name: _checked_weight(name, weights.get(name, 1.0)) for name in terms}
        for name, schedule in self.temperatures.items():
            if schedule.lowest <= 0 or not hasattr(terms[name], "temperature"):
                raise ValueError(
                    f"a temperature of {schedule} was given to {name}: give one that is always greater than 0 to a "
                    "term that has a temperature."
                )
        self.weights = {name: _highest(weight) for name, weight in self.asked.items()}
        if not any(self.weights.values()):
            raise ValueError(f"every weight of {sorted(terms)} is 0: set alpha=0 to train without the teacher.")
        self.terms = nn.ModuleDict(terms)
        self.reader: nn.Module | None = None  # trained, saved and loaded beside them, and no part of the loss

    @property
    def needs(self) -> frozenset[str]:
        """What both models must show, for all terms together."""
        return frozenset().union(*(term.needs for term in self.terms.values()))

    @property
    def teacher_needs(self) -> frozenset[str]:
        """What the teacher is asked for: ``"heads"``, or ``"heads@big"`` of the one named big among several."""
        return frozenset(
            f"{need}@{self.teachers[name]}" if name in self.teachers else need
            for name, term in self.terms.items()
            for need in term.teacher_needs
        )

    @property
    def told(self) -> dict[str, float | str]:
        """Each term's weight as it was asked, for a report.

        Example:
            >>> from hf_distill.objectives.logits import ForwardKL
            >>> Objective({"kl": ForwardKL()}, {"kl": Schedule("constant", until=0.5)}).told
            {'kl': '1 from 0 until 0.5'}
        """
        return {name: str(one) if isinstance(one, Schedule) else one for name, one in self.asked.items()}

    def build(self, student: Facts, teacher: Facts, named: Mapping[str, Facts] | None = None) -> None:
        """Let each term make what depends on the two models; see ``Term.build``.

        Args:
            student: what is known of the student.
            teacher: what is known of the teacher.
            named: what is known of each of several teachers, for the terms that listen to one of them.
        """
        for name, term in self.terms.items():
            term.build(student, named[self.teachers[name]] if name in self.teachers else teacher)

    def set_streams(self, names: Sequence[str]) -> None:
        """Tell each term which streams the models of a task show.

        Args:
            names: as in ``Task.streams``, the main one first.

        Raises:
            ValueError: a term names another one.

        Example:
            >>> from hf_distill.objectives.hidden import HiddenMSE
            >>> Objective({"inside": HiddenMSE(stream="vision")}).set_streams(["text"])
            Traceback (most recent call last):
            ...
            ValueError: inside was given stream='vision', the models of this task show text: name one of those, or ...
        """
        for name, term in self.terms.items():
            if term.stream is not None and term.stream not in names:
                raise ValueError(
                    f"{name} was given stream={term.stream!r}, the models of this task show {', '.join(names)}: name "
                    "one of those, or leave stream out."
                )
            term.set_streams(names)

    def set_vectors(self, names: Sequence[str]) -> None:
        """Tell each term which vectors the models of a task show; see ``Term.set_vectors``.

        Args:
            names: as in ``Task.vectors``.
        """
        for term in self.terms.values():
            term.set_vectors(names)

    def set_temperature(self, temperature: float) -> None:
        """Hand the run's temperature to each term that was not given its own.

        Args:
            temperature: greater than 0.
        """
        for term in self.terms.values():
            term.set_temperature(temperature)

    def gap(self, steps: int) -> int | None:
        """Find a step at which every weight is 0.

        Args:
            steps: how many there will be.

        Returns:
            The first such step; None where there is none.

        Example:
            >>> from hf_distill.objectives.logits import ForwardKL
            >>> Objective({"kl": ForwardKL()}, {"kl": Schedule("constant", until=0.5)}).gap(steps=10)
            5
        """
        schedules = [weight for weight in self.asked.values() if isinstance(weight, Schedule)]
        if len(schedules) < sum(map(bool, self.asked.values())):
            return None
        changes = sorted({0, *(step for one in schedules for step in one.boundaries(steps) if step < steps)})
        return next((step for step in changes if not any(one.at(step, steps) for one in schedules)), None)

    def set_step(self, step: int, steps: int) -> None:
        """Take the weights and the temperatures of a step.

        Args:
            step: how many optimizer steps are done.
            steps: how many there will be.
        """
        for name, weight in self.asked.items():
            self.weights[name] = weight.at(step, steps) if isinstance(weight, Schedule) else weight
        for name, schedule in self.temperatures.items():
            self.terms[name].temperature = schedule.at(step, steps)

    def forward(
        self,
        student: Signals,
        teacher: Signals,
        batch: Mapping[str, Any],
        shares: Mapping[str, Tensor] | None = None,
        own: Signals | None = None,
    ) -> dict[str, Sum]:
        """Compare the two models.

        Args:
            student: what the student shows.
            teacher: what the teacher shows, aligned to the student, and each named one of several likewise.
            batch: the batch.
            shares: name -> what a term's total is multiplied by in the loss, for heads that are gone through once;
                with a share for ``"hard"`` the supervised loss of their labels is computed on the way.
            own: what the student showed before it was aligned, for the supervised loss; None: the same.

        Returns:
            name -> Sum, unweighted and undivided, of each term whose weight is not 0 now.
        """
        named = {n: (student.named.get(one, student), teacher.named[one]) for n, one in self.teachers.items()}
        both = {name: named.get(name, (student, teacher)) for name in self.terms}
        active = {name: term for name, term in self.terms.items() if self.weights[name]}
        # Terms that go through the rows of a head do so together.
        asked = {n: (term, *both[n]) for n, term in active.items() if type(term).forward is LogitTerm.forward}
        if shares is not None and "hard" in shares:
            asked["hard"] = (LabelCrossEntropy(), own or student, None)
        sums = compared(asked, shares, batch)
        sums |= {name: term(*both[name], batch) for name, term in active.items() if name not in asked}
        return {name: sums[name] for name in (*active, "hard") if name in sums}

    def zero_for_unused_parameters(self, learns: bool = True) -> Tensor | float:
        """Return a zero with the graph of every parameter that no term uses now: DDP waits for each of them.

        Args:
            learns: whether any term is computed at all.
        """
        unused = (term for name, term in self.terms.items() if not (learns and self.weights[name]))
        idle = (p for term in unused for p in term.parameters())
        # FSDP2 and ZeRO-3 hold shares of them, and wait for nobody.
        return sum((0.0 * p.sum() for p in idle if type(p) is nn.Parameter and not hasattr(p, "ds_id")), 0.0)


def _highest(weight: float | Schedule) -> float:
    return weight.highest if isinstance(weight, Schedule) else weight


def _checked_weight(name: str, weight: Any) -> float | Schedule:
    if isinstance(weight, Schedule):
        return weight
    number = isinstance(weight, (int, float)) and not isinstance(weight, bool)
    if not number or not math.isfinite(weight) or weight < 0:
        raise ValueError(f"weight {weight!r} was given to {name}: give a number of at least 0.")
    return float(weight)
