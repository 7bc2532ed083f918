"""Which learning rate is tried next, and which is the best, where some diverged."""

import math

import pytest

from hf_distill.experiments.rates import best_rate, next_rate

DIVERGED = math.nan


@pytest.mark.parametrize(
    ("tried", "best"),
    [({0.002: DIVERGED, 0.001: -1.0, 0.004: -2.0}, 0.001), ({0.002: DIVERGED, 0.001: DIVERGED}, 0.001)],
)
def test_a_rate_at_which_the_student_diverges_is_never_the_best(tried, best):
    assert best_rate(tried) == best


@pytest.mark.parametrize(
    ("tried", "expected"),
    [
        ({}, 0.002),
        ({0.002: DIVERGED}, 0.001),
        ({0.002: DIVERGED, 0.001: DIVERGED}, 0.0005),
        ({0.002: DIVERGED, 0.001: -1.0}, 0.0005),
        ({0.002: -1.0}, 0.004),
        ({0.002: -1.0, 0.004: -2.0}, 0.001),
        ({0.002: -1.0, 0.004: -2.0, 0.001: -2.0}, None),
        ({0.002: -1.0, 0.004: -0.5, 0.008: -0.4, 0.016: -0.3}, None),
    ],
)
def test_the_next_rate_is_beside_the_best(tried, expected):
    assert next_rate(tried, [], 4, 0.002) == expected


def test_of_listed_rates_all_are_tried_and_no_other():
    listed = [0.1, 0.3]
    assert [next_rate(tried, listed, 1, 0.002) for tried in ({}, {0.1: 1.0}, {0.1: 1.0, 0.3: 2.0})] == [0.1, 0.3, None]
