"""What enters a head, and the head: the same logits, and what a model does to them afterwards is measured."""

import pytest
import tiny
import tiny_language
import torch
from torch import nn
from transformers import BartConfig, BartForConditionalGeneration, BertConfig, BertForMaskedLM

from hf_distill.linear import LinearLogits, Tail, emptied, head_of, project, tail_of
from hf_distill.signals import DenseLogits, Logits


def bart():
    made = BartForConditionalGeneration(BartConfig(
        vocab_size=32, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, pad_token_id=0,
        decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, bos_token_id=1, eos_token_id=2,
        decoder_start_token_id=2, forced_eos_token_id=None,
    ))  # fmt: skip
    made.final_logits_bias += torch.arange(32.0)
    return made


def masked():
    sizes = {"vocab_size": 32, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    return BertForMaskedLM(BertConfig(**sizes, intermediate_size=16, initializer_range=0.5))


def test_both_forms_answer_alike():
    hidden, head, tail = torch.randn(2, 3, 4), nn.Linear(4, 9), Tail(2.0, 3.0, torch.randn(9))
    rows = torch.tensor([[True, False, True], [False, False, True]])
    linear, dense = LinearLogits(hidden, head, tail), DenseLogits(tail(head(hidden)))
    assert isinstance(linear, Logits)
    assert linear.shape == dense.shape == linear.to("cpu").shape
    assert torch.allclose(linear.select(rows).chunk(1, 3), dense.select(rows).chunk(1, 3), atol=1e-6)
    assert torch.allclose(linear.last(2).chunk(0, 9), DenseLogits(dense.tensor[:, -2:]).chunk(0, 9), atol=1e-6)
    hidden[0, 1, 2] = torch.nan
    assert torch.equal(linear.finite(), torch.tensor([[True, False, True], [True, True, True]]))


@pytest.mark.parametrize("make", [bart, masked, tiny_language.llama, tiny_language.t5], ids=lambda f: f.__name__)
def test_no_logits_are_made_and_none_are_lost(make):
    torch.manual_seed(1)
    model = make().eval()
    fed = {"input_ids": torch.randint(3, 32, (2, 5))}
    if model.config.is_encoder_decoder:
        fed["decoder_input_ids"] = torch.randint(3, 32, (2, 4))
    whole, heard = model(**fed).logits, []
    with emptied(head_of(model), tail_of(model), heard):
        assert model(**fed).logits.shape[-2] == 0
    assert len(heard) == 1
    assert torch.allclose(heard[0].chunk(0, 99), whole.flatten(0, 1), atol=1e-5)
    assert torch.equal(model(**fed).logits, whole)  # nothing stays on the model


def test_a_bias_after_the_head_is_found():
    assert torch.equal(tail_of(bart()).bias, torch.arange(32.0))


def test_measuring_leaves_no_trace():
    model = tiny_language.llama(attention_dropout=0.5).train()
    torch.manual_seed(3)
    before = torch.get_rng_state()
    assert tail_of(model) == Tail()
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training
    assert not head_of(model)._forward_hooks
    assert not head_of(model)._forward_pre_hooks


def test_models_that_cannot_be_taken_apart_are_read_whole():
    class Twice(type(tiny_language.llama())):
        def forward(self, *args, **kwargs):
            out = super().forward(*args, **kwargs)
            out.logits = out.logits.square()  # neither a scale, nor a cap, nor a shift
            return out

    class Silent(type(tiny_language.llama())):
        def get_output_embeddings(self):
            return nn.Linear(16, 32)  # not the one that is called

    for kind in (Twice, Silent):
        assert tail_of(kind(tiny_language.llama().config)) is None
    assert tail_of(tiny.bert()) is None


def test_a_half_precision_head_is_measured_too():
    assert tail_of(tiny_language.llama().bfloat16()) == Tail()


def test_a_head_that_is_more_than_its_weight_is_called():
    class Doubled(nn.Linear):
        def forward(self, hidden):
            return 2 * super().forward(hidden)

    head = Doubled(2, 3)
    assert torch.equal(project(head, torch.ones(1, 2)), head(torch.ones(1, 2)))
