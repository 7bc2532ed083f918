"""Speed is measured on rows, the model is left as it was, and the machine is named without saying whose it is."""

import platform

import pytest
import tiny
import torch
from torch import nn

from hf_distill.reports import latency, machine, real_time_factor, size_of, throughput
from hf_distill.reports.speed import WARM_UP


def test_shared_parameters_count_once():
    model = tiny.bert()
    model.tied = model.classifier
    assert size_of(model)[0] == sum(p.numel() for p in tiny.bert().parameters())


def test_speed_leaves_every_mode_alone():
    model = tiny.bert().train()
    model.classifier.eval()
    modes = [module.training for module in model.modules()]
    rows = {"input_ids": torch.ones(2, 3, dtype=torch.long)}
    assert throughput(model, [rows], repeats=1) > 0
    assert latency(model, rows, repeats=20).p50 > 0
    assert [module.training for module in model.modules()] == modes
    with pytest.raises(ValueError, match="input_ids"):
        latency(model, {"no_such_input": torch.ones(1)})
    assert [module.training for module in model.modules()] == modes


class Watched(nn.Linear):
    """Sleeps by the clock of the test for as long as its input says."""

    def __init__(self, clock):
        super().__init__(1, 1)
        self.clock, self.seen = clock, []

    def forward(self, x):
        self.seen.append((len(x), x.sum().item(), torch.is_grad_enabled(), self.training))
        self.clock[0] += x.sum().item()
        return x


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    return now


def test_rows_are_fed_one_at_a_time_and_in_turn(clock):
    model = Watched(clock)
    found = latency(model, {"x": torch.tensor([[1.0], [2.0]])}, repeats=20)
    assert len(model.seen) == 20 + WARM_UP
    assert {each[0] for each in model.seen} == {1}
    assert [each[1] for each in model.seen[:4]] == [1.0, 2.0, 1.0, 2.0]
    assert all(not gradients and not training for *_, gradients, training in model.seen)
    assert found == (1500.0, 2000.0)


def test_what_warms_up_is_not_counted(clock):
    model = Watched(clock)
    rows = torch.full((100, 1), 0.002)
    rows[:WARM_UP] = 9.0
    assert latency(model, {"x": rows}, repeats=WARM_UP + 20).p50 == pytest.approx(2.0)
    slow = throughput(model, [{"x": torch.full((4, 1), 0.25)}], repeats=2)
    assert slow == pytest.approx(4.0)


def test_the_machine_is_named_and_nothing_else():
    line = machine("cpu", torch.bfloat16)
    assert line.endswith("bfloat16")
    assert f"{torch.get_num_threads()} thread" in line
    assert len(line.split(",")[0]) > 2
    assert "\n" not in line
    assert "(R)" not in line
    assert platform.node() not in line


def test_a_gpu_is_named_by_its_driver(monkeypatch):
    monkeypatch.setattr("torch.cuda.get_device_name", lambda device: f"GPU of {device}")
    assert machine("cuda:1").startswith("GPU of cuda:1, ")


def test_refusals():
    with pytest.raises(ValueError, match="no batches: give at least one"):
        throughput(nn.Linear(1, 1), [])
    with pytest.raises(ValueError, match="100 forwards of 0 rows"):
        latency(nn.Linear(1, 1), {"input": torch.ones(0, 1)})
    with pytest.raises(ValueError, match="of 0 rows"):
        latency(nn.Linear(1, 1), {})
    with pytest.raises(ValueError, match="5 forwards of 1 rows"):
        latency(nn.Linear(1, 1), {"input": torch.ones(1, 1)}, repeats=5)


def test_a_real_time_factor_is_audio_per_second_of_the_processor(monkeypatch):
    clock, took = [0.0], iter([9.0, 9.0, 2.0, 2.0, 1.0, 1.0, 3.0, 3.0])  # two batches a pass; the first pass warms up

    class Heard(nn.Linear):
        def forward(self, input):
            clock[0] += next(took)

    monkeypatch.setattr("time.process_time", lambda: clock[0])
    model, batches = Heard(1, 1).train(), [{"input": torch.ones(4, 1)}] * 2
    assert real_time_factor(model, batches, seconds=30.0) == 15.0
    assert model.training
    for wrong in (([], 30.0), (batches, 0.0)):
        with pytest.raises(
            ValueError, match=r"seconds of audio in \d batches: give at least one recording, and how lo"
        ):
            real_time_factor(model, *wrong)
