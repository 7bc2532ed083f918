"""The Frechet distance: known for two normal distributions, and how sure it is found by leaving samples out."""

import numpy as np
import pytest

from hf_distill.reports.frechet import distance_shares, frechet_distance


def drawn(n, mean, deviations, seed):
    return np.random.default_rng(seed).normal(mean, deviations, size=(n, len(mean)))


def test_of_two_normal_distributions_it_is_the_squared_distance_of_means_and_of_deviations():
    ours, theirs = drawn(200_000, (0, 1), (1, 2), 0), drawn(200_000, (3, 1), (2, 1), 1)
    assert frechet_distance(ours, theirs) == pytest.approx(3**2 + (2 - 1) ** 2 + (1 - 2) ** 2, rel=0.02)


def test_correlated_features_count_by_the_root_of_both_covariances():
    mix = np.array([[2.0, 1.0], [0.0, 1.0]])
    ours, theirs = drawn(500, (0, 0), (1, 1), 0), drawn(400, (1, 0), (1, 1), 1) @ mix
    first, second = np.cov(ours, rowvar=False), np.cov(theirs, rowvar=False)
    values, vectors = np.linalg.eigh(first)
    root = vectors @ np.diag(np.sqrt(values)) @ vectors.T
    inner = np.sqrt(np.linalg.eigvalsh(root @ second @ root)).sum()
    wanted = np.square(ours.mean(0) - theirs.mean(0)).sum() + np.trace(first) + np.trace(second) - 2 * inner
    assert frechet_distance(ours, theirs) == pytest.approx(wanted, rel=1e-9)


def test_its_error_is_that_of_drawing_samples_again():
    theirs = drawn(2000, (0, 0), (1, 1), 99)
    again = [frechet_distance(drawn(300, (1, 0), (1, 2), seed), theirs) for seed in range(200)]
    shares = [distance_shares(drawn(300, (1, 0), (1, 2), seed), theirs) for seed in range(10)]
    errors = [one.std() / np.sqrt(len(one)) for one in shares]
    assert np.mean(errors) == pytest.approx(np.std(again), rel=0.15)
    assert shares[0].mean() == pytest.approx(again[0])


def test_classes_that_come_in_turn_are_in_every_group():
    """A group of one class would change the distance by what that class is, whatever was drawn."""
    ours, theirs = (drawn(1000, (0, 0), (1, 1), seed) for seed in (0, 1))
    ours[:, 0] += 8 * (np.arange(1000) % 10)
    theirs[:, 0] += 8 * (np.arange(1000) % 10)
    shares = distance_shares(ours, theirs)
    assert shares.std() / np.sqrt(len(shares)) < 0.1
