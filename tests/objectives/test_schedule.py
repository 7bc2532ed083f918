"""Schedules: what they give at each step, what they refuse."""

import math

import pytest

from hf_distill.objectives import Schedule, build


def numbers(steps=10, **spec):
    schedule = Schedule.read(spec, "weight")
    return [schedule.at(step, steps) for step in range(steps + 1)]


def test_a_window_is_on_in_it_and_off_outside():
    assert numbers(until=0.3) == [1.0] * 3 + [0.0] * 8
    assert numbers(**{"from": 0.3, "value": 2.0}) == [0.0] * 3 + [2.0] * 8  # and in the evaluation after the last
    assert numbers(**{"from": 2, "until": 4}) == [0.0] * 2 + [1.0] * 2 + [0.0] * 7


@pytest.mark.parametrize("share", [0.1, 0.3, 1 / 3, 0.5, 0.77])
@pytest.mark.parametrize("steps", [1, 7, 100])
def test_two_windows_that_share_a_bound_leave_no_step_and_take_none_twice(share, steps):
    first, second = numbers(steps, until=share), numbers(steps, **{"from": share})
    assert [one + other for one, other in zip(first, second, strict=True)] == [1.0] * (steps + 1)


def test_ramps_begin_and_end_where_they_should():
    assert numbers(kind="linear", start=4.0, end=0.0, until=0.4) == [4.0, 3.0, 2.0, 1.0, 0.0] + [0.0] * 6
    ramp = numbers(kind="cosine", **{"from": 2, "until": 10})
    assert ramp == pytest.approx([0, 0, 0, *(0.5 - 0.5 * math.cos(math.pi * i / 8) for i in range(1, 9))])


def test_a_constant_without_a_window_is_a_constant():
    assert numbers(value=0.25) == [0.25] * 11
    assert Schedule("constant", value=0.25).at(0, 0) == 0.25  # an evaluation before any training


@pytest.mark.parametrize(("spec", "message"), [
    ({"kind": "step"}, "weight: a schedule of kind 'step' was asked for: use constant, linear, cosine"),
    ({"value": -1}, "value=-1 was given to a schedule: give a number of at least 0"),
    ({"until": 1.5}, "until=1.5 was given to a schedule: give a share of the run from 0.0 to 1.0, or a whole number"),
    ({"from": 0.5, "until": 0.2}, "a schedule from 0.5 until 0.2 was asked for, which is never"),
    ({"till": 3}, r"the schedule of weight was given \['till'\]: it takes kind, value, start, end, from, until"),
    ({"end": float("nan")}, "end=nan was given"),
])  # fmt: skip
def test_what_cannot_be_used_is_refused(spec, message):
    with pytest.raises(ValueError, match=message):
        Schedule.read(spec, "weight")


def test_an_objective_reads_schedules_of_weights_and_temperatures():
    objective = build({
        "forward_kl": {"weight": {"from": 0.5}, "temperature": {"kind": "linear", "start": 8.0, "end": 2.0}},
        "hidden_mse": {"weight": {"until": 0.5, "value": 3.0}},
    })  # fmt: skip
    assert objective.weights == {"forward_kl": 1.0, "hidden_mse": 3.0}
    objective.set_step(0, 100)
    assert objective.weights == {"forward_kl": 0.0, "hidden_mse": 3.0}
    objective.set_temperature(5.0)  # the run's temperature does not replace it
    objective.set_step(50, 100)
    assert objective.weights == {"forward_kl": 1.0, "hidden_mse": 0.0}
    assert objective.terms["forward_kl"].temperature == 5.0
    assert objective.needs == objective.teacher_needs == {"heads", "hidden"}
    assert objective.gap(100) is None
    assert build({"forward_kl": {"weight": {"from": 10, "until": 20}}}).gap(100) == 0
    assert build({"a": {"term": "forward_kl", "weight": {"until": 10}}}).gap(100) == 10


@pytest.mark.parametrize(("spec", "message"), [
    ({"logit_mse": {"temperature": {"start": 1.0}}}, "a temperature of .* was given to logit_mse"),
    ({"forward_kl": {"temperature": {"kind": "linear"}}}, "give one that is always greater than 0"),
    ({"forward_kl": {"temperature": {"value": 2.0, "until": 0.5}}}, "give one that is always greater than 0"),
    ({"forward_kl": {"weight": {"value": 0.0}}}, "every weight of .* is 0"),
])  # fmt: skip
def test_schedules_that_no_term_can_follow_are_refused(spec, message):
    with pytest.raises(ValueError, match=message):
        build(spec)
