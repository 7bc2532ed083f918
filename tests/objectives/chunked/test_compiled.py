"""The losses of a chunk through PyTorch's compiler, and without it where it fails."""

import functools
import logging

import pytest
import torch
from default_run import slow_but
from torch import nn
from torch._dynamo.exc import TorchDynamoException

from hf_distill.cache.sampled import restore, sample
from hf_distill.models.linear_logits import LinearLogits, LogitTransform
from hf_distill.objectives import build
from hf_distill.objectives.chunked import linear_pass, one_pass
from hf_distill.objectives.chunked.compiled import Compiled
from hf_distill.signals import Head, Signals
from hf_distill.tasks.alignment.vocabulary import Columns

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, while it compiles
ROWS, CLASSES = 23, 40
CASES = {
    "divergences": {"forward_kl": 1.0, "jsd": 0.5},
    "alpha-beta": {"alpha_beta": {"alpha": 0.3, "beta": 0.6}},
    "another temperature": {"reverse_kl": {"temperature": 3.0}},
    "soft cap": {"forward_kl": 1.0},
    "shared columns": {"forward_kl": 1.0},
    "few ids": {"forward_kl": 1.0},
}


@pytest.fixture
def compiled(monkeypatch):
    """Chunks are taken for large ones on a GPU; the compiler traces them, and generates no code."""
    traced = Compiled(linear_pass._weighed)
    made = torch.compile(linear_pass._weighed, backend="aot_eager")
    monkeypatch.setattr(traced, "made", made, raising=False)
    monkeypatch.setattr(linear_pass, "_WEIGHED", traced)
    monkeypatch.setattr(linear_pass, "_is_large", lambda block: True)
    torch._dynamo.reset()
    yield traced
    torch._dynamo.reset()


def result(case, monkeypatch):
    monkeypatch.setattr(one_pass, "CHUNK_ELEMENTS", 5 * CLASSES)
    torch.manual_seed(0)
    ours, theirs = nn.Linear(8, CLASSES), nn.Linear(8, CLASSES).requires_grad_(False)
    hidden, read = torch.randn(ROWS, 8, requires_grad=True), torch.randn(ROWS, 8)
    rows, labels = torch.arange(ROWS) % 4 != 0, torch.randint(CLASSES - 4, (ROWS,))
    tail = LogitTransform(cap=2.0) if case == "soft cap" else LogitTransform()
    student, teacher = LinearLogits(hidden, ours, tail), LinearLogits(read, theirs)
    if case == "few ids":
        teacher = restore(sample(theirs(read), 2.0, 6, 4, seed=0), 2.0, CLASSES)
    if case == "shared columns":
        student, teacher = (Columns(one, torch.arange(CLASSES - 4)) for one in (student, teacher))
    objective = build(CASES[case])
    objective.set_temperature(2.0)
    shares = {name: torch.tensor(0.5 / ROWS) for name in ("hard", *objective.terms)}
    shown = Signals({"logits": Head(student, rows, labels)}), Signals({"logits": Head(teacher, rows)})
    parts = objective(*shown, {}, shares)
    sum(part.total * shares[name] for name, part in parts.items()).backward()
    return [*(part.total.detach() for part in parts.values()), hidden.grad, ours.weight.grad, ours.bias.grad]


@pytest.mark.parametrize("case", slow_but(["divergences"], CASES))
def test_losses_and_gradients_are_those_without_the_compiler(case, monkeypatch, compiled):
    found = result(case, monkeypatch)
    assert not compiled.broken
    monkeypatch.setattr(linear_pass, "_is_large", lambda block: False)
    for one, other in zip(found, result(case, monkeypatch), strict=True):
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-7)


def test_what_cannot_be_compiled_runs_as_it_is_and_is_not_tried_again(caplog):
    asked = []

    class Broken(Compiled):
        @functools.cached_property
        def made(self):
            def fails(*args):
                asked.append(args)
                raise TorchDynamoException("no C compiler\nwas found")

            return fails

    twice = Broken(lambda x: 2 * x)
    with caplog.at_level(logging.WARNING):
        assert [twice(lambda function, x: function(x) + 1, n) for n in (3, 4)] == [7, 9]
    assert asked == [(3,)]
    assert caplog.text.count("are computed without PyTorch's compiler, which is slower: no C compiler\n") == 1


def test_any_other_fault_is_the_callers():
    with pytest.raises(ZeroDivisionError):
        Compiled(lambda x: x)(lambda function, x: x / 0, 1)
