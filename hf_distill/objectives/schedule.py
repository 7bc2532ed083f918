"""How a number changes while a run goes on.

Knows: steps. Does not know: which number it is, or who asks. What it answers depends on the step alone, so a resumed
run goes on exactly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

KINDS = ("constant", "linear", "cosine")
TAKES = ("kind", "value", "start", "end", "from", "until")


class Schedule:
    """A number for each optimizer step.

    Args:
        kind: ``"constant"``: ``value`` from ``first`` until ``until``, 0 outside, so several stages are one run.
            ``"linear"`` and ``"cosine"``: from ``start`` to ``end`` between the two, ``start`` before, ``end`` after.
        value: of the constant.
        start: where a ramp begins.
        end: where it ends.
        first: the first step; an integer is a number of steps, a float from 0 to 1 a share of all steps.
        until: the step after the last one, likewise.

    Raises:
        ValueError: another kind, a number that is not finite, or an empty window.

    Example:
        >>> Schedule("linear", start=4.0, end=1.0, until=0.5).at(step=25, steps=100)
        2.5
        >>> stage = Schedule("constant", value=2.0, first=0.5)
        >>> stage.at(step=49, steps=100), stage.at(step=50, steps=100)
        (0.0, 2.0)
    """

    def __init__(
        self,
        kind: str = "constant",
        value: float = 1.0,
        start: float = 0.0,
        end: float = 1.0,
        first: float = 0,
        until: float = 1.0,
    ) -> None:
        if kind not in KINDS:
            raise ValueError(f"a schedule of kind {kind!r} was asked for: use {', '.join(KINDS)}.")
        for name, number in (("value", value), ("start", start), ("end", end), ("from", first), ("until", until)):
            whole = isinstance(number, (int, float)) and not isinstance(number, bool)
            if not whole or not math.isfinite(number) or number < 0:
                raise ValueError(f"{name}={number!r} was given to a schedule: give a number of at least 0.")
            if name in ("from", "until") and isinstance(number, float) and number > 1:
                raise ValueError(
                    f"{name}={number} was given to a schedule: give a share of the run from 0.0 to 1.0, or a whole "
                    "number of steps."
                )
        if type(first) is type(until) and first >= until:
            raise ValueError(f"a schedule from {first} until {until} was asked for, which is never: swap them.")
        self.kind, self.value, self.start, self.end, self.first, self.until = kind, value, start, end, first, until

    @classmethod
    def read(cls, spec: Mapping[str, Any], what: str) -> Schedule:
        """Make a schedule of what a user wrote in YAML or JSON.

        Args:
            spec: ``kind``, ``value``, ``start``, ``end``, ``from`` and ``until``, each with its default.
            what: the number that changes, for a message.

        Raises:
            ValueError: something else is in it, or its values cannot be used.

        Example:
            >>> Schedule.read({"until": 0.25}, "weight").at(step=30, steps=100)
            0.0
        """
        if strangers := sorted(set(spec) - set(TAKES)):
            raise ValueError(f"the schedule of {what} was given {strangers}: it takes {', '.join(TAKES)}.")
        try:
            return cls(**{"first" if name == "from" else name: number for name, number in spec.items()})
        except ValueError as error:
            raise ValueError(f"{what}: {error}") from error

    @property
    def highest(self) -> float:
        """The largest number that it ever gives."""
        return self.value if self.kind == "constant" else max(self.start, self.end)

    @property
    def lowest(self) -> float:
        """The smallest number that it may give."""
        always = self.first == 0 and self.until == 1.0 and isinstance(self.until, float)
        return min(self.start, self.end) if self.kind != "constant" else self.value if always else 0.0

    def at(self, step: int, steps: int) -> float:
        """Return the number for a step.

        Args:
            step: how many optimizer steps are done, ``state.global_step``.
            steps: how many there will be, ``state.max_steps``.

        Returns:
            The number.
        """
        steps = max(1, steps)  # before a training nobody knows how many there will be
        first, until = (round(b * steps) if isinstance(b, float) else b for b in (self.first, self.until))
        if self.kind == "constant":
            # After the last step, in an evaluation, the last stage still holds.
            return self.value if first <= min(step, steps - 1) < until else 0.0
        done = min(1.0, max(0.0, (step - first) / max(1, until - first)))
        if self.kind == "cosine":
            done = 0.5 - 0.5 * math.cos(math.pi * done)
        return self.start + (self.end - self.start) * done

    def __eq__(self, other: object) -> bool:
        """Whether both give the same numbers."""
        return isinstance(other, Schedule) and vars(self) == vars(other)

    __hash__ = None

    def boundaries(self, steps: int) -> set[int]:
        """Return the steps at which it may change from nothing to something, or back.

        Args:
            steps: how many there will be.
        """
        return {round(b * steps) if isinstance(b, float) else b for b in (self.first, self.until)}

    def __repr__(self) -> str:
        """Show it in ``print(objective)``."""
        if self.kind == "constant":
            return f"{self.value:g} from {self.first} until {self.until}"
        return f"{self.kind} {self.start:g} -> {self.end:g} from {self.first} until {self.until}"
