"""Models are timed beside each other: what other work on the machine does to them, and what is not given then."""

import pytest
import tiny
import torch
from torch import nn

from hf_distill.reports import latencies, throughputs, waits
from hf_distill.reports.side_by_side import PASSES, method
from hf_distill.reports.speed import WARM_UP


class Machine:
    """A clock that models push forward; other work makes a forward slower, as ``busy`` says by the time."""

    def __init__(self, monkeypatch, busy=lambda now: 1.0):
        self.now, self.busy, self.order, self.fed = 0.0, busy, [], []
        monkeypatch.setattr("time.perf_counter", lambda: self.now)

    def model(self, name, seconds):
        machine = self

        class Timed(nn.Linear):
            def forward(self, x):
                machine.order.append(name)
                machine.fed.append((len(x), x.sum().item(), torch.is_grad_enabled(), self.training))
                machine.now += seconds * len(x) * machine.busy(machine.now)
                return x

        return Timed(1, 1)


ROWS = {"x": torch.tensor([[1.0], [2.0]])}


def test_figures_are_those_of_a_quiet_machine(monkeypatch):
    machine = Machine(monkeypatch)
    models = {"large": machine.model("large", 0.004), "small": machine.model("small", 0.001)}
    assert latencies(models, ROWS) == {"large": pytest.approx(4.0), "small": pytest.approx(1.0)}
    assert len(machine.order) == 2 * (WARM_UP + 2 * 50)  # two passes that agree are enough
    assert throughputs(models, [ROWS] * 3) == {"large": pytest.approx(250.0), "small": pytest.approx(1000.0)}


@pytest.mark.parametrize(
    "busy", [lambda now: 8.0 if now < 0.6 else 1.0, lambda now: 8.0 if int(now * 50) % 2 else 1.0]
)
def test_other_work_that_comes_and_goes_changes_no_figure(monkeypatch, busy):
    machine = Machine(monkeypatch, busy)
    models = {"one": machine.model("one", 0.001), "same": machine.model("same", 0.001)}
    assert latencies(models, ROWS) == {"one": pytest.approx(1.0), "same": pytest.approx(1.0)}


def test_what_does_not_come_out_twice_is_not_given(monkeypatch):
    machine = Machine(monkeypatch, lambda now: 1 + now)  # slower and slower
    models = {"one": machine.model("one", 0.01), "quick": machine.model("quick", 0.0)}
    assert latencies(models, ROWS)["one"] is None
    assert machine.order.count("one") == WARM_UP + PASSES * 50
    assert throughputs({"one": models["one"]}, [{"x": torch.ones(40, 1)}]) == {"one": None}


def test_models_take_turns_with_one_row_at_a_time(monkeypatch):
    machine = Machine(monkeypatch)
    models = {name: machine.model(name, 0.001) for name in "abc"}
    latencies(models, ROWS, repeats=10)
    assert "".join(machine.order[3 * WARM_UP :][:12]) == "abcbcacababc"
    assert {each[0] for each in machine.fed} == {1}
    assert [each[1] for each in machine.fed[:6]] == [1.0, 1.0, 1.0, 2.0, 2.0, 2.0]
    assert all(not gradients and not training for *_, gradients, training in machine.fed)


def test_every_mode_is_left_alone():
    model = tiny.bert().train()
    model.classifier.eval()
    modes = [module.training for module in model.modules()]
    rows = {"input_ids": torch.ones(2, 3, dtype=torch.long)}
    found = latencies({"one": model, "again": model}, rows, repeats=10)
    assert all(value is None or value > 0 for value in found.values())
    assert [module.training for module in model.modules()] == modes
    with pytest.raises(ValueError, match="input_ids"):
        throughputs({"one": model}, [{"no_such_input": torch.ones(1)}])
    assert [module.training for module in model.modules()] == modes


def test_refusals_and_how_it_is_told():
    with pytest.raises(ValueError, match="no batches: give at least one"):
        throughputs({"one": nn.Linear(1, 1)}, [])
    for batch in ({"input": torch.ones(0, 1)}, {}):
        with pytest.raises(ValueError, match="50 forwards of 0 rows"):
            latencies({"one": nn.Linear(1, 1)}, batch)
    with pytest.raises(ValueError, match="9 forwards of 1 rows"):
        latencies({"one": nn.Linear(1, 1)}, {"input": torch.ones(1, 1)}, repeats=9)
    assert f"up to {PASSES} passes, if another is within 10 % of it" in method()


def test_a_wait_has_all_that_happened_in_it(monkeypatch):
    """Where one forward in ten is four times as slow, the median is quick and the 95th percentile is not."""
    machine = Machine(monkeypatch)
    models = {"one": machine.model("one", 0.001), "twice": machine.model("twice", 0.002)}
    machine.busy = lambda now: 4.0 if len(machine.order) // 2 % 10 == 0 else 1.0
    found = waits(models, ROWS)
    assert found["one"] == (pytest.approx(1.0), pytest.approx(4.0))
    assert found["twice"] == (pytest.approx(2.0), pytest.approx(8.0))
    assert machine.order[:4] == ["one", "twice", "one", "twice"]
    assert {fed[0] for fed in machine.fed} == {1}
    with pytest.raises(ValueError, match="over 5 forwards of 2 rows: give 20 forwards or more"):
        waits(models, ROWS, repeats=5)
