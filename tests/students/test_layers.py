"""Students from their teacher's layers."""

import copy

import pytest
import tiny
import torch
from transformers import (
    AutoModelForSequenceClassification,
    BartConfig,
    BartModel,
    DistilBertConfig,
    GPT2Config,
    LlamaConfig,
)

from hf_distill.students import keep_layers


def test_the_kept_layers_are_copies_in_order(tmp_path):
    teacher = tiny.bert(layers=4).requires_grad_(False)
    before = copy.deepcopy(teacher.state_dict())
    student = keep_layers(teacher, [0, 2, 3])
    for new, old in enumerate([0, 2, 3]):
        ours, theirs = student.bert.encoder.layer[new].state_dict(), teacher.bert.encoder.layer[old].state_dict()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert all(p.requires_grad for p in student.parameters())
    with torch.no_grad():
        for p in student.parameters():
            p.add_(1.0)
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())
    student.save_pretrained(tmp_path)
    loaded, info = AutoModelForSequenceClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert loaded.config.num_hidden_layers == 3


@pytest.mark.parametrize(("count", "expected"), [(1, [0]), (2, [0, 11]), (4, [0, 4, 7, 11]), (12, list(range(12)))])
def test_a_number_of_layers_is_spread_evenly(count, expected):
    teacher = tiny.bert(layers=12)
    student = keep_layers(teacher, count)

    def same(one, other):
        return torch.equal(one.output.dense.weight, other.output.dense.weight)

    layers = teacher.bert.encoder.layer
    kept = [next(i for i in range(12) if same(layers[i], new)) for new in student.bert.encoder.layer]
    assert kept == expected


def test_all_layers_are_the_teacher_itself():
    teacher = tiny.bert(layers=3).eval()
    inputs = {"input_ids": torch.tensor([[1, 2, 3]])}
    assert torch.equal(keep_layers(teacher, 3).eval()(**inputs).logits, teacher(**inputs).logits)


SMALL = dict(vocab_size=32, pad_token_id=0)
LLAMA = dict(hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=16)
CONFIGS = [
    DistilBertConfig(dim=16, n_layers=4, n_heads=2, hidden_dim=16, **SMALL),
    GPT2Config(n_embd=16, n_layer=4, n_head=2, **SMALL),
    LlamaConfig(**LLAMA, **SMALL),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.model_type)
def test_other_architectures(config):
    student = keep_layers(AutoModelForSequenceClassification.from_config(config), 2).eval()
    assert student.config.num_hidden_layers == 2
    cache = {} if config.model_type == "distilbert" else {"use_cache": True}  # decoders count their layers for it
    assert student(input_ids=torch.tensor([[1, 2, 3]]), **cache).logits.isfinite().all()
    assert student(input_ids=torch.tensor([[1, 2, 3]])).logits.shape == (1, 2)


@pytest.mark.parametrize("layers", [0, 5, [], [4], [1, 1], [2, 0], [-1, 0]])
def test_layers_that_are_not_there_are_refused(layers):
    with pytest.raises(ValueError, match="were asked of a model with 4"):
        keep_layers(tiny.bert(layers=4), layers)


def test_two_lists_of_layers_are_refused():
    sizes = dict(encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16)
    bart = BartModel(BartConfig(vocab_size=32, d_model=16, encoder_layers=2, decoder_layers=2, **sizes))
    with pytest.raises(ValueError, match="has 2 lists of 2 layers"):
        keep_layers(bart, 1)
