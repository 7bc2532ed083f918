import random
import threading

import numpy as np
import pytest
import torch
from accelerate.state import GradientState

from hf_distill.training.turns import ProcessState, Turns


def drawn():
    return random.random(), np.random.rand(), torch.rand(()).item()


def test_a_process_is_put_back_as_it_was():
    gradients = GradientState()
    before, sync = ProcessState(), gradients.sync_gradients
    first = drawn()
    gradients._set_sync_gradients(not sync)
    before.restore()
    assert drawn() == first
    assert gradients.sync_gradients == sync


def test_each_has_its_own_random_numbers_and_the_caller_keeps_his():
    def numbers(seed, turns=None, number=None):
        torch.manual_seed(seed)
        found = []
        for step in range(3):
            if turns is not None:
                turns.wait(number, (step, 0))
            found.append(torch.rand(()).item())
        return found

    torch.manual_seed(9)
    expected = torch.rand(())
    torch.manual_seed(9)
    turns = Turns(3)
    found = turns.run([lambda n=n: numbers(n, turns, n) for n in range(3)])
    assert torch.rand(()) == expected
    assert found == [numbers(n) for n in range(3)]


def test_who_is_behind_goes_first_and_who_is_over_holds_nobody():
    turns, told = Turns(2), []

    def training(number, steps):
        for step in steps:
            turns.wait(number, (step, 0))
            told.append((step, number))

    turns.run([lambda: training(0, [2, 3, 4]), lambda: training(1, [0, 1, 2, 3])])
    assert told == [(0, 1), (1, 1), (2, 0), (2, 1), (3, 0), (3, 1), (4, 0)]
    assert turns.live == []
    assert turns.behind is None


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_one_that_fails_stops_the_others(error):
    turns, steps = Turns(3), [0, 0, 0]

    def training(number):
        for step in range(5):
            turns.wait(number, (step, 0))
            steps[number] += 1
            if (number, step) == (1, 2):
                raise error("here")

    with pytest.raises(error, match="here"):
        turns.run([lambda n=n: training(n) for n in range(3)])
    assert steps == [3, 3, 2]
    assert not [one for one in threading.enumerate() if one.name.startswith("training ")]


def test_one_that_is_left_alone_stops_too_when_the_caller_is_interrupted():
    turns, steps = Turns(2), []

    def training(number):
        for step in range(1 + 4 * number):
            turns.wait(number, (step, 0))
            steps.append(number)
            if len(steps) == 4:
                turns._error = KeyboardInterrupt("here")  # as `run` keeps what its own thread is told

    with pytest.raises(KeyboardInterrupt, match="here"):
        turns.run([lambda n=n: training(n) for n in range(2)])
    assert steps == [0, 1, 1, 1]
