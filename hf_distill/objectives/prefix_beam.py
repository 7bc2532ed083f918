"""What a model says that gives letters and blanks frame by frame: its best transcript, or several with their shares.

Knows: log probabilities of frames. Does not know: which model, tokenizers, what is learned from a transcript.
"""

from __future__ import annotations

import math

from torch import Tensor

NEVER = 1e-6
"""Letters less probable than this in a frame begin no transcript there."""


def best_path(log_p: Tensor, blank: int) -> tuple[int, ...]:
    """Return the transcript of the likeliest letter of each frame: without blanks, repetitions once.

    Args:
        log_p: [T, V], of one recording.
        blank: the class that says nothing.

    Example:
        >>> import torch
        >>> best_path(torch.eye(3)[[1, 1, 0, 1, 2, 2]], blank=0)
        (1, 1, 2)
    """
    return tuple(letter for letter in log_p.argmax(dim=-1).unique_consecutive().tolist() if letter != blank)


def prefix_beam(log_p: Tensor, blank: int, several: int, beam: int) -> list[tuple[tuple[int, ...], float]]:
    """Return the likeliest transcripts, each with the logarithm of the probability of all of its alignments.

    Args:
        log_p: [T, V] log probabilities of one recording.
        blank: the class that says nothing.
        several: how many are returned at most.
        beam: how many beginnings of transcripts go from one frame to the next; at least ``several``.

    Returns:
        (letters, log probability), the likeliest first.

    Reference:
        Graves: Supervised Sequence Labelling with Recurrent Neural Networks, 2012, section 7.5.3.

    Example:
        >>> import torch
        >>> frames = torch.tensor([[0.6, 0.4], [0.6, 0.4]]).log()  # "-a", "a-" and "aa" together against "--"
        >>> [(letters, round(math.exp(share), 2)) for letters, share in prefix_beam(frames, 0, several=2, beam=2)]
        [((1,), 0.64), ((), 0.36)]
    """
    # Of each beginning: the log probability of its alignments that end in a blank, and of those that end in a letter.
    beams: dict[tuple[int, ...], tuple[float, float]] = {(): (0.0, -math.inf)}
    rows, likely = log_p.double().tolist(), log_p.double().exp() > NEVER
    for frame, heard in zip(rows, likely, strict=True):
        letters = [letter for letter in heard.nonzero().flatten().tolist() if letter != blank]
        grown: dict[tuple[int, ...], tuple[float, float]] = {}

        def add(prefix: tuple[int, ...], silent: float, spoken: float, grown: dict = grown) -> None:
            before = grown.get(prefix, (-math.inf, -math.inf))
            grown[prefix] = _sum(before[0], silent), _sum(before[1], spoken)

        for prefix, (silent, spoken) in beams.items():
            whole = _sum(silent, spoken)
            stays = spoken + frame[prefix[-1]] if prefix else -math.inf
            add(prefix, whole + frame[blank], stays)
            for letter in letters:
                again = bool(prefix) and letter == prefix[-1]  # only behind a blank is it said twice
                add((*prefix, letter), -math.inf, (silent if again else whole) + frame[letter])
        beams = dict(sorted(grown.items(), key=lambda one: -_sum(*one[1]))[:beam])
    found = [(prefix, _sum(*both)) for prefix, both in beams.items()]
    return sorted(found, key=lambda one: -one[1])[:several]


def _sum(one: float, other: float) -> float:
    """The logarithm of a sum of two exponentials."""
    low, high = sorted((one, other))
    return high if low == -math.inf else high + math.log1p(math.exp(low - high))
