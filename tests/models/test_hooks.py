"""What is heard inside a model: modules by their path, projections by what they do."""

import pytest
import tiny
import tiny_image_text
import tiny_language
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    AlbertConfig,
    AlbertModel,
    BloomConfig,
    BloomModel,
    FalconConfig,
    FalconModel,
    GPT2Config,
    GPT2Model,
    GPTNeoXConfig,
    GPTNeoXModel,
    Phi3Config,
    Phi3Model,
)
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS as FUNCTIONS

from hf_distill.models.hooks import capture, taken_apart

SMALL = dict(vocab_size=32, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16)
IDS = torch.tensor([[5, 6, 7]])


def heard_of(model, needs=("qkv",), **inputs):
    with capture(model.eval(), needs) as captured:
        outputs = model(**(inputs or {"input_ids": IDS}))
    return captured, outputs


def test_a_module_is_heard_by_its_path_and_the_first_of_several_outputs_is_kept():
    captured, _ = heard_of(tiny.bert(), {"tap:bert.pooler", "tap:bert.encoder", "heads"})
    assert captured.taps["bert.pooler"].shape == (1, 16)
    assert captured.taps["bert.encoder"].shape == (1, 3, 16)
    assert captured.taps["bert.pooler"].requires_grad
    assert captured.qkv == []


def test_nothing_is_left_behind():
    model = tiny.bert()
    heard_of(model, {"tap:classifier", "qkv"})
    assert not any(module._forward_hooks for module in model.modules())
    with pytest.raises(ValueError, match="input_ids"), capture(model, {"tap:classifier"}):
        model()
    assert not model.classifier._forward_hooks


def test_a_path_that_is_not_there_is_refused():
    with (
        pytest.raises(
            ValueError, match=r"tap:bert.pool was asked of BertForSeq.* which has no module .*bert.embeddings"
        ),
        capture(tiny.bert(), {"tap:bert.pool"}),
    ):
        pass


def test_a_model_without_known_projections_is_refused():
    with (
        pytest.raises(ValueError, match="queries, keys and values were asked of Linear, in which no projections"),
        capture(torch.nn.Linear(1, 1), {"qkv"}),
    ):
        pass


def test_three_projections_are_heard_layer_by_layer():
    model = tiny.bert(layers=2)
    captured, _ = heard_of(model)
    attention = model.bert.encoder.layer[0].attention.self
    states = model.bert.embeddings(IDS)
    query, key, value = taken_apart(model, captured.qkv)[0]
    assert len(captured.qkv) == 2
    for part, module in ((query, attention.query), (key, attention.key), (value, attention.value)):
        assert torch.equal(part, module(states))


def test_a_lora_student_is_heard_with_its_adapter():
    torch.manual_seed(0)
    base = tiny.bert()
    model = get_peft_model(base, LoraConfig(target_modules=["query"], init_lora_weights=False))
    captured, _ = heard_of(model, {"qkv", "tap:bert.pooler"})
    assert len(captured.qkv) == 1
    adapted = base.bert.encoder.layer[0].attention.self.query
    assert torch.equal(captured.qkv[0]["query"], adapted(base.bert.embeddings(IDS)))
    assert not torch.equal(captured.qkv[0]["query"], adapted.base_layer(base.bert.embeddings(IDS)))


def test_of_an_encoder_decoder_the_decoders_own_attention_is_heard():
    model = tiny_language.t5(layers=2)
    captured, _ = heard_of(model, input_ids=IDS, decoder_input_ids=torch.tensor([[0, 5]]))
    assert [parts["query"].shape[1] for parts in captured.qkv] == [2, 2]


@pytest.mark.parametrize("model", [
    lambda: GPT2Model(GPT2Config(vocab_size=32, n_embd=16, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0)),
    lambda: GPTNeoXModel(GPTNeoXConfig(**SMALL)),
    lambda: Phi3Model(Phi3Config(**SMALL, num_key_value_heads=1, pad_token_id=0)),
    lambda: AlbertModel(AlbertConfig(**SMALL, embedding_size=8)),
])  # fmt: skip
def test_one_projection_for_all_three_is_taken_apart_as_the_model_does(model):
    """The values that are heard are those that its attention is given."""
    torch.manual_seed(0)
    model = model()
    before = taken_apart(model, heard_of(model)[0].qkv)
    assert len(before) == 2
    assert all(part.shape[-1] in (16, 8) for part in before[0])
    seen = []

    def spy(module, query, key, value, *args, **kwargs):
        seen.append((query, key, value))
        return eager(module, query, key, value, *args, **kwargs)

    eager, name = FUNCTIONS["sdpa"], "sdpa"
    FUNCTIONS.register(name, spy)
    try:
        after = taken_apart(model, heard_of(model)[0].qkv)
    finally:
        FUNCTIONS.register(name, eager)
    for (_, _, value), given in zip(after, seen, strict=True):
        theirs = given[2].transpose(1, 2).flatten(2)
        assert torch.allclose(value, theirs, atol=1e-6)


def test_heads_in_turn_are_taken_apart_as_bloom_does():
    torch.manual_seed(0)
    model = BloomModel(BloomConfig(vocab_size=32, hidden_size=16, n_layer=2, n_head=2))
    captured, _ = heard_of(model)
    theirs = model.h[0].self_attention._reshape(captured.qkv[0]["interleaved"])
    for ours, given in zip(taken_apart(model, captured.qkv)[0], theirs, strict=True):
        assert torch.equal(ours, given.transpose(1, 2).flatten(2))


def test_a_fused_projection_of_another_width_is_refused():
    model = FalconModel(FalconConfig(vocab_size=32, hidden_size=16, num_hidden_layers=1, num_attention_heads=2))
    captured, _ = heard_of(model)
    with pytest.raises(
        ValueError, match="whose one projection is 32 wide where 2 heads and 2 for keys and values of 8"
    ):
        taken_apart(model, captured.qkv)


def test_a_forward_without_gradients_inside_one_with_them_is_refused():
    model = tiny.bert().train()
    checkpoint = getattr(model, f"{tiny.CHECKPOINTING}_enable")
    checkpoint({"use_reentrant": True})
    with pytest.raises(ValueError, match=r'gradient_checkpointing_kwargs=\{"use_reentrant": False\}'):
        heard_of_training(model)
    checkpoint({"use_reentrant": False})
    heard_of_training(model).qkv[0]["query"].sum().backward()
    assert model.bert.encoder.layer[0].attention.self.query.weight.grad.abs().sum() > 0


def heard_of_training(model):
    with capture(model, {"qkv"}) as captured:
        model(IDS)
    return captured


def test_of_a_model_of_images_and_texts_only_the_text_is_heard():
    model, batch = tiny_image_text.llava(layers=2), tiny_image_text.batch([1, 1])
    captured, _ = heard_of(model, **batch)
    shown = taken_apart(model, captured.qkv)
    assert [tuple(layer.query.shape) for layer in shown] == [(2, 11, 8)] * 2  # the image's tower has 5 positions
