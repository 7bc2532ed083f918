"""The joint forward: for one call, inside, and gone afterwards."""

import pytest
import tiny
import torch

from hf_distill.training.inside_forward import run_inside_forward


def batch():
    return {"input_ids": torch.tensor([[1, 2, 3]])}


def test_runs_inside_the_forward_and_returns_both():
    model = tiny.bert()
    with run_inside_forward(model, lambda outputs: outputs.logits.sum()):
        both = model(**batch())
    assert both.keys() == {"parts", "outputs"}
    assert both["parts"] == both["outputs"].logits.sum()
    assert "forward" not in vars(model)
    assert "logits" in model(**batch())


def test_puts_back_a_forward_that_belonged_to_the_instance():
    model = tiny.bert()
    own = model.forward
    model.forward = own  # as accelerate does
    with run_inside_forward(model, lambda outputs: 1):
        model(**batch())
    assert vars(model)["forward"] is own


def test_leaves_nothing_behind_when_something_fails():
    model = tiny.bert()

    def fails(outputs):
        raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"), run_inside_forward(model, fails):
        model(**batch())
    assert "forward" not in vars(model)


def test_after_runs_under_the_given_autocast():
    model, seen = tiny.bert(), []
    with run_inside_forward(
        model, lambda o: seen.append(torch.is_autocast_enabled("cpu")), lambda: torch.autocast("cpu")
    ):
        model(**batch())
    assert seen == [True]
