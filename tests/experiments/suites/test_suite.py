"""What every suite does: a library that is missing, names that are nearly right, faults in a sentence."""

import importlib.util

import pytest

from hf_distill.experiments.suites import SUITES, Asked
from hf_distill.experiments.suites.suite import loading, unknown


@pytest.mark.parametrize("suite", SUITES, ids=lambda one: one.name)
def test_a_missing_library_names_the_extra(monkeypatch, suite):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == suite.module else find(name))
    with pytest.raises(ImportError, match=rf"^{suite.name} needs .+: pip install 'hf_distill\[{suite.extra}\]'\.$"):
        suite.check()


def test_an_option_that_is_not_for_all_is_one_that_can_be_asked_for():
    assert frozenset.union(*(suite.options for suite in SUITES)) <= set(Asked.__dataclass_fields__)


@pytest.mark.parametrize(
    ("name", "expected"), [("arc_eazy", "did you mean arc_easy"), ("xyz", "name one of its tasks, or your own's")]
)
def test_the_nearest_names_are_said(name, expected):
    said = str(unknown(SUITES[0], name, ["arc_easy", "hellaswag"]))
    assert said.startswith(f"the task {name!r} was asked for, and lm-eval has none of that name: {expected}")


def test_a_fault_becomes_a_sentence():
    with (
        pytest.raises(ValueError, match=r"^the task x could not be loaded \(no\s?route\): connect\.$"),
        loading("the task x", "connect"),
    ):
        raise ConnectionError("no\nroute.")
    with pytest.raises(ZeroDivisionError), loading("the task x", "connect"):  # a fault of ours
        _ = 1 / 0
