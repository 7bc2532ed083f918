"""What is said of a model before it runs is what it then shows: its main stream's layers, and those of its parts."""

import pytest
import tiny
import tiny_images
import tiny_speech
import torch
from transformers import (
    BartConfig,
    BartForCausalLM,
    BartForConditionalGeneration,
    BertConfig,
    CLIPConfig,
    CLIPModel,
    EncoderDecoderConfig,
    EncoderDecoderModel,
    MarianConfig,
    MarianMTModel,
    ProphetNetConfig,
    ProphetNetForConditionalGeneration,
    T5Config,
    T5ForConditionalGeneration,
    T5ForTokenClassification,
)

from hf_distill.models.facts import Facts

SIDES = {
    "vocab_size": 32, "d_model": 16, "encoder_layers": 3, "decoder_layers": 1, "encoder_attention_heads": 4,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "max_position_embeddings": 16,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2,
}  # fmt: skip
T5 = {"vocab_size": 32, "d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 3, "num_decoder_layers": 1, "num_heads": 2}


def bert(width=16, layers=3, heads=4, **config):
    return BertConfig(
        vocab_size=32, hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=16,
        **config,
    )  # fmt: skip


def of_two_models():
    both = bert(), bert(8, 1, 2, is_decoder=True, add_cross_attention=True)
    return EncoderDecoderModel(EncoderDecoderConfig.from_encoder_decoder_configs(*both))


def prophet():
    sizes = {"num_encoder_layers": 3, "num_decoder_layers": 1, "num_encoder_attention_heads": 4}
    ffn = {"encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "num_decoder_attention_heads": 2, "ngram": 1}
    return ProphetNetForConditionalGeneration(ProphetNetConfig(vocab_size=32, hidden_size=16, **sizes, **ffn))


TWO_SIDED = {
    "bart": lambda: BartForConditionalGeneration(BartConfig(**SIDES)),
    "marian": lambda: MarianMTModel(MarianConfig(**SIDES)),
    "t5": lambda: T5ForConditionalGeneration(T5Config(**T5)),
    "two models": of_two_models,
    "prophet": prophet,
}


@pytest.mark.parametrize("kind", TWO_SIDED)
def test_of_an_encoder_decoder_the_decoder_comes_first_and_both_sides_are_known(kind):
    model, ids = TWO_SIDED[kind]().eval(), torch.tensor([[3, 4, 5, 2]])
    with torch.no_grad():
        shown = model(input_ids=ids, decoder_input_ids=ids, output_hidden_states=True)
    facts = Facts.of(model)
    for found, states in (
        (facts, shown.decoder_hidden_states),
        (facts.stream("decoder"), shown.decoder_hidden_states),
        (facts.stream("encoder"), shown.encoder_hidden_states),
    ):
        assert (found.num_layers, found.hidden_size) == (len(states) - 1, states[-1].shape[-1])
    if kind != "t5":  # which has one number for both
        assert (facts.num_heads, facts.stream("encoder").num_heads) == (2, 4)
    assert facts.stream("encoder").name == f"{facts.name}'s encoder"


def test_a_decoder_that_stands_alone_has_a_decoders_layers():
    model = BartForCausalLM(BartConfig(**SIDES)).eval()
    with torch.no_grad():
        shown = model(input_ids=torch.tensor([[3, 4]]), output_hidden_states=True).hidden_states
    assert Facts.of(model).num_layers == len(shown) - 1 == 1


def test_an_encoder_that_stands_alone_has_an_encoders_layers():
    model = T5ForTokenClassification(T5Config(**T5)).eval()
    with torch.no_grad():
        shown = model(input_ids=torch.tensor([[3, 4]]), output_hidden_states=True).hidden_states
    assert Facts.of(model).num_layers == len(shown) - 1 == 3


def test_towers_of_texts_and_of_images_are_told_apart():
    sizes = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    text = {"hidden_size": 8, "vocab_size": 9, "bos_token_id": 1, "eos_token_id": 2, **sizes}
    vision = {"hidden_size": 16, "image_size": 8, "patch_size": 4, **sizes, "num_hidden_layers": 3}
    facts = Facts.of(CLIPModel(CLIPConfig(text_config=text, vision_config=vision)))
    assert [(one.hidden_size, one.num_layers) for one in (facts.stream("text"), facts.stream("vision"))] == [
        (8, 1), (16, 3),
    ]  # fmt: skip


@pytest.mark.parametrize("model", [tiny.bert, tiny_images.vit])
def test_a_model_of_one_part_has_one_stream(model):
    facts = Facts.of(model())
    assert not facts.streams
    assert facts.stream(None) is facts
    assert (facts.stream("encoder").hidden_size, facts.stream("encoder").num_layers) == (None, None)


def test_what_several_have_in_common_is_so_of_each_stream():
    one, other = (Facts.of(T5ForConditionalGeneration(T5Config(**{**T5, "num_layers": n}))) for n in (3, 2))
    both = Facts.shared([one, other])
    assert (both.num_layers, both.stream("encoder").num_layers, both.stream("encoder").hidden_size) == (1, None, 16)


def test_of_a_model_around_an_encoder_the_encoder_is_known():
    """Parakeet, whose own configuration has no layers."""
    facts, model = Facts.of(tiny_speech.parakeet(layers=3)), tiny_speech.parakeet(layers=3).eval()
    assert (facts.hidden_size, facts.num_layers, facts.num_heads) == (16, 3, 2)
    assert facts.blank == tiny_speech.LETTERS
    with torch.no_grad():
        shown = model(input_features=torch.randn(1, 40, 8), output_hidden_states=True).hidden_states
    assert [state.shape[-1] for state in shown] == [16] * 4
