"""How models are asked for more than logits, and that nobody sees it afterwards."""

import numpy as np
import peft
import pytest
import tiny
import torch

from hf_distill.models.outputs import asking, core_of, logits_in, without


def test_flags_follow_the_needs():
    assert asking({"heads"}) == {}
    assert asking({"hidden", "attention"}) == {"output_hidden_states": True, "output_attentions": True}
    both = {"hidden:encoder", "attention:vision", "tap:hidden"}
    assert asking(both) == {"output_hidden_states": True, "output_attentions": True}
    assert asking({"tap:hidden"}) == {}


def test_what_the_users_configuration_asks_for_anyway_is_left_alone():
    model = tiny.bert()
    model.config.output_hidden_states = True
    assert asking({"hidden"}, model) == {}
    assert asking({"hidden"}, peft.get_peft_model(model, peft.LoraConfig(target_modules=["query"]))) == {}


def test_a_model_that_returns_tuples_is_asked_for_names():
    model = tiny.bert()
    model.config.return_dict = False
    assert asking({"hidden"}, model) == {"output_hidden_states": True, "return_dict": True}
    assert asking({"heads"}, model) == {}


def test_only_what_was_asked_for_is_taken_away():
    shown = {"logits": 1, "hidden_states": 2, "attentions": 3}
    assert without(shown, {"output_hidden_states": True}) == {"logits": 1, "attentions": 3}
    assert without(shown, {}) is shown
    assert without((1, 2), {"output_hidden_states": True}) == (1, 2)


def test_the_core_of_a_peft_model_is_the_model_inside():
    model = tiny.bert()
    assert core_of(model) is model
    assert core_of(peft.get_peft_model(model, peft.LoraConfig(target_modules=["query"]))) is model


@pytest.mark.parametrize("outputs", [{"loss": torch.tensor(1.0)}, (torch.tensor(1.0),)])
def test_outputs_without_logits_are_refused(outputs):
    with pytest.raises(ValueError, match="logits were asked of a model, it returned"):
        logits_in(outputs, "a model")


@pytest.mark.parametrize("return_dict", [True, False])
def test_predictions_hold_only_what_they_would_without_a_hidden_term(tmp_path, return_dict):
    made = []
    for parts in ({}, {"teacher_model": tiny.teacher(), "objective": {"hidden_mse": {}}}):
        student = tiny.bert()
        student.config.return_dict = return_dict
        run = tiny.trainer(tmp_path, student, eval_dataset=tiny.rows(6, seed=9), **parts)
        made.append(run.predict(tiny.rows(6, seed=9)).predictions)
    assert isinstance(made[1], np.ndarray)
    assert np.array_equal(*made)
    run.train()
    assert tiny.losses(run, "loss/hidden_mse")[-1] > 0
