"""How long a text may be for a model: what its tables hold, not what one of its configuration's numbers says."""

import peft
import pytest
import tiny
import tiny_language
import torch
from torch import nn
from transformers import MPNetConfig, MPNetModel, RobertaConfig, RobertaModel

from hf_distill.tasks.context import context_of

SIZES = {"vocab_size": 9, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}


@pytest.mark.parametrize(("config", "kind"), [(RobertaConfig, RobertaModel), (MPNetConfig, MPNetModel)])
def test_a_row_for_padding_and_those_before_it_are_no_positions(config, kind):
    model = kind(config(max_position_embeddings=10, pad_token_id=1, **SIZES)).eval()
    room = context_of(model)
    assert room == 8
    model(input_ids=torch.full((1, room), 5))
    with pytest.raises((IndexError, RuntimeError)):
        model(input_ids=torch.full((1, room + 1), 5))


def test_a_table_without_a_row_for_padding_is_all_positions():
    model = tiny.bert(max_position_embeddings=7)
    assert context_of(model) == 7
    assert context_of(peft.get_peft_model(model, peft.LoraConfig(target_modules=["query"]))) == 7


def test_who_does_not_say_is_not_judged():
    assert context_of(nn.Linear(2, 2)) is None
    assert context_of(tiny_language.t5()) is None
