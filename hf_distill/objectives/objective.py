"""Objective: weighted terms under their names, and the one place where a sum is divided.

Knows: terms and weights. Does not know: what a term compares, the hard loss, alpha, trainers or process groups.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from hf_distill.objectives.term import Term
from hf_distill.signals import Facts, Signals, Sum


class Objective(nn.Module):
    """A weighted sum of terms: the soft half of the loss.

    Args:
        terms: name -> term; the name is the one in the logs (``loss/<name>``).
        weights: name -> weight, finite, not negative and not all zero; a missing one is 1.
        teachers: name -> which of several teachers the term listens to; a missing one hears all of them together.

    Raises:
        ValueError: no term, a weight or a teacher for a term that is not there, or weights that cannot be used.

    Example:
        >>> from hf_distill.objectives.logits import ForwardKL, LogitMSE
        >>> objective = Objective({"kl": ForwardKL(temperature=4.0), "mse": LogitMSE()}, {"mse": 0.1})
        >>> objective.weights, sorted(objective.needs)
        ({'kl': 1.0, 'mse': 0.1}, ['heads'])
        >>> sorted(Objective({"kl": ForwardKL(), "mse": LogitMSE()}, teachers={"mse": "big"}).asks)
        ['heads', 'heads@big']
    """

    def __init__(
        self,
        terms: Mapping[str, Term],
        weights: Mapping[str, float] | None = None,
        teachers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        if not terms:
            raise ValueError("an objective without any term was asked for: name at least one, such as 'forward_kl'.")
        if "hard" in terms:
            raise ValueError("a term was named 'hard', which is the supervised loss in the logs: name it otherwise.")
        weights = dict(weights or {})
        self.teachers = {name: str(teacher) for name, teacher in (teachers or {}).items()}
        for what, given in (("weights", weights), ("teachers", self.teachers)):
            if strangers := sorted(set(given) - set(terms)):
                raise ValueError(f"{what} were given for {strangers}, but the terms are {sorted(terms)}: name those.")
        self.weights = {name: _checked_weight(name, weights.get(name, 1.0)) for name in terms}
        if not any(self.weights.values()):
            raise ValueError(f"every weight of {sorted(terms)} is 0: set alpha=0 to train without the teacher.")
        self.terms = nn.ModuleDict(terms)

    @property
    def needs(self) -> frozenset[str]:
        """What both models must show, for all terms together."""
        return frozenset().union(*(term.needs for term in self.terms.values()))

    @property
    def asks(self) -> frozenset[str]:
        """What the teacher is asked for: ``"heads"``, or ``"heads@big"`` of the one named big among several."""
        return frozenset(
            f"{need}@{self.teachers[name]}" if name in self.teachers else need
            for name, term in self.terms.items()
            for need in term.needs
        )

    def build(self, student: Facts, teacher: Facts, named: Mapping[str, Facts] | None = None) -> None:
        """Let each term make what depends on the two models; see ``Term.build``.

        Args:
            student: what is known of the student.
            teacher: what is known of the teacher.
            named: what is known of each of several teachers, for the terms that listen to one of them.
        """
        for name, term in self.terms.items():
            term.build(student, named[self.teachers[name]] if name in self.teachers else teacher)

    def follow(self, temperature: float) -> None:
        """Hand the run's temperature to each term that was not given its own.

        Args:
            temperature: greater than 0.
        """
        for term in self.terms.values():
            term.follow(temperature)

    def forward(self, student: Signals, teacher: Signals, batch: Mapping[str, Any]) -> dict[str, Sum]:
        """Compare the two models.

        Args:
            student: what the student shows.
            teacher: what the teacher shows, aligned to the student, and each named one of several likewise.
            batch: the batch.

        Returns:
            name -> Sum, unweighted and undivided.
        """
        heard = {name: teacher.named[one] for name, one in self.teachers.items()}
        return {name: term(student, heard.get(name, teacher), batch) for name, term in self.terms.items()}


def normalise(total: Tensor, count: Tensor, world_size: int = 1) -> Tensor:
    """Divide a sum by what was counted in the whole optimizer step; the only division of a loss in this package.

    Args:
        total: scalar, this rank's and this micro-batch's share of the sum.
        count: scalar, how many things were counted over all micro-batches and ranks; 0 divides by 1.
        world_size: how many ranks hold different data. Data-parallel training averages gradients over them: the
            factor turns that mean back into the sum.

    Returns:
        A scalar with the gradient of ``total``. Added over micro-batches and averaged over ranks it is sum / count.

    Example:
        >>> import torch
        >>> whole = normalise(torch.tensor(8.0), torch.tensor(4))
        >>> ranks = [normalise(torch.tensor(t), torch.tensor(4), world_size=2) for t in (2.0, 6.0)]
        >>> whole.item(), sum(ranks).item() / 2
        (2.0, 2.0)
    """
    return total * world_size / count.clamp(min=1)


def _checked_weight(name: str, weight: Any) -> float:
    number = isinstance(weight, (int, float)) and not isinstance(weight, bool)
    if not number or not math.isfinite(weight) or weight < 0:
        raise ValueError(f"weight {weight!r} was given to {name}: give a number of at least 0.")
    return float(weight)
