"""What enters a head, and the head: the same logits, and what a model does to them afterwards is measured."""

import pytest
import tiny_language
import torch
from torch import nn
from transformers import BertConfig, BertForMaskedLM

from hf_distill.models.head import logit_transform
from hf_distill.models.linear_logits import LinearLogits, LogitTransform, emptied, head_of, project
from hf_distill.signals import DenseLogits, Logits


def masked():
    sizes = {"vocab_size": 32, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    return BertForMaskedLM(BertConfig(**sizes, intermediate_size=16, initializer_range=0.5))


def test_both_forms_answer_alike():
    hidden, head, tail = torch.randn(2, 3, 4), nn.Linear(4, 9), LogitTransform(2.0, 3.0, torch.randn(9))
    rows = torch.tensor([[True, False, True], [False, False, True]])
    linear, dense = LinearLogits(hidden, head, tail), DenseLogits(tail(head(hidden)))
    assert isinstance(linear, Logits)
    assert linear.shape == dense.shape == linear.to("cpu").shape
    assert torch.allclose(linear.select(rows).chunk(1, 3), dense.select(rows).chunk(1, 3), atol=1e-6)
    assert torch.allclose(linear.last(2).chunk(0, 9), DenseLogits(dense.tensor[:, -2:]).chunk(0, 9), atol=1e-6)
    hidden[0, 1, 2] = torch.nan
    assert torch.equal(linear.finite(), torch.tensor([[True, False, True], [True, True, True]]))


@pytest.mark.parametrize(
    "make", [tiny_language.bart, masked, tiny_language.llama, tiny_language.t5], ids=lambda f: f.__name__
)
def test_no_logits_are_made_and_none_are_lost(make):
    torch.manual_seed(1)
    model = make().eval()
    fed = {"input_ids": torch.randint(3, 32, (2, 5))}
    if model.config.is_encoder_decoder:
        fed["decoder_input_ids"] = torch.randint(3, 32, (2, 4))
    whole, captured = model(**fed).logits, []
    with emptied(head_of(model), logit_transform(model), captured):
        assert model(**fed).logits.shape[-2] == 0
    assert len(captured) == 1
    assert torch.allclose(captured[0].chunk(0, 99), whole.flatten(0, 1), atol=1e-5)
    assert torch.equal(model(**fed).logits, whole)  # nothing stays on the model


def test_a_head_that_is_more_than_its_weight_is_called():
    class Doubled(nn.Linear):
        def forward(self, hidden):
            return 2 * super().forward(hidden)

    head = Doubled(2, 3)
    assert torch.equal(project(head, torch.ones(1, 2)), head(torch.ones(1, 2)))


def test_chunks_are_made_in_the_precision_of_the_call_whoever_reads_them():
    """A teacher in float32 beside a student in bfloat16, and the other way round."""
    torch.manual_seed(0)
    head, hidden = nn.Linear(16, 9), torch.randn(2, 3, 16)
    for calling, reading in ((True, False), (False, True)):
        captured = []
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=calling):
            expected = head(hidden).float()
            with emptied(head, LogitTransform(), captured):
                head(hidden)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=reading):
            assert torch.equal(
                captured[0].select(torch.ones(2, 3, dtype=torch.bool)).chunk(0, 6), expected.flatten(0, 1)
            )
