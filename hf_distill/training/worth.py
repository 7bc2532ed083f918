"""Whether a teacher is worth listening to: how right it is, against its student and against who knows nothing.

Knows: how right two models are in each row, what stands in the labels. Does not know: batches, evaluation loops, logs.

All that is added up are sums, over batches and ranks alike, so how rows are spread changes nothing. What is said has a
margin for chance: the rows of one sample may all be right or wrong together, so samples are what is counted.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hf_distill.objectives.rightness import ACCURACY, NATS, SQUARES, Heard
from hf_distill.signals import BINARY, CATEGORICAL, NUMBER

ENOUGH = 30
"""Fewer samples decide nothing."""
WORTH = 0.2
"""Rows in which a lead of this share of what there is to lead by would not show decide nothing either."""
FIGURES = {ACCURACY: "accuracy", NATS: "perplexity", SQUARES: "mse"}
"""How right a row is -> what its mean is logged as."""
NOTHING_KNOWN = {
    ACCURACY: "{floor} is reached by always saying {what}",
    NATS: "{floor} is reached by knowing only how often each token stands there",
    SQUARES: "{floor} is reached by always saying the mean of their labels",
}
LOOK = {ACCURACY: "the order of its classes", NATS: "its tokenizer", SQUARES: "the unit of its labels"}
NO_LEAD = (
    "The teacher's {figure} is {teacher} on {rows} ({which}), and {known}: these rows show nothing that it could "
    "teach, so fine-tune it on your labels first, or load one that was; if it was, look at {look}."
)
BEHIND = (
    "The student ({student}) is ahead of its teacher ({teacher}) in {figure} on {rows} ({which}): learn less from it "
    "(a lower alpha), or fine-tune it first; if it should be better, look at {look}."
)


class Worth:
    """What is known of a teacher and its student after some rows.

    Args:
        kind: how right a row is; see ``Rightness``.
        heads: the kind of the heads, as in ``HeadSpec``.
        classes: how many classes each row has, where all have the same ones.
        device: where sums are kept.

    Example:
        >>> ones = torch.ones(40)
        >>> worth = Worth(ACCURACY, CATEGORICAL, classes=2)
        >>> labels = torch.tensor([0, 1]).repeat(20)
        >>> worth.add(Heard(torch.arange(40), labels, ones, 1.0 - labels, ones / 2))
        >>> worth.gather().figures()
        {'teacher_accuracy': 0.5, 'student_accuracy': 1.0}
    """

    def __init__(self, kind: str, heads: str, classes: int = 0, device: torch.device | str = "cpu") -> None:
        self.kind, self.heads = kind, heads
        wide = torch.float32 if torch.device(device).type == "mps" else torch.float64
        places = classes if heads in (CATEGORICAL, BINARY, NUMBER) else 1
        # For each sample: that it is there, its rows, how right the student is in them together, and the teacher. The
        # products of these, added up, have all sums, and all that a ratio's error is made of.
        self._gram = torch.zeros(4, 4, dtype=wide, device=device)
        # For each class: its labels and how often the teacher is right in them; of a number its labels, their squares
        # and how many there are; where rows have classes of their own, the share of one.
        self._labels = torch.zeros(places, 3, dtype=wide, device=device)

    @property
    def samples(self) -> int:
        """How many there were; waits for the device."""
        return int(self._gram[0, 0])

    def add(self, heard: Heard) -> None:
        """Add the rows of a batch.

        Args:
            heard: of them.
        """
        wide, labels = self._gram.dtype, heard.labels
        count = torch.ones_like(heard.teacher) if self.kind != SQUARES else (~labels.isnan()).sum(dim=-1)
        each = torch.stack((torch.zeros_like(heard.teacher), count, heard.student, heard.teacher), dim=1).to(wide)
        size = int(heard.samples.max()) + 1 if len(heard.samples) else 0
        whole = each.new_zeros(size, 4).index_add_(0, heard.samples, each)
        whole[:, 0] = (whole[:, 1] > 0).to(wide)
        self._gram += whole.T @ whole
        if self.kind == SQUARES:
            told = torch.stack((labels.nan_to_num(), labels.nan_to_num().square(), ~labels.isnan()), dim=-1)
            self._labels += told.to(wide).sum(dim=0)
        elif self.heads in (CATEGORICAL, BINARY):
            told = torch.stack((torch.ones_like(heard.teacher), heard.teacher, heard.chance), dim=1).to(wide)
            self._labels.index_add_(0, labels, told)
        else:
            self._labels[0, 2] += heard.chance.to(wide).sum()

    def gather(self, across_ranks: Callable[[Tensor], Tensor] = lambda sums: sums) -> Worth:
        """Return what all ranks have together.

        Args:
            across_ranks: adds up the ranks' sums; called once, on every rank.
        """
        whole = across_ranks(torch.cat((self._gram.flatten(), self._labels.flatten()))).cpu()
        joined = Worth(self.kind, self.heads, len(self._labels))
        joined._gram = whole[:16].view(4, 4).double()
        joined._labels = whole[16:].view(-1, 3).double()
        return joined

    def figures(self) -> dict[str, float]:
        """Return how right both models are, a figure each; none where no row has a label."""
        if not self._gram[1, 1]:
            return {}
        told = math.exp if self.kind == NATS else float
        return {
            f"{who}_{FIGURES[self.kind]}": told(min(self._mean(place), 700.0))
            for place, who in ((3, "teacher"), (2, "student"))
        }

    def behind(self, which: str) -> str | None:
        """Say that the student is ahead of its teacher, by more than two standard errors; None: it is not.

        Args:
            which: where these rows are from, in a word.
        """
        lead = self._better(self._mean(2) - self._mean(3))
        if self.samples < ENOUGH or lead <= 2 * self._error(student=1.0, teacher=-1.0):
            return None
        return BEHIND.format(which=which, **self._said())

    def no_lead(self, which: str) -> str | None:
        """Say that the teacher is not ahead of who knows nothing, in rows in which a lead would show; None: it is.

        Args:
            which: where these rows are from, in a word.
        """
        floor, what, error = self._floor()
        lead, room = self._better(self._mean(3) - floor), abs(float(self.kind == ACCURACY) - floor)
        if self.samples < ENOUGH or lead > 2 * error or lead + 2 * error >= WORTH * room:
            return None
        known = NOTHING_KNOWN[self.kind].format(floor=self._shown(floor), what=what)
        return NO_LEAD.format(known=known, which=which, **self._said())

    def _mean(self, place: int) -> float:
        return float(self._gram[1, 1] and self._sum(place) / self._sum(1))

    def _sum(self, place: int) -> float:
        return float(self._gram[0, place])

    def _better(self, more: float) -> float:
        return more if self.kind == ACCURACY else -more

    def _error(self, student: float, teacher: float) -> float:
        """The standard error of a weighed sum of both means, a ratio of sums over samples."""
        mean = student * self._mean(2) + teacher * self._mean(3)
        weights = torch.tensor([0.0, -mean, student, teacher], dtype=torch.float64)
        square = float(weights @ self._gram @ weights)
        return math.sqrt(max(0.0, square) + self._odd) / max(1.0, self._sum(1))

    @property
    def _odd(self) -> float:
        """Two rows more in which one is right and not the other: that none was found so far proves nothing."""
        return 2.0 if self.kind == ACCURACY else 0.0

    def _floor(self) -> tuple[float, str, float]:
        """What is reached without knowing anything, how, and the standard error of the teacher's lead over it."""
        count, (labels, right, chance) = self._sum(1), self._labels.unbind(dim=1)
        if self.kind == NATS:  # of each token the share that it has among all other labels, every token once more
            there = labels[labels > 0]
            floor = float((there * ((count - 1 + len(labels)) / there).log()).sum() / count)
            return floor, "", self._error(student=0.0, teacher=1.0)
        if self.kind == SQUARES:
            floor = float((right - labels.square() / chance.clamp(min=1)).sum() / count)
            return floor, "", self._error(student=0.0, teacher=1.0)
        if self.heads not in (CATEGORICAL, BINARY):
            return float(chance.sum() / count), "one at random", self._error(student=0.0, teacher=1.0)
        most, what = int(labels.argmax()), "the most frequent class"
        if self.heads == BINARY:
            what = "that each class is there" if most else "that no class is there"
        gained, lost = float(right.sum() - right[most]), float(labels[most] - right[most])
        spread = (gained + lost + self._odd) / count - ((gained - lost) / count) ** 2
        return float(labels[most] / count), what, math.sqrt(spread / self.samples)

    def _shown(self, mean: float) -> str:
        if self.kind == ACCURACY:
            return f"{100 * mean:.1f} %"
        return f"{math.exp(min(mean, 700.0)) if self.kind == NATS else mean:.4g}"

    def _said(self) -> dict[str, Any]:
        student, teacher = (self._shown(self._mean(place)) for place in (2, 3))
        return {
            "figure": {SQUARES: "mean squared error"}.get(self.kind, FIGURES[self.kind]),
            "rows": f"{self._sum(1):,.0f} {'tokens' if self.kind == NATS else 'rows'}",
            "look": LOOK[self.kind],
            "student": student,
            "teacher": teacher,
        }
