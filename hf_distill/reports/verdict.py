"""The word that decides: did the teacher help, and is the student good enough to be released?

Knows: a gain with its interval, the rows of a report. Does not know: how they were measured, who is told, exit codes.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from hf_distill.reports.fidelity import GapClosed

HELPS, CLOSE, HARMS, UNKNOWN = "helps", "too close to call", "harms", "not known"
NOTHING = "nothing was learned: the best model is the floor"
UNPROVED = "nothing is proved: --quick took a tenth of the rows"
COMPARED = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}
ASKED = re.compile(r"\s*(\w+)\s*(>=|<=|>|<)\s*([-+]?[\d.]+(?:e-?\d+)?)\s*(?:\*\s*(teacher|alone))?\s*", re.IGNORECASE)
ROWS = {"teacher": "teacher", "alone": "student alone"}


def verdict(gap: GapClosed | None, lead: float | None = None) -> str:
    """Say whether the distilled student is better than the same student alone.

    Args:
        gap: what was measured of both; None where there was no student alone.
        lead: by how much the best of all models is ahead of who learnt nothing; None: nobody knows.

    Returns:
        ``helps`` or ``harms`` where the interval of the gain at 95 % lies on one side of 0, ``too close to call``
        where it holds 0, ``not known`` without a gap; ``nothing was learned: ...`` where there is no lead.

    Example:
        >>> from hf_distill.reports import gap_closed
        >>> verdict(gap_closed(alone=[0.75, 0.76, 0.74], distilled=[0.78, 0.79, 0.78], teacher=[0.81, 0.81, 0.81]))
        'helps'
        >>> verdict(gap_closed(alone=[0.75, 0.79, 0.74], distilled=[0.78, 0.73, 0.78], teacher=[0.81, 0.81, 0.81]))
        'too close to call'
        >>> verdict(None, lead=0.0)
        'nothing was learned: the best model is the floor'
    """
    if lead is not None and lead <= 0:
        return NOTHING
    if gap is None:
        return UNKNOWN
    if gap.gain_interval is None:  # all units gained the same, or there is one, whose error is infinite
        low = high = gap.gain if gap.gain_error == 0 else 0.0
    else:
        low, high = gap.gain_interval
    return HELPS if low > 0 else HARMS if high < 0 else CLOSE


@dataclass(frozen=True)
class Requirement:
    """What a student must be to be released.

    Args:
        figure: ``gap_closed``, ``gain``, or one of the student's row of the report: ``accuracy``, ``latency``, ...
        comparison: ``>=``, ``<=``, ``>`` or ``<``.
        limit: what it is compared with, a share of 1 where the report has one.
        of: None: the limit is a number; ``teacher`` or ``alone``: it is so many times that model's same figure.
    """

    figure: str
    comparison: str
    limit: float
    of: str | None = None

    @classmethod
    def parse(cls, asked: str) -> Requirement:
        """Read a requirement as a user writes it.

        Args:
            asked: a figure, a comparison, and a number that may be a share of another model's.

        Raises:
            ValueError: it is none.

        Example:
            >>> Requirement.parse("accuracy >= 0.97*teacher")
            Requirement(figure='accuracy', comparison='>=', limit=0.97, of='teacher')
        """
        found = ASKED.fullmatch(asked)
        try:
            figure, comparison, limit, of = found.groups()
            return cls(figure, comparison, float(limit), of and of.lower())
        except (AttributeError, ValueError):
            raise ValueError(
                f"require={asked!r} was given: give a figure, >=, <=, > or <, and a number, which may be a share of a "
                "model's, as gap_closed>=0.5 or accuracy>=0.97*teacher."
            ) from None

    def __str__(self) -> str:
        """As it was asked for."""
        return f"{self.figure}{self.comparison}{self.limit:g}{f'*{self.of}' if self.of else ''}"

    def unmet(self, report: Mapping[str, Any]) -> str | None:
        """Say what there was in a report that is not what is required; None where it is met.

        Args:
            report: ``models`` (a row each with ``name``) and ``gap``.
        """
        rows = {row["name"]: row for row in report["models"]}
        found = _figure(self.figure, "distilled", rows, report.get("gap"))
        limit = self.limit
        if self.of:
            other = _figure(self.figure, ROWS[self.of], rows, None)
            if other is None:
                return f"{self} was required, and the report has no {self.figure} of the {ROWS[self.of]}"
            limit *= other
        if found is None:
            return f"{self} was required, and the report has no {self.figure} to judge by: {_known(rows)}"
        if COMPARED[self.comparison](found, limit):
            return None
        return f"{self} was required, and {self.figure} is {_told(found)}" + (f" of {_told(limit)}" if self.of else "")


@dataclass(frozen=True)
class NoDrop:
    """A class of which the student may not lose more than so much against its teacher.

    Args:
        label: the class, by its name or number.
        points: how many points of F1, of a hundred, it may be behind.
    """

    label: str
    points: float

    @classmethod
    def parse(cls, asked: str) -> NoDrop:
        """Read it as a user writes it.

        Args:
            asked: a class and points of F1, between them a colon.

        Raises:
            ValueError: it is no such pair.

        Example:
            >>> NoDrop.parse("spam:2")
            NoDrop(label='spam', points=2.0)
        """
        label, _, points = asked.rpartition(":")
        try:
            allowed = float(points)
            if not label or not math.isfinite(allowed) or allowed < 0:
                raise ValueError
        except ValueError:
            raise ValueError(
                f"forbid_drop={asked!r} was given: give a class and how many points of F1 it may lose, as spam:2."
            ) from None
        return cls(label, allowed)

    def __str__(self) -> str:
        """As it was asked for."""
        return f"{self.label}:{self.points:g}"

    def unmet(self, report: Mapping[str, Any]) -> str | None:
        """Say what there was in a report that is more than may be lost; None where nothing is.

        Args:
            report: with ``classes``, as recipes of classes write it.
        """
        asked, classes = f"no drop of {self} was allowed", report.get("classes") or []
        for one in classes:
            if self.label in (one["name"], str(one["number"])):
                theirs, ours = (one["f1"].get(name) for name in ("teacher", "distilled"))
                if theirs is None or ours is None:
                    return f"{asked}, and the F1 of {one['name']} is not known: it has no test rows"
                lost = round(100 * (theirs - ours), 9)  # 2 points are no more than 2 points
                return f"{asked}, and {one['name']} lost {lost:.1f} points of F1" if lost > self.points else None
        there = ", ".join(one["name"] for one in classes) or "no classes"
        return f"{asked}, and the report has {there}: name one of its classes"


def unmet(required: Iterable[Requirement | NoDrop], report: Mapping[str, Any]) -> list[str]:
    """Say what of the requirements a report does not meet, a sentence each.

    Args:
        required: all of them.
        report: what ``report.json`` holds.

    Example:
        >>> report = {"models": [{"name": "teacher", "f1": 0.9}, {"name": "distilled", "f1": 0.8}], "gap": None}
        >>> unmet([Requirement.parse("f1>=0.97*teacher"), Requirement.parse("f1>0.5")], report)
        ['f1>=0.97*teacher was required, and f1 is 0.8 of 0.873']
    """
    return [said for one in required if (said := one.unmet(report)) is not None]


def _figure(name: str, model: str, rows: Mapping[str, Any], gap: Mapping[str, Any] | None) -> float | None:
    if name in ("gap_closed", "gain"):
        found = (gap or {}).get("ratio" if name == "gap_closed" else "gain")
    else:
        found = rows.get(model, {}).get(name)
    known = isinstance(found, (int, float)) and math.isfinite(found)
    return float(found) if known else None


def _told(number: float) -> str:
    return f"{number:,.0f}" if abs(number) >= 1000 else f"{number:.4g}"


def _known(rows: Mapping[str, Any]) -> str:
    there = [name for name, value in rows.get("distilled", {}).items() if isinstance(value, (int, float))]
    return f"it has {', '.join(['gap_closed', 'gain', *there])}"
