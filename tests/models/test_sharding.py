"""What is whole stays what it is; what is sharded: tests/trainer/test_strategies.py, on two ranks."""

import tiny
import torch

from hf_distill.models.sharding import is_sharded, unsharded, whole_state


def test_a_whole_model_is_returned_as_it_is():
    model = tiny.bert()
    assert not is_sharded(model)
    assert unsharded(model) is model


def test_a_state_is_a_copy_on_the_cpu():
    model = tiny.bert()
    state = whole_state(model)
    assert state.keys() == model.state_dict().keys()
    with torch.no_grad():
        model.classifier.bias.add_(1.0)
    assert not torch.equal(state["classifier.bias"], model.classifier.bias)
