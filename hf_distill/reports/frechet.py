"""How far samples are from real ones: the Frechet distance of their features, and how sure that number is.

Knows: arrays of features. Does not know: images, who made the features or the samples.
"""

from __future__ import annotations

import numpy as np

GROUPS = 20
"""Of so many groups of samples each is left out once, to find the standard error."""


def frechet_distance(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Distance of two normal distributions with the means and covariances of two sets of features.

    It falls with the number of samples, so only sets of the same size can be compared.

    Args:
        ours: [N, D].
        theirs: [M, D].

    Reference:
        Heusel et al.: GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium,
        arXiv:1706.08500, equation 6.

    Example:
        >>> ours = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0], [2.0, 2.0]])
        >>> round(frechet_distance(ours, ours), 6), round(frechet_distance(ours, ours + [3.0, 4.0]), 6)
        (0.0, 25.0)
    """
    ours, theirs = np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)
    first, second = np.cov(ours, rowvar=False), np.cov(theirs, rowvar=False)
    # The eigenvalues of a product of two such matrices are no less than 0, but for rounding.
    roots = np.sqrt(np.linalg.eigvals(first @ second).real.clip(min=0)).sum()
    return float(np.square(ours.mean(0) - theirs.mean(0)).sum() + np.trace(first) + np.trace(second) - 2 * roots)


def distance_shares(ours: np.ndarray, theirs: np.ndarray, groups: int = GROUPS) -> np.ndarray:
    """Share the distance out over groups of samples: their mean is the distance, their spread says how sure it is.

    These are the jackknife's pseudo-values, moved so that their mean is the distance itself: the jackknife's own
    takes the bias of few samples off, which would be another number than others report.

    Args:
        ours: [N, D]; a group is a run of neighbours, so classes that come in turn are in each of them.
        theirs: [M, D].
        groups: how many.

    Returns:
        float64 [groups].

    Reference:
        Miller: The Jackknife - a Review, Biometrika 61, 1974.

    Example:
        >>> draw = np.random.default_rng(0)
        >>> ours, theirs = draw.normal(size=(400, 2)), draw.normal(size=(300, 2))
        >>> shares = distance_shares(ours, theirs)
        >>> len(shares), bool(np.isclose(shares.mean(), frechet_distance(ours, theirs)))
        (20, True)
    """
    whole, group = frechet_distance(ours, theirs), np.arange(len(ours)) * groups // len(ours)
    without = np.array([frechet_distance(ours[group != one], theirs) for one in range(groups)])
    return whole - (groups - 1) * (without - without.mean())
