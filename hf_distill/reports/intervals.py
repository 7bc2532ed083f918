"""Between what bounds a figure lies: intervals for a share, a mean, and the ratio of two means.

Knows: numbers. Does not know: what they measure, models, files.
"""

from __future__ import annotations

import math
from functools import cache
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

LEVEL = 0.95
"""How often the bounds of an interval hold the true figure, where nothing else is asked for."""


class Interval(NamedTuple):
    """The bounds of a confidence interval; in JSON a list of two numbers.

    Args:
        low: the lower bound, in the units of the figure.
        high: the upper one.
    """

    low: float
    high: float


def share_interval(right: float, total: int, level: float = LEVEL) -> Interval:
    """Bound a share, as accuracy is one, by Wilson's interval: it holds what it says near 0 and 1 and for few rows.

    The usual share ± 1.96 standard errors has no width at 0 of 20, and holds the truth far too seldom near 0 and 1.

    Args:
        right: how many rows are right.
        total: of how many.
        level: how often the bounds hold the true share, between 0 and 1.

    Returns:
        Bounds from 0 to 1.

    Raises:
        ValueError: there is no row, or the level is not between 0 and 1.

    Reference:
        Wilson: Probable Inference, the Law of Succession, and Statistical Inference, 1927; Brown, Cai, DasGupta:
        Interval Estimation for a Binomial Proportion, 2001, eq. 4.

    Example:
        >>> low, high = share_interval(8, 10)
        >>> round(low, 3), round(high, 3)
        (0.49, 0.943)
    """
    if total < 1:
        raise ValueError("an interval was asked for a share of 0 rows: give at least one.")
    z, share = NormalDist().inv_cdf(_upper(level)), right / total
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    # At 0 and 1 one bound is the share itself, which rounding would put beside it.
    return Interval(max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half)))


def mean_interval(values: ArrayLike, level: float = LEVEL, share: bool = False) -> Interval | None:
    """Bound the mean of what the values are a sample of: rows of a test set, or runs with different seeds.

    Args:
        values: [N], one score for each row or run.
        level: how often the bounds hold the true mean, between 0 and 1.
        share: whether each value can only be 0 or 1, wrong or right: then the bounds are Wilson's. Else they are
            Student's, with N - 1 degrees of freedom, which is right for three seeds too. The values themselves do not
            tell: an F1 of 0 in every row is no share of rows.

    Returns:
        The bounds; None for values without any spread, or one alone, unless they are a share: bounds without a width
        would hold nothing.

    Raises:
        ValueError: there is no value, one that is no part of a share, or the level is not between 0 and 1.

    Reference:
        Student: The Probable Error of a Mean, 1908; for shares see ``share_interval``.

    Example:
        >>> low, high = mean_interval([0.78, 0.80, 0.82])
        >>> round(low, 3), round(high, 3)
        (0.75, 0.85)
    """
    values = np.asarray(values, dtype=np.float64).reshape(-1)
    if not len(values):
        raise ValueError("an interval was asked for the mean of no values: give at least one.")
    if share:
        if not np.isin(values, (0.0, 1.0)).all():
            raise ValueError("an interval was asked for a share, and not all values are 0 or 1: leave share out.")
        return share_interval(float(values.sum()), len(values), level)
    if len(values) < 2 or (values == values[0]).all():
        return None
    half = student_quantile(_upper(level), len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    return Interval(float(values.mean() - half), float(values.mean() + half))


def ratio_interval(numerator: ArrayLike, denominator: ArrayLike, level: float = LEVEL) -> Interval | None:
    """Bound the ratio of the means of paired values, by Fieller's theorem.

    The bounds are the ratios r for which the mean of ``numerator - r * denominator`` is not significantly different
    from 0. The delta method's bounds hold the truth too seldom where the denominator is only a few standard errors
    from 0 (simulated at two to three of them: 90 to 98 %, these 94 to 97 %); further away both agree.

    Args:
        numerator: [N].
        denominator: [N], on the same units.
        level: how often the bounds hold the true ratio, between 0 and 1.

    Returns:
        The bounds; None where they do not exist, because the mean of the denominator is not significantly different
        from 0 at this level, or N is 1: any ratio however large would have to be allowed.

    Raises:
        ValueError: the values are not in pairs, or the level is not between 0 and 1.

    Reference:
        Fieller: Some Problems in Interval Estimation, 1954, section 3.

    Example:
        >>> low, high = ratio_interval([3.0, 3.1, 2.9, 3.2], [6.0, 6.3, 5.9, 6.1])
        >>> round(low, 2), round(high, 2)
        (0.48, 0.53)
    """
    top, bottom = (np.asarray(values, dtype=np.float64).reshape(-1) for values in (numerator, denominator))
    if len(top) != len(bottom):
        raise ValueError(f"a ratio was asked of {len(top)} and {len(bottom)} values: give them in pairs.")
    if len(top) < 2:
        return None
    spread = np.cov(top, bottom) / len(top) * student_quantile(_upper(level), len(top) - 1) ** 2
    # The roots of a r**2 - 2 b r + c, which is (mean of numerator - r denominator)**2 - (t * its error)**2.
    a = bottom.mean() ** 2 - spread[1, 1]
    b, c = top.mean() * bottom.mean() - spread[0, 1], top.mean() ** 2 - spread[0, 0]
    if a <= 0:
        return None
    half = math.sqrt(max(0.0, b * b - a * c))
    return Interval(float((b - half) / a), float((b + half) / a))


def ratio_shares(totals: ArrayLike, counts: ArrayLike) -> np.ndarray:
    """Give each row its own number, so that their mean is a ratio of two sums and their error that ratio's.

    A mean over tokens, words or positions is such a ratio: rows are drawn, and how many tokens a row has is chance
    too. To first order a row of ``n`` tokens and the total ``t`` moves the ratio by ``(t - ratio n) / mean(n)``.

    Args:
        totals: [N] or [N, K], the sum over a row's tokens.
        counts: [N], how many tokens it has; not all 0.

    Returns:
        float64 of the shape of ``totals``; single numbers may lie under 0.

    Reference:
        Cochran: Sampling Techniques, 1977, section 6.3 (the ratio estimator).

    Example:
        >>> ratio_shares([1, 0], [1, 3]).tolist(), ratio_shares([1, 3], [1, 3]).tolist()
        ([0.625, -0.125], [1.0, 1.0])
    """
    totals, counts = np.asarray(totals, dtype=np.float64), np.asarray(counts, dtype=np.float64)
    counts = counts.reshape(len(counts), *[1] * (totals.ndim - 1))
    ratio = totals.sum(axis=0) / counts.sum()
    return ratio + (totals - ratio * counts) / counts.mean()


@cache
def student_quantile(probability: float, freedom: int) -> float:
    """Return the quantile of Student's t distribution.

    Args:
        probability: from 0.5 to 1, both left out.
        freedom: the degrees of freedom, 1 or more.

    Returns:
        The t that is not passed with this probability, to 10 digits.

    Raises:
        ValueError: the probability or the degrees of freedom are out of their range.

    Reference:
        Abramowitz, Stegun: Handbook of Mathematical Functions, 26.7.3 and 26.7.4 (finite sums for whole degrees of
        freedom), 26.7.5 (the expansion, for more than 1,000).

    Example:
        >>> round(student_quantile(0.975, 2), 4)
        4.3027
    """
    if not 0.5 < probability < 1 or freedom < 1:
        raise ValueError(
            f"the quantile of Student's t was asked at {probability} with {freedom} degrees of freedom: "
            "the first must be between 0.5 and 1, the second 1 or more."
        )
    if freedom > 1000:
        z = NormalDist().inv_cdf(probability)
        first, second = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
        third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
        return z + first / freedom + second / freedom**2 + third / freedom**3
    low, high = 0.0, math.pi / 2
    for _ in range(60):  # halves: each step gives a binary digit of the angle
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, freedom) < 2 * probability - 1 else (low, middle)
    return math.sqrt(freedom) * math.tan((low + high) / 2)


def _within(angle: float, freedom: int) -> float:
    """The probability of -t to t, for t = sqrt(freedom) * tan(angle)."""
    odd = freedom % 2
    # cos, 2/3 cos^3, 2/3 4/5 cos^5, ... for odd degrees of freedom; 1, 1/2 cos^2, 1/2 3/4 cos^4, ... for even ones.
    step = np.arange(1, (freedom - odd) // 2, dtype=np.float64)
    factors = (2 * step - 1 + odd) / (2 * step + odd) * math.cos(angle) ** 2
    first = math.cos(angle) if odd else 1.0
    total = first * (1 + np.cumprod(factors).sum()) if freedom > 1 else 0.0
    inside = math.sin(angle) * float(total)
    return 2 / math.pi * (angle + inside) if odd else inside


def _upper(level: float) -> float:
    if not 0 < level < 1:
        raise ValueError(f"an interval of level {level} was asked for: give one between 0 and 1, such as 0.95.")
    return (1 + level) / 2
