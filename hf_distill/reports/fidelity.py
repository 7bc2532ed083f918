"""How close a student comes to its teacher, and how much of that it owes to it.

Knows: predictions and labels as arrays. Does not know: models, trainers, files.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from hf_distill.reports.intervals import Interval, mean_interval, ratio_interval


def agreement(student: ArrayLike, teacher: ArrayLike) -> float:
    """Share of samples where both models choose the same class.

    Args:
        student: logits or probabilities [N, C].
        teacher: the same of the teacher.

    Returns:
        From 0 to 1.

    Example:
        >>> agreement([[0.0, 1.0], [1.0, 0.0]], [[0.0, 9.0], [0.0, 1.0]])
        0.5
    """
    return float(np.mean(np.argmax(student, axis=-1) == np.argmax(teacher, axis=-1)))


@dataclass(frozen=True)
class GapClosed:
    """How much of the gap between the student alone and the teacher the distilled student closed.

    Args:
        gap: teacher - alone, in the units of the score.
        gap_error: standard error of the gap.
        gain: distilled - alone.
        gain_error: standard error of the gain.
        ratio: gain / gap; None where the gap is under two of its standard errors: a ratio of noise says nothing; and
            where a score is no number.
        ratio_error: standard error of the ratio; None with it.
        interval: bounds of the ratio at 95 %; None with it, and where the gap is too uncertain for any bound.
        gain_interval: bounds of the gain at 95 %; None where all units gained the same, or there is one.
    """

    gap: float
    gap_error: float
    gain: float
    gain_error: float
    ratio: float | None
    ratio_error: float | None
    interval: Interval | None = None
    gain_interval: Interval | None = None

    @property
    def withheld(self) -> str:
        """Why no share of the gap is given; for where ``ratio`` is None."""
        if math.isnan(self.gap) or math.isnan(self.gain):
            return "a score is no number, so no share of the gap is given"
        if self.gap <= 0:
            return "the teacher is not ahead of the student alone, so there is no gap to close"
        return "the gap is under two standard errors, so no share of it is given"

    def __str__(self) -> str:
        """One sentence, in points of a hundred."""
        gain = f"gain {100 * self.gain:+.1f} ± {100 * self.gain_error:.1f} points"
        gap = f"gap to the teacher {100 * self.gap:.1f} ± {100 * self.gap_error:.1f}"
        if self.ratio is None:
            return f"{gain}, {gap}: {self.withheld}"
        bounds = "the gap is too uncertain for bounds"
        if self.interval is not None:
            bounds = f"{100 * self.interval.low:.0f} to {100 * self.interval.high:.0f} %"
        ratio = f"{100 * self.ratio:.0f} ± {100 * self.ratio_error:.0f} % of the gap closed"
        return f"{gain}, {gap}: {ratio} (at 95 %: {bounds})"


def gap_closed(alone: ArrayLike, distilled: ArrayLike, teacher: ArrayLike, lower_is_better: bool = False) -> GapClosed:
    """Measure what distillation gave, from scores in pairs.

    Args:
        alone: [N], one score for each unit, of the student that was trained without the teacher. Units are test
            samples (1 right, 0 wrong) of one run, or whole runs with different seeds.
        distilled: [N], of the distilled student, on the same units.
        teacher: [N], of the teacher, on the same units.
        lower_is_better: the scores are errors, as a WER is one: a gain is what there are fewer of, and the teacher is
            ahead where it has fewer.

    Returns:
        Means over the units with their standard errors; the ratio's is the delta method's for a ratio of paired means,
        its bounds are Fieller's (see ``ratio_interval``).

    Example:
        >>> print(gap_closed(alone=[0.75, 0.76, 0.74], distilled=[0.78, 0.79, 0.77], teacher=[0.81, 0.81, 0.81]))
        gain +3.0 ± 0.0 points, gap to the teacher 6.0 ± 0.6: 50 ± 5 % of the gap closed (at 95 %: 35 to 85 %)
    """
    alone, distilled, teacher = (np.asarray(scores, dtype=np.float64) for scores in (alone, distilled, teacher))
    gain, gap = distilled - alone, teacher - alone
    if lower_is_better:
        gain, gap = -gain, -gap
    ratio = gain.mean() / gap.mean() if gap.mean() else math.inf
    noise = _standard_error(gap)
    known = gap.mean() > 0 and gap.mean() >= 2 * noise and math.isfinite(ratio)
    return GapClosed(
        gap=float(gap.mean()),
        gap_error=noise,
        gain=float(gain.mean()),
        gain_error=_standard_error(gain),
        ratio=float(ratio) if known else None,
        ratio_error=_standard_error(gain - ratio * gap) / float(gap.mean()) if known else None,
        interval=ratio_interval(gain, gap) if known else None,
        gain_interval=mean_interval(gain) if np.isfinite(gain).all() else None,
    )


def _standard_error(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.inf
