"""Intervals hold the truth as often as they say: simulated, against known quantiles, at the edges."""

import math

import numpy as np
import pytest

from hf_distill.reports import gap_closed, mean_interval, ratio_interval, share_interval
from hf_distill.reports.intervals import student_quantile

# probability, degrees of freedom, quantile: as scipy.stats.t.ppf gives it
QUANTILES = [
    (0.975, 1, 12.706204736174694), (0.975, 2, 4.302652729749462), (0.975, 3, 3.182446305283708),
    (0.975, 4, 2.7764451051977934), (0.95, 9, 1.833112932656237), (0.995, 30, 2.749995653567231),
    (0.975, 999, 1.9623414611334487), (0.975, 1000, 1.9623390808264074), (0.975, 1001, 1.9623367061833767),
]  # fmt: skip


@pytest.mark.parametrize(("probability", "freedom", "known"), QUANTILES)
def test_students_quantile(probability, freedom, known):
    assert student_quantile(probability, freedom) == pytest.approx(known, rel=1e-9)


def held(intervals, truth):
    """How many of the intervals hold the truth; those that give no bounds claim nothing and are not wrong."""
    return sum(each is None or each.low <= truth <= each.high for each in intervals)


@pytest.mark.parametrize(("n", "p"), [(200, 0.5), (200, 0.9), (1000, 0.97), (5000, 0.8), (5000, 0.995)])
def test_a_share_is_held_as_often_as_is_said(n, p):
    drawn, times = np.unique(np.random.default_rng(0).binomial(n, p, 40_000), return_counts=True)
    right = [share_interval(k, n) for k in drawn]
    wilson = sum(times[i] for i, each in enumerate(right) if each.low <= p <= each.high) / 40_000
    # Counts are whole, so the true coverage of any interval jumps about 95 % by up to a percent at these n.
    assert wilson == pytest.approx(0.95, abs=0.013)


@pytest.mark.parametrize("n", [10, 30])
def test_few_rows_near_one_and_what_the_usual_interval_makes_of_them(n):
    generator = np.random.default_rng(0)
    shares = generator.uniform(0.8, 1.0, 20_000)
    counts = generator.binomial(n, shares)
    bounds = np.array([share_interval(k, n) for k in range(n + 1)])[counts]
    wilson = np.mean((bounds[:, 0] <= shares) & (shares <= bounds[:, 1]))
    half = 1.96 * np.sqrt(counts / n * (1 - counts / n) / n)
    usual = np.mean(np.abs(counts / n - shares) <= half)
    assert wilson == pytest.approx(0.95, abs=0.012)
    assert usual < 0.85


@pytest.mark.parametrize("n", [3, 5])
def test_the_mean_of_a_few_seeds_is_held_as_often_as_is_said(n):
    runs = np.random.default_rng(n).normal(0.8, 0.004, (6000, n))
    share = held([mean_interval(each) for each in runs], 0.8) / len(runs)
    assert share == pytest.approx(0.95, abs=3 * math.sqrt(0.95 * 0.05 / len(runs)))
    normal = np.abs(runs.mean(1) - 0.8) <= 1.96 * runs.std(1, ddof=1) / math.sqrt(n)
    assert normal.mean() < 0.9  # which is why it is Student's


def students(n, gap, share, runs=4000, noise=0.004):
    """Gains and gaps of simulated runs [runs, n]; the gap is given in its standard errors."""
    generator, gap = np.random.default_rng(n), gap * noise / math.sqrt(n)
    same = generator.normal(0, noise, (runs, n))  # what a seed does to both students
    distilled = share * gap + 0.5 * same + generator.normal(0, 0.5 * noise, (runs, n))
    return distilled - same, gap - same


# seeds, the gap in its standard errors, the share of it that is closed
@pytest.mark.parametrize(("n", "gap", "share"), [(3, 8, 0.6), (3, 20, 0.0), (5, 8, 1.1), (40, 5, 1.5)])
def test_the_ratio_of_paired_means_is_held_as_often_as_is_said(n, gap, share):
    gains, gaps = students(n, gap, share)
    found = [ratio_interval(*pair) for pair in zip(gains, gaps, strict=True)]
    assert held(found, share) / len(found) == pytest.approx(0.95, abs=3 * math.sqrt(0.95 * 0.05 / len(found)))
    assert sum(each is not None for each in found) > 0.9 * len(found)  # and most do claim something


def test_a_gap_of_three_errors_is_why_it_is_fiellers():
    gains, gaps = students(40, 3, 1.5)
    found = [ratio_interval(*pair) for pair in zip(gains, gaps, strict=True)]
    assert 0.95 <= held(found, 1.5) / len(found) < 0.98  # no bounds claim nothing: on the safe side
    ratios = gains.mean(1) / gaps.mean(1)
    errors = (gains - ratios[:, None] * gaps).std(1, ddof=1) / math.sqrt(40) / np.abs(gaps.mean(1))
    assert np.mean(np.abs(ratios - 1.5) <= student_quantile(0.975, 39) * errors) < 0.93  # the delta method


def test_rows_in_pairs_give_the_report_its_bounds():
    generator = np.random.default_rng(0)
    held_, known = 0, 0
    for _ in range(300):
        teacher, alone = generator.random(2000) < 0.85, generator.random(2000) < 0.75
        distilled = np.where(generator.random(2000) < 0.5, teacher, alone)
        found = gap_closed(alone, distilled, teacher)
        known += found.interval is not None
        held_ += found.interval.low <= 0.5 <= found.interval.high
    assert known == 300
    assert held_ / 300 == pytest.approx(0.95, abs=0.04)


def test_the_bounds_are_around_the_ratio_and_in_the_sentence():
    found = gap_closed([0.70, 0.71, 0.69, 0.70], [0.75, 0.75, 0.76, 0.74], [0.8] * 4)
    assert found.interval.low < found.ratio < found.interval.high
    low, high = found.interval
    assert f"(at 95 %: {100 * low:.0f} to {100 * high:.0f} %)" in str(found)


def test_a_gap_that_is_hardly_there_has_no_bounds_and_says_so():
    found = gap_closed([0.70, 0.74, 0.66], [0.75, 0.76, 0.74], [0.77] * 3)  # three standard errors of three runs
    assert found.ratio is not None
    assert found.interval is None
    assert str(found).endswith("(at 95 %: the gap is too uncertain for bounds)")


def test_a_higher_level_is_wider():
    values, pairs = [0.3, 0.5, 0.9], ([1.0, 1.2, 0.9, 1.1], [2.0, 2.1, 2.2, 1.8])
    for narrow, wide in (
        (share_interval(7, 9, 0.9), share_interval(7, 9, 0.99)),
        (mean_interval(values, 0.9), mean_interval(values, 0.99)),
        (ratio_interval(*pairs, 0.9), ratio_interval(*pairs, 0.99)),
    ):
        assert wide.low < narrow.low < narrow.high < wide.high


def test_right_and_wrong_are_a_share_where_the_caller_says_so():
    assert mean_interval([True, True, False], share=True) == share_interval(2, 3)
    low, high = mean_interval(np.ones(50), share=True)
    assert 0.9 < low < high == 1.0
    with pytest.raises(ValueError, match="not all values are 0 or 1: leave share out"):
        mean_interval([0.5, 1.0], share=True)


def test_a_score_that_happens_to_be_0_or_1_is_no_share():
    assert mean_interval(np.zeros(20)) is None  # an F1 of 0 in each row; as a share its bounds were 0 to 0.16
    low, high = mean_interval([0.0, 1.0, 1.0])
    mean, half = 2 / 3, student_quantile(0.975, 2) * math.sqrt(1 / 3) / math.sqrt(3)
    assert (low, high) == (pytest.approx(mean - half), pytest.approx(mean + half))


def test_a_share_lies_within_its_bounds_however_they_are_rounded():
    for total in range(1, 200):
        for right in {0, 1, total - 1, total}:
            low, high = share_interval(right, total)
            assert 0 <= low <= right / total <= high <= 1


def test_what_cannot_be_known_is_not_given():
    assert mean_interval([0.7]) is None
    assert ratio_interval([1.0], [2.0]) is None
    assert ratio_interval([1.0, 1.0], [-1.0, 1.0]) is None
    assert mean_interval([0.7, 0.7]) is None


def test_refusals():
    with pytest.raises(ValueError, match="no values: give at least one"):
        mean_interval([])
    with pytest.raises(ValueError, match="share of 0 rows"):
        share_interval(0, 0)
    with pytest.raises(ValueError, match="of 2 and 3 values: give them in pairs"):
        ratio_interval([1, 2], [1, 2, 3])
    with pytest.raises(ValueError, match="level 95 was asked for"):
        mean_interval([0.1, 0.2], level=95)
    with pytest.raises(ValueError, match="0 degrees of freedom"):
        student_quantile(0.975, 0)
