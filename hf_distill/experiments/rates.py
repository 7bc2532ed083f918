"""Which learning rate is tried next, and which one is the best.

Knows: rates and what was found with each. Does not know: what a run is, how it is judged.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence


def next_rate(tried: Mapping[float, float], listed: Sequence[float], runs: int, default: float) -> float | None:
    """Choose the rate to try: a listed one, or twice or half of the best while that one is at the edge.

    Args:
        tried: rate -> its score, higher is better; no number where training diverged.
        listed: the only rates to try; empty: the default, and what is near the best.
        runs: how many rates are tried at most, where none are listed.
        default: what is tried first, where none are listed.

    Returns:
        None where no rate is left to try.

    Example:
        >>> next_rate({}, (), 3, 0.1), next_rate({0.1: 0.5}, (), 3, 0.1), next_rate({0.1: 0.5, 0.2: 0.4}, (), 3, 0.1)
        (0.1, 0.2, 0.05)
    """
    left = [rate for rate in listed or [default] if rate not in tried]
    if len(tried) >= max(runs, len(listed)):
        return None
    if left or listed:
        return left[0] if left else None
    best = best_rate(tried)
    near = (2 * best, best / 2) if math.isfinite(tried[best]) else (best / 2,)
    return next((rate for rate in near if rate not in tried), None)


def best_rate(tried: Mapping[float, float]) -> float:
    """Choose the rate with the highest score; of those that diverged, whose score is no number, the lowest.

    Args:
        tried: rate -> its score.

    Example:
        >>> best_rate({0.1: 0.5, 0.2: math.nan})
        0.1
    """
    return max(
        tried, key=lambda rate: (math.isfinite(tried[rate]), tried[rate] if math.isfinite(tried[rate]) else -rate)
    )
