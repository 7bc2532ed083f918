"""How long a text may be for a model: what its tables hold, not what one of its configuration's numbers says."""

import peft
import pytest
import tiny
import tiny_language
import tiny_speech
import torch
from torch import nn
from transformers import (
    CanineConfig,
    CanineModel,
    DebertaV2Config,
    DebertaV2Model,
    MPNetConfig,
    MPNetModel,
    RobertaConfig,
    RobertaModel,
)

from hf_distill.models.context import context_of, embedded, limits_of

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


def test_of_whisper_the_decoders_positions_are_those_of_a_text():
    model = tiny_speech.whisper()
    assert context_of(model) == 16
    read = {"input_features": torch.zeros(1, 8, 20), "decoder_input_ids": torch.full((1, 17), 5)}
    limits_of(model).check({**read, "decoder_input_ids": read["decoder_input_ids"][:, :16]})
    with pytest.raises(ValueError, match=r"the batch is 17 tokens long, the student Whisper.* was made for 16 positi"):
        limits_of(model).check(read)


def test_relative_positions_read_on_and_say_so(caplog):
    config = DebertaV2Config(max_position_embeddings=6, position_biased_input=False, relative_attention=True, **SIZES)
    limits = limits_of(DebertaV2Model(config))
    for _ in range(2):
        limits.check({"input_ids": torch.full((1, 9), 5)})
    assert caplog.text.count("was made for 6 positions and may know less of what lies beyond") == 1


def test_packed_texts_are_as_long_as_their_positions_say():
    limits, ids = limits_of(tiny.bert(max_position_embeddings=4)), torch.full((1, 8), 5)
    limits.check({"input_ids": ids, "position_ids": torch.arange(8)[None] % 4})
    with pytest.raises(
        ValueError, match=r"the batch is 8 tokens long, the student BertFor.* was made for 4 positions"
    ):
        limits.check({"input_ids": ids, "position_ids": torch.arange(8)[None]})


def test_tokens_without_a_vector_are_named():
    limits = limits_of(tiny.bert(vocab_size=29), tiny.tokenizer())
    assert limits.tokens == 29
    assert not limits.every
    with pytest.raises(ValueError, match=r"token 29, the student .* for the tokens 0 to 28: call model.resize_token"):
        limits.check({"input_ids": torch.tensor([[3, 29]])})
    assert limits_of(tiny.bert(vocab_size=20), tiny.tokenizer()).every  # also where it waits for a GPU
    assert limits_of(tiny.bert()).every  # as nobody knows how many tokens there are


def test_a_model_without_a_table_of_tokens_is_not_judged():
    assert embedded(nn.Linear(1, 1)) is None
    assert embedded(CanineModel(CanineConfig(num_hidden_layers=1, hidden_size=12, num_attention_heads=1))) is None
