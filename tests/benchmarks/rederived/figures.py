"""Errors, intervals and the share of the gap, from the numbers of single rows: numpy and scipy alone.

Knows: numbers of rows, one for each. Does not know: models, recipes, what the numbers measure.

The formulas are written anew, in another form than the package's where there is one: bounds of a mean by scipy's t,
Fieller's bounds as the roots of a polynomial, ratios of sums by the gradient of the ratio.
"""

import math

import numpy as np
from scipy import stats

LEVEL = 0.95


def error(values, alone=0.0):
    """The standard error of a mean, by N - 1; ``alone`` for a single value."""
    return float(stats.sem(values)) if len(values) > 1 else alone


def wilson(values):
    found = stats.binomtest(int(np.sum(values)), len(values)).proportion_ci(LEVEL, method="wilson")
    return [float(found.low), float(found.high)]


def bounds(values, share=False):
    """Bounds of a mean at 95 %; None where all values are one."""
    values = np.asarray(values, dtype=float)
    if share:
        return wilson(values)
    if len(values) < 2 or np.ptp(values) == 0:
        return None
    low, high = stats.t.interval(LEVEL, len(values) - 1, loc=values.mean(), scale=stats.sem(values))
    return [float(low), float(high)]


def fieller(gain, gap):
    """The ratios r for which the mean of gain - r * gap is not significantly different from 0; None: no bounds.

    See Fieller 1954: (mean of gain - r gap)^2 = t^2 (var gain - 2 r cov + r^2 var gap), solved for r.
    """
    n = len(gain)
    t2, cov = stats.t.ppf((1 + LEVEL) / 2, n - 1) ** 2, np.cov(gain, gap) / n
    squares = [gap.mean() ** 2 - t2 * cov[1, 1], -2 * (gain.mean() * gap.mean() - t2 * cov[0, 1])]
    squares.append(gain.mean() ** 2 - t2 * cov[0, 0])
    if squares[0] <= 0:
        return None
    return sorted(float(root.real) for root in np.roots(squares))


def gap_of(alone, distilled, teacher):
    """What ``gap`` of a report holds, of scores of which more is better: three arrays [N], row by row."""
    gain, gap = distilled - alone, teacher - alone
    noise = error(gap, math.inf)
    found = {
        "gap": float(gap.mean()),
        "gap_error": noise,
        "gain": float(gain.mean()),
        "gain_error": error(gain, math.inf),
    }
    told = gap.mean() > 0 and gap.mean() >= 2 * noise
    ratio = float(gain.mean() / gap.mean()) if told else None
    return found | {
        "ratio": ratio,
        "ratio_error": error(gain - ratio * gap) / float(gap.mean()) if told else None,
        "interval": fieller(gain, gap) if told else None,
        "gain_interval": bounds(gain),
    }


def verdict_of(gap, lead):
    if lead is not None and lead <= 0:
        return "nothing was learned: the best model is the floor"
    if gap is None:
        return "not known"
    low, high = gap["gain_interval"] or [gap["gain"] if gap["gain_error"] == 0 else 0.0] * 2
    return "helps" if low > 0 else "harms" if high < 0 else "too close to call"


def ratio_rows(top, bottom):
    """Numbers whose mean is sum(top) / sum(bottom), and whose spread is that ratio's over rows: its tangent's values.

    The ratio of two means has the gradient (1 / b, -a / b^2); a row lies (top - a, bottom - b) from the means.
    """
    top, bottom = np.asarray(top, dtype=float), np.asarray(bottom, dtype=float)
    a, b = top.mean(), bottom.mean()
    return a / b + (top - a) / b - (bottom - b) * a / b**2


def log_softmax(logits):
    logits = np.asarray(logits, dtype=float)
    return logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)


def kl(teacher, student):
    """KL(teacher || student) of each row of logits [N, C], in nats."""
    p, q = log_softmax(teacher), log_softmax(student)
    return (np.exp(p) * (p - q)).sum(axis=-1)


def expected_calibration_error(logits, labels, bins=15):
    """Guo et al. 2017, equation 3, bin by bin; a bin holds its upper end."""
    sure = np.exp(log_softmax(logits)).max(axis=-1)
    right = np.argmax(logits, axis=-1) == labels
    total = 0.0
    for number in range(bins):
        inside = (sure > number / bins + 1e-10) & (sure <= (number + 1) / bins + 1e-10)
        if inside.any():
            total += inside.sum() / len(labels) * abs(right[inside].mean() - sure[inside].mean())
    return float(total)
