"""What a model does to its logits after its head is measured, and what cannot be measured is read whole."""

import tiny
import tiny_language
import torch
from torch import nn

from hf_distill.models.head import logit_transform
from hf_distill.models.linear_logits import LogitTransform, head_of


def test_a_bias_after_the_head_is_found():
    assert torch.equal(logit_transform(tiny_language.bart()).bias, torch.arange(32.0))


def test_measuring_leaves_no_trace():
    model = tiny_language.llama(attention_dropout=0.5).train()
    torch.manual_seed(3)
    before = torch.get_rng_state()
    assert logit_transform(model) == LogitTransform()
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
        assert logit_transform(kind(tiny_language.llama().config)) is None
    assert logit_transform(tiny.bert()) is None


def test_a_half_precision_head_is_measured_too():
    assert logit_transform(tiny_language.llama().bfloat16()) == LogitTransform()


def test_what_is_trained_after_the_head_is_not_taken_for_a_constant():
    class Scaled(type(tiny_language.llama())):
        def __init__(self, config):
            super().__init__(config)
            self.factor = nn.Parameter(torch.tensor(2.0))

        def forward(self, *args, **kwargs):
            out = super().forward(*args, **kwargs)
            out.logits = out.logits * self.factor
            return out

    model = Scaled(tiny_language.llama().config)
    assert logit_transform(model) is None
    frozen = Scaled(tiny_language.llama().config)
    frozen.factor.requires_grad_(False)
    assert logit_transform(frozen) == LogitTransform(scale=2.0)
