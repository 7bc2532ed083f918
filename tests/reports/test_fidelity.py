"""Metrics, agreement and the gap closed."""

import numpy as np
import pytest

from hf_distill.reports import agreement, gap_closed


def test_agreement_looks_at_the_first_choice_only():
    teacher = np.eye(4)
    assert agreement(teacher, teacher * 100) == 1.0
    assert agreement(np.roll(teacher, 1, axis=1), teacher) == 0.0


def test_the_ratio_and_its_error_against_a_bootstrap():
    generator = np.random.default_rng(0)
    n = 4000
    teacher, alone = generator.random(n) < 0.85, generator.random(n) < 0.75
    distilled = np.where(generator.random(n) < 0.5, teacher, alone)
    found = gap_closed(alone, distilled, teacher)
    draws = []
    for _ in range(500):
        rows = generator.integers(0, n, n)
        draws.append((distilled[rows].mean() - alone[rows].mean()) / (teacher[rows].mean() - alone[rows].mean()))
    assert found.ratio == pytest.approx((distilled.mean() - alone.mean()) / (teacher.mean() - alone.mean()))
    assert found.ratio_error == pytest.approx(np.std(draws), rel=0.2)
    assert "of the gap closed" in str(found)


def test_a_gap_of_noise_gives_no_ratio():
    generator = np.random.default_rng(0)
    scores = [generator.random(50) < 0.8 for _ in range(3)]
    found = gap_closed(*sorted(scores, key=np.mean))
    assert found.gap > 0
    assert found.ratio is None
    assert "the gap is under two standard errors, so no share of it is given" in str(found)


def test_a_teacher_that_is_worse_gives_no_ratio():
    found = gap_closed(np.ones(9), np.ones(9), np.zeros(9))
    assert found.ratio is None
    assert str(found).endswith(": the teacher is not ahead of the student alone, so there is no gap to close")
    assert "not ahead" in str(gap_closed(np.ones(9), np.zeros(9), np.ones(9)))


def test_a_score_that_is_no_number_gives_no_ratio():
    for scores in ([np.nan, 0.5], [0.7, 0.8], [0.9, 0.9]), ([0.7, 0.8], [np.nan, 0.5], [0.9, 0.9]):
        found = gap_closed(*scores)
        assert (found.ratio, found.interval) == (None, None)
        assert "a score is no number, so no share of the gap is given" in str(found)


def test_one_run_alone_gives_no_ratio():
    assert gap_closed([0.7], [0.8], [0.9]).ratio is None


def test_of_errors_the_teacher_is_ahead_who_makes_fewer():
    alone, distilled, teacher = [0.30, 0.32, 0.31], [0.20, 0.21, 0.19], [0.10, 0.10, 0.10]
    errors = gap_closed(alone, distilled, teacher, lower_is_better=True)
    rights = gap_closed(*(1 - np.array(one) for one in (alone, distilled, teacher)))
    assert errors.gain == pytest.approx(0.11)
    assert errors.gap == pytest.approx(0.21)
    for name, value in vars(rights).items():
        assert getattr(errors, name) == pytest.approx(value), name
    assert "not ahead" in str(gap_closed(alone, distilled, teacher))
