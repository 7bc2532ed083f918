"""Several trainings of one process, in turns: one runs at a time, whichever is furthest behind.

Knows: threads, what a process has once and each training needs for itself. Does not know: models, batches, teachers.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from accelerate.state import GradientState

Place = tuple[int, int]
"""How far a training has come: after how many optimizer steps, and there at which question to the teacher."""
BEGINNING: Place = (-1, 0)


class Stopped(BaseException):
    """Ends a training because another one failed; a ``BaseException``, as nobody may take it for a fault of theirs."""


class ProcessState:
    """What a process has once, as one training left it: random numbers, and Accelerate's place in a step.

    Example:
        >>> before = ProcessState()
        >>> first = torch.rand(2)
        >>> before.restore()
        >>> torch.equal(first, torch.rand(2))
        True
    """

    def __init__(self) -> None:
        self.python, self.numpy, self.torch = random.getstate(), np.random.get_state(), torch.get_rng_state()
        self.cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
        self.step = dict(GradientState._shared_state)

    def restore(self) -> None:
        """Put it back."""
        random.setstate(self.python)
        np.random.set_state(self.numpy)
        torch.set_rng_state(self.torch)
        if self.cuda is not None:
            torch.cuda.set_rng_state_all(self.cuda)
        GradientState._shared_state.clear()
        GradientState._shared_state.update(self.step)


class Turn:
    """One training's: it waits for it, and gives it away."""

    def __init__(self) -> None:
        self.place: Place | None = BEGINNING  # None: it is over
        self.go, self.state = threading.Event(), ProcessState()


class Turns:
    """Runs trainings side by side, of which one at a time works: at each question the one that is furthest behind.

    What one training sees of the process (random numbers, Accelerate's place in a step) is put away while another
    one works, so each is, bit for bit, what it would be alone.

    Args:
        count: how many trainings.

    Example:
        >>> turns, told = Turns(2), []
        >>> def training(number):
        ...     for step in range(2):
        ...         turns.wait(number, (step, 0))
        ...         told.append((step, number))
        >>> _ = turns.run([lambda: training(0), lambda: training(1)])
        >>> told
        [(0, 0), (0, 1), (1, 0), (1, 1)]
    """

    def __init__(self, count: int) -> None:
        self._turns = [Turn() for _ in range(count)]
        self._over, self._error = threading.Event(), None

    @property
    def live(self) -> list[int]:
        """The trainings that are not over."""
        return [number for number, turn in enumerate(self._turns) if turn.place is not None]

    @property
    def behind(self) -> Place | None:
        """The place of the training that is furthest behind; None: all are over."""
        return min((self._turns[number].place for number in self.live), default=None)

    def wait(self, number: int, place: Place) -> None:
        """Say how far a training has come, and go on when no other one is further behind.

        Args:
            number: of the training, which is at work.
            place: how far it has come.

        Raises:
            Stopped: another training failed.
        """
        mine = self._turns[number]
        mine.place = place
        if self._error is not None:  # also of one that is left alone: the keyboard's
            raise Stopped
        if self._next() == number:
            return
        mine.state = ProcessState()
        self._wake()
        self._until_woken(number)

    def run(self, trainings: Sequence[Callable[[], Any]]) -> list[Any]:
        """Run them to their ends, each in a thread of its own.

        Args:
            trainings: as many as were promised.

        Returns:
            What each returned.

        Raises:
            BaseException: what the first of them raised that failed; the others stop at their next question.
        """
        found, before = [None] * len(trainings), ProcessState()
        device = torch.cuda.current_device() if torch.cuda.is_initialized() else None

        def work(number: int) -> None:
            try:
                if device is not None:
                    torch.cuda.set_device(device)  # a new thread begins with the first one
                self._until_woken(number)
                found[number] = trainings[number]()
            except Stopped:
                pass
            except BaseException as error:
                self._error = self._error or error
            self._turns[number].place = None
            self._wake()

        threads = [threading.Thread(target=work, args=(n,), name=f"training {n}") for n in range(len(trainings))]
        for thread in threads:
            thread.start()
        self._wake()
        try:
            self._over.wait()
        except BaseException as error:  # the keyboard's, which the first thread alone is told of
            self._error = self._error or error
            self._over.wait()
        for thread in threads:
            thread.join()
        before.restore()
        if self._error is not None:
            raise self._error
        return found

    def _next(self) -> int | None:
        """Who works next: of those that are furthest behind the first; once one failed, any that is left."""
        return min(self.live, key=lambda number: (self._turns[number].place, number), default=None)

    def _wake(self) -> None:
        following = self._next()
        (self._over if following is None else self._turns[following].go).set()

    def _until_woken(self, number: int) -> None:
        mine = self._turns[number]
        mine.go.wait()
        mine.go.clear()
        if self._error is not None:
            raise Stopped
        mine.state.restore()
