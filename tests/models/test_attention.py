"""Attention maps: models that can show them do, the others are refused before the first step."""

import logging

import pytest
import tiny
import tiny_language
import torch
from transformers import FNetConfig, FNetForSequenceClassification

from hf_distill.models.attention import show_attention

IDS = torch.tensor([[5, 6, 7]])


@pytest.mark.parametrize("make", [tiny.bert, tiny_language.llama])
def test_a_model_is_switched_to_eager_attention_and_says_so(make, caplog):
    model = make()
    assert model.config._attn_implementation == "sdpa"
    before = model(IDS).logits
    with caplog.at_level(logging.WARNING, logger="hf_distill"):
        show_attention(model, "the teacher big")
        show_attention(model, "the teacher big")
    assert [record.getMessage()[:60] for record in caplog.records] == [
        "the teacher big was switched from sdpa to eager attention, b"
    ]
    shown = model(IDS, output_attentions=True)
    assert shown.attentions[0].shape == (1, 2, 3, 3)
    assert torch.allclose(shown.logits, before, atol=1e-5)


def test_what_gives_no_maps_is_refused():
    fnet = FNetForSequenceClassification(
        FNetConfig(vocab_size=32, hidden_size=8, num_hidden_layers=1, intermediate_size=8)
    )
    for model in (fnet, torch.nn.Linear(1, 1)):
        with pytest.raises(
            ValueError, match=f"attention maps were asked of it, a {type(model).__name__}, which gives"
        ):
            show_attention(model, "it")


def test_a_model_that_stays_with_another_attention_is_refused(monkeypatch):
    model = tiny.bert()
    monkeypatch.setattr(model, "set_attn_implementation", lambda name: None)
    with pytest.raises(ValueError, match='stays with sdpa attention: load it with attn_implementation="eager"'):
        show_attention(model, "it")
