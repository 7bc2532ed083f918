"""What a tagger finds: spans of tags, exactly, and the F1 of all of them with its error.

Knows: tags as words. Does not know: tokens, models, files.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

STARTS, ENDS = frozenset("BSU"), frozenset("ESL")
"""The first letters of tags that open a span, and of tags that close one."""


def spans_of(tags: Sequence[str]) -> set[tuple[int, int, str]]:
    """Read the spans that a row of tags describes.

    The schemes are B I O, I O, B I O E S, B I L O U, and B M E S, where a type may stand behind the letter
    (``B-place``). As in the CoNLL evaluation a span also begins where the type changes, and behind an O or a closed
    span, whatever the letter: a tagger's mistake loses no more than it must.

    Args:
        tags: one for each token.

    Returns:
        (start, stop, type) of each, ``stop`` being the position after its last.

    Example:
        >>> sorted(spans_of(["B-place", "I-place", "O", "I-name"]))
        [(0, 2, 'place'), (3, 4, 'name')]
        >>> sorted(spans_of("BMESS"))
        [(0, 3, ''), (3, 4, ''), (4, 5, '')]
    """
    found, start, last = set(), None, "O"
    for position, tag in enumerate([*tags, "O"]):
        inside = tag != "O"
        begins = inside and (tag[0] in STARTS or last == "O" or last[0] in ENDS or tag[2:] != last[2:])
        if start is not None and (begins or not inside):
            found.add((start, position, last[2:]))
            start = None
        start, last = position if begins else start, tag
    return found


def span_counts(predicted: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> np.ndarray:
    """Count spans, row by row.

    Args:
        predicted: N rows of tags.
        references: the right ones, as long.

    Returns:
        int64 [N, 3]: spans that are in both with the same ends and type, those that were said, those that are there.

    Example:
        >>> span_counts([["B-a", "B-a", "O"]], [["B-a", "I-a", "B-b"]]).tolist()
        [[0, 2, 2]]
    """
    both = ((spans_of(said), spans_of(right)) for said, right in zip(predicted, references, strict=True))
    return np.array([(len(said & right), len(said), len(right)) for said, right in both]).reshape(-1, 3)


def span_scores(counts: np.ndarray) -> dict[str, float]:
    """Precision, recall and F1 over all spans of all rows; 0 where there are none.

    Args:
        counts: [N, 3], as ``span_counts`` returns them.

    Example:
        >>> span_scores(np.array([[1, 1, 2], [1, 2, 1]]))
        {'precision': 0.6666666666666666, 'recall': 0.6666666666666666, 'f1': 0.6666666666666666}
    """
    hits, said, there = (int(total) for total in counts.sum(axis=0))
    return {
        "precision": hits / said if said else 0.0,
        "recall": hits / there if there else 0.0,
        "f1": 2 * hits / (said + there) if said + there else 0.0,
    }


def f1_shares(counts: np.ndarray) -> np.ndarray:
    """What each row adds to F1: numbers whose mean is F1, and whose spread is that of F1 over rows.

    F1 is a ratio of sums, 2 H / S, and no mean of rows' scores. To first order a row moves it by
    ``(2 h - F1 s) / mean(s)``; with F1 added these numbers have F1 itself for a mean, and their standard error is the
    delta method's for a ratio. So they can be given to ``gap_closed``.

    Args:
        counts: [N, 3], as ``span_counts`` returns them.

    Returns:
        float64 [N]; single numbers may lie outside of 0 to 1.

    Example:
        >>> f1_shares(np.array([[1, 1, 1], [0, 1, 1]])).tolist()
        [1.0, 0.0]
    """
    hits, size = 2.0 * counts[:, 0], counts[:, 1:].sum(axis=1).astype(np.float64)
    if not size.sum():
        return np.zeros(len(counts))
    f1 = hits.sum() / size.sum()
    return f1 + (hits - f1 * size) / size.mean()
