"""Chance that hangs on the seed, the step and a row's place in it, and on nothing else.

Knows: numbers. Does not know: models, batches, who holds a row. So a run is the same over ranks and micro-batches, and
a resumed one goes on with the very numbers that it would have had.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from hf_distill.rollouts.settings import Rollout

STUDENT, TEACHER, NOBODY = "student", "teacher", ""


class Draw(NamedTuple):
    """What chance says about a row.

    Args:
        writer: who writes it anew: ``"student"``, ``"teacher"``, or nobody.
        uniform: float64 [max_new_tokens] in [0, 1), one for each token that a writer draws.
    """

    writer: str
    uniform: np.ndarray


def draw(rollout: Rollout, seed: int, step: int, row: int) -> Draw:
    """Draw for one row of one optimizer step.

    Args:
        rollout: the shares.
        seed: of the run.
        step: optimizer steps made so far.
        row: its place among all rows of the step, over ranks and micro-batches; see ``places``.

    Example:
        >>> half = Rollout(on_policy=0.5, seq_kd=0.25, max_new_tokens=2)
        >>> [draw(half, seed=42, step=0, row=row).writer for row in range(4)]
        ['', '', '', 'teacher']
    """
    generator = np.random.default_rng((abs(seed), step, row))
    chance = generator.random()
    writer = STUDENT if chance < rollout.on_policy else NOBODY
    if not writer and chance < rollout.on_policy + rollout.seq_kd:
        writer = TEACHER
    return Draw(writer, generator.random(rollout.max_new_tokens))


def places(sizes: Sequence[Sequence[int]], rank: int) -> list[int]:
    """Say where each micro-batch of a rank begins among all rows of an optimizer step.

    Rows are counted as the data comes: the first micro-batch of each rank, then the second of each.

    Args:
        sizes: for each rank the number of rows of each of its micro-batches.
        rank: whose places.

    Returns:
        The place of the first row of each micro-batch.

    Example:
        >>> places([[2, 2], [2, 1]], rank=1)
        [2, 6]
    """
    before, begins = 0, []
    for turn in range(len(sizes[rank])):
        for other, held in enumerate(sizes):
            if other == rank:
                begins.append(before)
            before += held[turn]
    return begins
