"""The word that decides, and what a student must be."""

import numpy as np
import pytest

from hf_distill.reports import NoDrop, Requirement, gap_closed, unmet, verdict


@pytest.mark.parametrize(
    ("alone", "distilled", "said"),
    [
        ([0.75, 0.76, 0.74], [0.78, 0.79, 0.78], "helps"),
        ([0.78, 0.79, 0.78], [0.75, 0.76, 0.74], "harms"),
        ([0.75, 0.79, 0.74], [0.78, 0.73, 0.78], "too close to call"),
        ([0.5, 0.5, 0.5], [0.75, 0.75, 0.75], "helps"),
        ([0.75, 0.75], [0.75, 0.75], "too close to call"),
        ([0.5], [0.75], "too close to call"),
        ([0.5, float("nan"), 0.5], [0.75, 0.75, 0.7], "too close to call"),
    ],
)
def test_the_interval_of_the_gain_decides(alone, distilled, said):
    assert verdict(gap_closed(alone, distilled, [0.9] * len(alone))) == said


def test_a_gain_in_one_of_three_seeds_is_no_help():
    """The standard error alone would have said so: of three runs Student's quantile is 4.3 and not 2."""
    gap = gap_closed([0.50, 0.50, 0.50], [0.51, 0.53, 0.56], [0.9] * 3)
    assert gap.gain > 2 * gap.gain_error
    assert verdict(gap) == "too close to call"


def test_of_errors_fewer_are_a_gain():
    draws = np.random.default_rng(0).normal(0, 0.01, (2, 50))
    gap = gap_closed(0.3 + draws[0], 0.2 + draws[1], np.full(50, 0.1), lower_is_better=True)
    assert verdict(gap) == "helps"
    assert gap.gain_interval.low < gap.gain < gap.gain_interval.high


def test_without_a_student_alone_it_is_not_known():
    assert verdict(None) == "not known"


REPORT = {
    "models": [
        {"name": "teacher", "accuracy": 0.9, "latency": 8.0},
        {"name": "student alone", "accuracy": 0.7, "latency": None},
        {"name": "distilled", "accuracy": 0.85, "latency": 2.0, "parameters": 12345},
    ],
    "gap": {"gain": 0.15, "ratio": 0.75},
    "classes": [
        {"name": "spam", "number": 0, "f1": {"teacher": 0.9, "distilled": 0.88}},
        {"name": "ham", "number": 1, "f1": {"teacher": 0.9, "distilled": 0.8}},
        {"name": "rare", "number": 2, "f1": {"teacher": None, "distilled": 0.8}},
    ],
}


OWN = "accuracy, latency, parameters"


@pytest.mark.parametrize(
    "asked",
    [
        "gap_closed>=0.5", "gap_closed >= 0.75", "gain>0.1", "accuracy>=0.94*teacher", "accuracy>1.2*ALONE",
        "latency<=.25*teacher",
    ],
)  # fmt: skip
def test_what_is_met_is_not_told(asked):
    assert unmet([Requirement.parse(asked)], REPORT) == []


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("gap_closed>=0.8", "gap_closed>=0.8 was required, and gap_closed is 0.75"),
        ("gap_closed>0.75", "gap_closed>0.75 was required, and gap_closed is 0.75"),
        ("accuracy>=0.97*teacher", "accuracy>=0.97*teacher was required, and accuracy is 0.85 of 0.873"),
        ("parameters<=1000", "parameters<=1000 was required, and parameters is 12,345"),
        ("latency<=0.5*alone", "latency<=0.5*alone was required, and the report has no latency of the student alone"),
        ("wer<=0.1", "wer<=0.1 was required, and the report has no wer to judge by: it has gap_closed, gain, " + OWN),
    ],
)
def test_what_is_not_met_is_one_sentence(asked, told):
    assert unmet([Requirement.parse(asked)], REPORT) == [told]


def test_a_gap_that_is_not_known_meets_nothing():
    (said,) = unmet([Requirement.parse("gap_closed>=0.5")], {**REPORT, "gap": None})
    assert "no gap_closed to judge by" in said


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("spam:2", None),
        ("0:2.5", None),
        ("ham:2", "no drop of ham:2 was allowed, and ham lost 10.0 points of F1"),
        ("rare:2", "no drop of rare:2 was allowed, and the F1 of rare is not known: it has no test rows"),
        ("egg:2", "no drop of egg:2 was allowed, and the report has spam, ham, rare: name one of its classes"),
    ],
)
def test_a_class_may_not_lose_more_than_is_allowed(asked, told):
    assert unmet([NoDrop.parse(asked)], REPORT) == ([told] if told else [])


def test_a_report_without_classes_has_none_to_hold():
    (said,) = unmet([NoDrop.parse("spam:2")], {**REPORT, "classes": None})
    assert said.endswith("the report has no classes: name one of its classes")


@pytest.mark.parametrize(
    "asked", ["accuracy", "accuracy>=", ">=0.5", "accuracy=0.5", "accuracy>=half", "a>=0.5*student", "a>=1.2.3"]
)
def test_a_requirement_that_is_none_is_refused(asked):
    with pytest.raises(ValueError, match="was given: give a figure, >=, <=, > or <, and a number"):
        Requirement.parse(asked)


@pytest.mark.parametrize("asked", ["spam", ":2", "spam:", "spam:two", "spam:-1", "spam:nan"])
def test_a_drop_that_is_none_is_refused(asked):
    with pytest.raises(ValueError, match="was given: give a class and how many points of F1 it may lose"):
        NoDrop.parse(asked)


def test_a_class_may_have_a_colon_in_its_name():
    assert NoDrop.parse("http://a:1.5") == NoDrop("http://a", 1.5)
