"""What a model says that gives letters and blanks frame by frame: its best transcript, or several with their shares.

Knows: log probabilities of frames. Does not know: which model, tokenizers, what is learned from a transcript.
"""

from __future__ import annotations

import math

from torch import Tensor

NEVER = math.log(1e-6)
"""Letters less probable than this in a frame are not said there."""


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
        beam: how many beginnings of transcripts go from one frame to the next, at least ``several``; of each frame as
            many classes are looked at, and one.

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
    # A beginning is a number: what it was before its last letter, and that letter. So long ones cost no more.
    before, last, known = [-1], [-1], {}
    # Of each, the log probability of its alignments that end in a blank, and of those that end in a letter.
    beams = {0: (0.0, -math.inf)}
    log_p = log_p.double()
    letters_of = [[k for k in row if k != blank] for row in log_p.topk(min(beam + 1, log_p.shape[1])).indices.tolist()]
    for frame, letters in zip(log_p.tolist(), letters_of, strict=True):
        likely, grown = [letter for letter in letters if frame[letter] > NEVER], {}

        def add(one: int, silent: float, spoken: float, grown: dict = grown) -> None:
            there = grown.get(one)
            grown[one] = (silent, spoken) if there is None else (_sum(there[0], silent), _sum(there[1], spoken))

        for one, (silent, spoken) in beams.items():
            whole = _sum(silent, spoken)
            add(one, whole + frame[blank], spoken + frame[last[one]] if one else -math.inf)
            for letter in likely:
                if (longer := known.setdefault((one, letter), len(last))) == len(last):
                    before.append(one)
                    last.append(letter)
                # Only behind a blank is the same letter said twice.
                add(longer, -math.inf, (silent if letter == last[one] else whole) + frame[letter])
        beams = dict(sorted(grown.items(), key=lambda each: -_sum(*each[1]))[:beam])

    def spelled(one: int) -> tuple[int, ...]:
        letters = []
        while one:
            letters.append(last[one])
            one = before[one]
        return tuple(reversed(letters))

    found = sorted(((one, _sum(*both)) for one, both in beams.items()), key=lambda each: -each[1])[:several]
    return [(spelled(one), share) for one, share in found]


def _sum(one: float, other: float) -> float:
    """The logarithm of a sum of two exponentials."""
    if one < other:
        one, other = other, one
    return one if other == -math.inf else one + math.log1p(math.exp(other - one))
