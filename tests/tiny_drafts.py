"""Tiny teachers of draft heads, and the heads."""

import torch
from tiny_language import SIZE, llama
from transformers import (
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from hf_distill import DraftHead

CLASSES = {
    "mistral": (MistralConfig, MistralForCausalLM),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
}


def teacher(kind="llama", layers=3, seed=7, **config):
    sizes = {"width": 16, "layers": layers, "seed": seed, "num_key_value_heads": 1, **config}
    if kind == "llama":
        return llama(**sizes).eval()
    torch.manual_seed(seed)
    shape, model = CLASSES[kind]
    names = {
        "vocab_size": SIZE, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": layers,
        "num_attention_heads": 2, "num_key_value_heads": 1, "initializer_range": 0.3, "pad_token_id": 0,
        "max_position_embeddings": 64, "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip
    return model(shape(**{**names, **config})).eval()


def draft(of=None, unrolled=3, seed=5, **parts):
    of = of or teacher()
    torch.manual_seed(seed)
    return DraftHead.from_teacher(of, unrolled=unrolled, **parts)


def states(of, head, ids, mask=None):
    """What a head reads of its teacher."""
    with torch.no_grad():
        shown = of(ids, attention_mask=mask, output_hidden_states=True).hidden_states
    return [shown[layer] for layer in head.config.reads_layers]
