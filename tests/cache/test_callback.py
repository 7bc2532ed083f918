from types import SimpleNamespace

import pytest

from hf_distill.cache import callback
from hf_distill.cache.callback import Watch


class Cached:
    """As much of a cached teacher as its watch asks for."""

    collective, facts, forgotten, shared = False, SimpleNamespace(name="my/teacher"), 0, 0

    def __init__(self):
        self.memory, self.looked = self, []

    def notice(self, whole=False):
        self.looked.append(whole)

    def anywhere(self, flag):
        return flag

    def forget(self):
        self.forgotten += 1

    def share(self, ranks):
        self.shared += 1


def epoch(seen, batches):
    seen.on_epoch_begin(None, None, None)
    for rows, hits in batches:
        seen.count(rows, hits)
    seen.on_epoch_end(None, None, None)


def begun(epochs=3, views=1, each_epoch=False, **args):
    seen = Watch(Cached())
    seen.each_epoch, seen._round = each_epoch, views
    asked = SimpleNamespace(**{"eval_strategy": "no", **args})
    state = SimpleNamespace(num_train_epochs=epochs, max_steps=100, eval_steps=args.get("eval_steps"))
    seen.on_train_begin(asked, state, None)
    return seen


@pytest.mark.parametrize(
    ("second", "stops"),
    [([(500, 0)] * 4, True), ([(500, 0), (500, 1), (500, 0)], False), ([(500, 500)] * 4, False), ([(500, 0)], True)],
)
def test_a_later_epoch_of_new_rows_alone_stops_it(second, stops):
    seen = begun()
    epoch(seen, [(500, 0)] * 4)
    assert not seen.stopped  # in the first epoch nothing hits by nature
    epoch(seen, second)
    assert seen.stopped is stops
    assert seen.cached.forgotten == int(stops)
    assert seen.cached.shared == 2


def test_it_is_stopped_in_the_middle_of_the_epoch():
    seen = begun()
    epoch(seen, [(500, 0)] * 4)
    seen.on_epoch_begin(None, None, None)
    seen.count(callback.PATIENCE - 1, 0)
    assert not seen.stopped
    seen.count(1, 0)
    assert seen.stopped


def test_the_rest_of_an_epoch_that_was_resumed_says_nothing_of_the_next():
    seen = begun()
    epoch(seen, [(10, 0)])
    epoch(seen, [(500, 0)] * 4)
    assert not seen.stopped
    epoch(seen, [(500, 0)] * 4)
    assert seen.stopped


@pytest.mark.parametrize(
    ("epochs", "args", "repeats", "reevaluates"),
    [
        (3, {}, True, False),
        (1, {}, False, False),
        (2**63 - 1, {}, False, False),  # a stream of unknown length
        (1, {"eval_strategy": "steps", "eval_steps": 10}, False, True),
        (1, {"eval_strategy": "epoch"}, False, False),
        (3, {"eval_strategy": "epoch"}, True, True),
    ],
)
def test_whether_rows_are_seen_more_than_once(epochs, args, repeats, reevaluates):
    seen = begun(epochs, **args)
    assert (seen.repeats, seen.reevaluates) == (repeats, reevaluates)


@pytest.mark.parametrize(("views", "each_epoch", "repeats"), [(3, False, False), (2, False, True), (3, True, True)])
def test_rows_that_have_no_views_come_again_in_each_epoch(views, each_epoch, repeats):
    assert begun(3, views, each_epoch).repeats is repeats
    assert not begun(1, views, each_epoch).repeats


def test_a_training_that_is_one_of_several_keeps_for_the_others():
    seen = Watch(Cached())
    seen.ahead = 3
    state = SimpleNamespace(num_train_epochs=1, max_steps=5, eval_steps=None)
    seen.on_train_begin(SimpleNamespace(eval_strategy="epoch"), state, None)
    assert (seen.repeats, seen.reevaluates) == (True, True)


def test_rows_are_told_once():
    seen = begun()
    seen.count(8, 3)
    seen.count(8, 5)
    assert seen.drain() == (8, 16)
    assert seen.drain() == (0, 0)
