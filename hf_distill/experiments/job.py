"""How far a whole job is: its parts, and how long all that is left of them may take.

Knows: parts and their steps, a clock, Trainer's bars. Does not know: what a part is for, models, rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any

from transformers import Trainer
from transformers.trainer_callback import ProgressCallback


class Job:
    """The parts of a run, one after the other.

    A part that has not begun is taken to be as slow, a step, as the one at hand: before the students have been seen,
    that is as slow as their teacher, which is larger. So the time that is told is rather too long, and shrinks.

    Args:
        parts: name -> its steps; one that takes no batches of its own is given as many as it would be worth.
        now: tells seconds.

    Example:
        >>> clock = iter([0.0, 10.0, 30.0])
        >>> job = Job({"teacher": 100, "student": 50}, now=lambda: next(clock))
        >>> job.begin("teacher")
        '1 of 2'
        >>> job.step(20)  # in ten seconds
        >>> job.left()
        65.0
    """

    def __init__(self, parts: Mapping[str, float], now: Callable[[], float] = monotonic) -> None:
        self.parts, self.now = dict(parts), now
        self.part, self.began, self.done, self.skipped = "", 0.0, 0.0, 0.0
        self.pace: float | None = None

    def begin(self, part: str) -> str:
        """Begin a part; the one before is over.

        Args:
            part: its name.

        Returns:
            Which of how many, and how long all may take from here, where that is known.
        """
        numbers = list(self.parts)
        self.part, self.began, self.done, self.skipped = part, self.now(), 0.0, 0.0
        told = f"{numbers.index(part) + 1} of {len(numbers)}"
        return told if self.pace is None else f"{told}, at most {clock(self._rest() * self.pace)} more"

    def skip(self, steps: float) -> None:
        """Leave out steps that were taken by another run.

        Args:
            steps: how many.
        """
        self.skipped += steps

    def step(self, steps: float = 1) -> None:
        """Take steps of the part at hand.

        Args:
            steps: how many.
        """
        self.done += steps
        self.pace = (self.now() - self.began) / self.done

    def left(self) -> float | None:
        """Return the seconds that all of it may take from the last step on; None before the first."""
        return None if self.pace is None else self._rest() * self.pace

    def watch(self, trainer: Trainer) -> Trainer:
        """Let a trainer's bar tell how long the whole job may take; where it has none, nothing is changed.

        Args:
            trainer: of the part that begins next.
        """
        if trainer.pop_callback(ProgressCallback) is not None:
            trainer.add_callback(JobBar(self))
        return trainer

    def _rest(self) -> float:
        """How many steps are left, of the part at hand and of those behind it."""
        names = list(self.parts)
        later = names[names.index(self.part) + 1 :]
        return max(0.0, self.parts[self.part] - self.done - self.skipped) + sum(self.parts[name] for name in later)


class JobBar(ProgressCallback):
    """Trainer's bar, with the time that the whole job may take beside that of this training.

    Args:
        job: whose part the training is.
    """

    def __init__(self, job: Job) -> None:
        super().__init__()
        self.job = job

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begin the bar, where a checkpoint left off."""
        super().on_train_begin(args, state, control, **kwargs)
        self.job.skip(state.global_step)
        self.before = state.global_step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Move the bar."""
        self.job.step(state.global_step - self.before)
        self.before = state.global_step
        if self.training_bar is not None:
            self.training_bar.set_postfix_str(f"all: {clock(self.job.left())} at most", refresh=False)
        super().on_step_end(args, state, control, **kwargs)


def clock(seconds: float) -> str:
    """Write a time as a bar does.

    Example:
        >>> clock(65.4), clock(7325)
        ('1:05', '2:02:05')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
