"""What one kind of model is measured by: what a scoring is, and how its figures are shown.

Knows: figures by name, how a table shows them. Does not know: what a model is for, how it was made or trained.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from datasets import Dataset
from torch import nn
from transformers import Trainer

from hf_distill.reports import GapClosed, mean_interval
from hf_distill.reports.samples import Samples

Column = Callable[[Mapping[str, Any]], str]
"""How a row of the report is shown in one column of its table."""


@dataclass
class Measurement:
    """What was found of one model on some rows.

    Args:
        each: score -> its value for each row (or question), [N]; the report has their means and standard errors.
        figures: what is no mean over rows.
        predictions: what a picture may be drawn of; None: nothing.
    """

    each: Mapping[str, np.ndarray]
    figures: Mapping[str, float] = field(default_factory=dict)
    predictions: Any = None

    def means(self) -> dict[str, float]:
        """All figures."""
        return {**{name: float(np.mean(one)) for name, one in self.each.items()}, **self.figures}

    def row(self, plotted: str, share: bool) -> dict[str, Any]:
        """All figures, with ``<score>_error`` beside each mean, and the 95 % ``_interval`` of one.

        Args:
            plotted: which one the picture shows.
            share: whether it is a share of rows.
        """
        errors = {f"{name}_error": standard_error(one) for name, one in self.each.items()}
        bounds = mean_interval(self.each[plotted], share=share)
        return {**self.means(), **errors, f"{plotted}_interval": bounds and list(bounds)}


def standard_error(values: np.ndarray) -> float:
    """The standard error of a mean, by N - 1 as a gap's; of the jackknife's pseudo-values it is the jackknife's own.

    Args:
        values: [N]; of one alone 0 is returned.

    Example:
        >>> standard_error(np.array([1.0, 3.0])), standard_error(np.array([2.0]))
        (1.0, 0.0)
    """
    return float(np.std(values, ddof=min(1, len(values) - 1)) / np.sqrt(len(values)))


def percent(key: str) -> Column:
    """Show a share from 0 to 1 in percent, with its error where there is one.

    Example:
        >>> percent("f1")({"f1": 0.5, "f1_error": 0.01}), percent("f1")({"f1": 0.25})
        ('50.0 ± 1.0', '25.0')
    """

    def shown(row: Mapping[str, Any]) -> str:
        error = f" ± {100 * row[f'{key}_error']:.1f}" if f"{key}_error" in row else ""
        return f"{100 * row[key]:.1f}{error}"

    return shown


class Scoring(ABC):
    """How one kind of model is measured.

    Attributes:
        score: the figure that the gap is about.
        plotted: which figure the picture shows, and how to name it beside an axis, ``{split}`` for whose rows.
        share: whether that figure is a share of rows, each of which is right or wrong.
        lower_is_better: whether the score is an error, as a WER is one.
        is_loss: whether the score is what the teacher asks for, which nobody measures without asking it: a rate is
            chosen by the score itself then.
        columns: heading of the table -> how a row is shown under it, sizes and speed left out.
        hub: metric type on the Hub -> figure.
        baseline: the model that shows what a student is without its teacher.
        speed_rows: on how many test rows a model is timed.
        unit: what is counted in a second.
        each: what the figures are means over.
        floor_said: how to name the floor, with ``{}`` for it in percent.
    """

    score: ClassVar[str]
    plotted: tuple[str, str]
    share: ClassVar[bool] = False
    lower_is_better: ClassVar[bool] = False
    is_loss: ClassVar[bool] = False
    columns: Mapping[str, Column]
    hub: ClassVar[Mapping[str, str]]
    baseline: ClassVar[str] = "student alone"
    speed_rows: ClassVar[int] = 2048
    unit: ClassVar[str] = "samples"
    each: ClassVar[str] = "rows"
    floor_said: ClassVar[str] = "{:.1f} %"

    def measure(self, trainers: Mapping[str, Trainer], rows: Dataset, reference: Trainer) -> dict[str, Measurement]:
        """Measure a teacher and its students.

        Args:
            trainers: of the students, by their names.
            rows: tokenised rows with what they are measured by.
            reference: a trainer with the teacher.

        Returns:
            For ``teacher`` and each name: what was found.
        """
        for one in (reference, *trainers.values()):  # by length, Trainer draws the order of test rows as well
            one.args.train_sampling_strategy = "random"
        return self.evaluate(trainers, rows, reference)

    @abstractmethod
    def evaluate(self, trainers: Mapping[str, Trainer], rows: Dataset, reference: Trainer) -> dict[str, Measurement]:
        """Do what ``measure`` promises, with the rows in their order."""

    def counted(self, rows: Dataset) -> str:
        """Say of how many rows the figures are."""
        return f"{len(rows):,} {self.each}"

    def scores(self, measurement: Measurement) -> np.ndarray:
        """The score of each row, turned round where it is an error, so that higher is better: [N]."""
        each = measurement.each[self.score]
        return -each if self.lower_is_better else each

    def seconds(self, rows: Dataset) -> float | None:
        """Say how many seconds of audio there are, for the real-time factor; None: there is none.

        Args:
            rows: tokenised rows.
        """
        return None

    def summary(self, gap: GapClosed) -> str:
        """Say in a sentence what the teacher gave."""
        return str(gap)

    def floor(self, test: Dataset, train: Dataset) -> float | None:
        """Say what a model that learnt nothing scores, in the unit of ``score``; None where that is not known.

        Args:
            test: tokenised rows that models are measured on.
            train: tokenised rows with the labels that they learn from.
        """
        return None

    def floor_row(self, floor: float | None) -> dict[str, Any]:
        """Return the figures of who learnt nothing, as a row of the table has them.

        Args:
            floor: as ``floor`` has it.
        """
        return {"name": "floor", self.score: floor}

    def floor_named(self, floor: float) -> str:
        """Say what the floor is.

        Args:
            floor: as ``floor`` has it.
        """
        return self.floor_said.format(100 * floor)

    def above_floor(self, rows: Sequence[Mapping[str, Any]], floor: float | None) -> dict[str, float | None]:
        """Return by how much the best model is ahead of who learnt nothing.

        Args:
            rows: of the report.
            floor: as ``floor`` has it.

        Returns:
            ``floor``; and where there is one ``floor_lead``, which is not above 0 where nothing was learned, with its
            standard error, where the score has one, under ``floor_lead_error``.
        """
        if floor is None:
            return {"floor": None}
        # Where every model diverged there is no best one, and nothing was learned.
        lead, error = -math.inf, 0.0
        for row in rows:
            ahead = (floor - row[self.score]) if self.lower_is_better else (row[self.score] - floor)
            if ahead > lead:
                lead, error = ahead, row.get(f"{self.score}_error", 0.0)
        return {"floor": floor, "floor_lead": lead, "floor_lead_error": error}

    def timed(self, model: nn.Module, trainer: Trainer) -> nn.Module:
        """What is timed of a model: its forward, if nothing else."""
        return model

    def extra_figures(self, model: nn.Module, teacher: nn.Module) -> dict[str, Any]:
        """What else is to be known of a student, with both models whole."""
        return {}

    def details(self, measurements: Mapping[str, Measurement]) -> dict[str, Any]:
        """What else belongs in the report."""
        return {}

    def disagreements(self, measurements: Mapping[str, Measurement], rows: Dataset) -> Samples | None:
        """Choose the rows on which the student and the teacher differ most, for a page that a person reads.

        Args:
            measurements: what was found of each, ``teacher`` and ``distilled`` among them.
            rows: tokenised, which were measured.

        Returns:
            The rows; None where nothing of them can be shown.
        """
        return None

    def pictures(self, measurements: Mapping[str, Measurement], folder: Path) -> dict[str, str]:
        """Draw what else can be shown of the models.

        Args:
            measurements: what was found of each.
            folder: where the pictures go.

        Returns:
            File -> what it shows.
        """
        return {}
