"""Layers that see only neighbours, on a GPU: padding that sees nothing at all must not make a gradient NaN.

Knows: how a model attends, of which kind its layers are. Does not know: rows, trainers, who made the model.
"""

from __future__ import annotations

from typing import Any

import torch

LOCAL = "sliding_attention"


def attend_safely(device: torch.device, *models: Any) -> None:
    """Let models with local layers attend by plain matrix products, where a faster way would give NaN.

    A token of padding that has only padding around it sees nothing. On an H200 in bfloat16 the whole training's loss
    was NaN then, which is known of cuDNN's attention; on CPUs such a token's gradient is 0.

    Args:
        device: where they will be.
        *models: models, changed in place; paths are left alone.

    Example:
        >>> from transformers import ModernBertConfig, ModernBertModel
        >>> small = {"vocab_size": 9, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
        >>> small |= {"intermediate_size": 8, "pad_token_id": 0, "layer_types": ["sliding_attention"]}
        >>> model = ModernBertModel(ModernBertConfig(**small))
        >>> attend_safely(torch.device("cuda"), model)
        >>> model.config._attn_implementation
        'eager'
    """
    for model in models if device.type == "cuda" else ():
        config = getattr(model, "config", None)
        if LOCAL in (getattr(config, "layer_types", None) or ()) and config._attn_implementation == "sdpa":
            model.set_attn_implementation("eager")
