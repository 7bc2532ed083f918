"""Denoisers, generators, draft heads and readers under FSDP2 and ZeRO: the numbers and the students of one process.

Each strategy is started once, as users start it, and leaves what it did in files; see strategies_by_kind.py.
"""

import importlib.util
import json
import os
import subprocess
import sys

import pytest
import strategies_by_kind
import tiny
import torch
from safetensors.torch import load_file
from test_strategies import launched
from transformers import AutoModelForSequenceClassification, SpeechT5HifiGan

from hf_distill import DraftHead

DEEPSPEED = pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None, reason='needs pip install -e ".[deepspeed]"'
)
SHARDED = ("fsdp2", "zero3")
CASES = [
    pytest.param(name, kind, marks=marks)
    for name, marks in (("fsdp2", ()), ("zero2", DEEPSPEED), ("zero3", DEEPSPEED))
    for kind in strategies_by_kind.KINDS
    if (name, kind) != ("fsdp2", "vocoder")  # refused, see test_checks.py
]


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Start a strategy the first time that somebody asks for it; returns its folder."""
    folder, started = tmp_path_factory.mktemp("strategies_by_kind"), set()

    def run(strategy):
        if strategy not in started:
            started.add(strategy)
            found = subprocess.run(
                [sys.executable, *launched(strategy), strategies_by_kind.__file__, str(folder), strategy],
                env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300, check=False,
            )  # fmt: skip
            assert found.returncode == 0, found.stderr[-6000:]
        return folder / strategy

    return run


def facts(folder, kind, rank=0):
    return json.loads((folder / kind / f"facts-{rank}.json").read_text())


def change(folder, kind):
    """What the first step changed in each weight: with a rate of one, its gradient."""
    before, after = strategies_by_kind.KINDS[kind]()[0].state_dict(), load_file(folder / kind / "step.safetensors")
    return {name: value - before.get(name, 0) for name, value in after.items()}


@pytest.mark.parametrize("kind", strategies_by_kind.KINDS)
def test_what_fsdp_gathers_at_a_time_is_in_the_student(kind):
    student = strategies_by_kind.KINDS[kind]()[0]
    assert strategies_by_kind.BLOCKS[kind] in {type(part).__name__ for part in student.modules()}


@pytest.mark.slow
@pytest.mark.parametrize(("strategy", "kind"), CASES)
def test_gradients_losses_and_resumed_runs_equal_those_of_one_process(ran, strategy, kind):
    ours, one = ran(strategy), ran("one")
    mine, theirs = facts(ours, kind), facts(one, kind)
    assert [theirs["world_size"], mine["world_size"], facts(ours, kind, 1)["world_size"]] == [1, 2, 2]
    assert max(float(value.abs().max()) for value in change(one, kind).values()) > 0.01
    assert tiny.relative(change(ours, kind), change(one, kind)) < 1e-5
    assert len(mine["losses"]) == 4
    for name in ("parts", "losses", "norms"):
        assert mine[name] == pytest.approx(theirs[name], rel=1e-5), name
    assert facts(ours, kind, 1)["losses"] == mine["losses"]
    assert mine["resumed"] == mine["losses"]  # the first two come from the checkpoint, the others are run again


@pytest.mark.slow
@pytest.mark.parametrize(("strategy", "kind"), CASES)
def test_a_rank_holds_its_share(ran, strategy, kind):
    whole = facts(ran("one"), kind)
    for who in ("student", "teacher") if strategy in SHARDED else ("teacher",):
        shares = [facts(ran(strategy), kind, rank)[who] / whole[who] for rank in (0, 1)]
        assert sum(shares) == pytest.approx(1.0 if strategy in SHARDED else 2.0, abs=0.1)  # small ones are padded
        assert max(shares) < (0.75 if strategy in SHARDED else 1.01)


@pytest.mark.slow
@pytest.mark.parametrize(("strategy", "kind"), CASES)
def test_what_is_saved_loads_and_is_what_was_trained(ran, strategy, kind):
    folder = ran(strategy) / kind
    mine, trained = loaded(folder / "final", kind).state_dict(), load_file(folder / "last.safetensors")
    trained = {name.removeprefix("vae."): value for name, value in trained.items()}
    assert mine.keys() == trained.keys()
    assert all(torch.equal(value, trained[name]) for name, value in mine.items())


def loaded(folder, kind):
    """Load what was saved as a user would."""
    if kind in ("unet", "dit", "decoder"):
        import diffusers

        return (diffusers.AutoencoderKL if kind == "decoder" else diffusers.AutoModel).from_pretrained(str(folder))
    if kind == "gan":
        model = strategies_by_kind.gan()[0]
        model.load_state_dict(load_file(folder / "model.safetensors"))
        return model
    classes = {"vocoder": SpeechT5HifiGan, "draft": DraftHead, "reader": AutoModelForSequenceClassification}
    model, info = classes[kind].from_pretrained(folder, output_loading_info=True)
    assert not any(info[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return model
