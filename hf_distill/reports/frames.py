"""What CTC's frames say: the transcript that is left of them, and how many say nothing.

Knows: classes of frames as arrays. Does not know: models, letters, recordings.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np
from numpy.typing import ArrayLike

SILENT, WRONG = 0.95, 0.95
"""A model is on the blank plateau if more of its frames are blank, and more of its words are wrong, than that."""


def collapse(frames: Sequence[Sequence[int]], blank: int) -> list[list[int]]:
    """Read transcripts off the likeliest classes of frames, as CTC does: repetitions are one, then blanks go.

    Args:
        frames: [N, T], or rows of several lengths; negative ones are padding.
        blank: the class that says nothing.

    Returns:
        The letters of each row.

    Reference:
        Graves et al. 2006, section 3.1 (the map B, best path decoding).

    Example:
        >>> collapse([[0, 5, 5, 0, 5, 6, -100]], blank=0)
        [[5, 5, 6]]
    """
    return [[int(one) for one, _ in groupby(row) if one != blank and one >= 0] for row in frames]


def blank_share(frames: Sequence[ArrayLike], blank: int) -> float:
    """Return which share of the frames says nothing.

    Args:
        frames: the likeliest classes, [N, T] or rows of several lengths; negative ones are padding.
        blank: the class that says nothing.

    Returns:
        From 0 to 1.

    Raises:
        ValueError: there is no frame.

    Example:
        >>> blank_share([[0, 5, 0, 0, -100]], blank=0)
        0.75
    """
    said = np.concatenate([np.zeros(0, dtype=np.int64), *(np.asarray(row).reshape(-1) for row in frames)])
    said = said[said >= 0]
    if not len(said):
        raise ValueError("the share of blanks was asked for and there are no frames: give at least one.")
    return float((said == blank).mean())


def on_blank_plateau(share: float, wer: float) -> bool:
    """Say whether a model has not yet learned to say anything: the plateau on which CTC begins.

    A comparison in which one of the runs is still there shows who leaves it sooner, and nothing about quality.

    Args:
        share: of its frames that are blank, as ``blank_share`` returns it.
        wer: its word error rate.

    Example:
        >>> on_blank_plateau(1.0, 1.0), on_blank_plateau(0.9, 0.1), on_blank_plateau(0.97, 0.2)
        (True, False, False)
    """
    return share > SILENT and wer > WRONG
