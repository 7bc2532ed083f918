"""What servers find in the configuration of a draft head, and which of a teacher's states they hand to it.

The layout is that of EAGLE-3. It was read off vLLM's ``models/llama_eagle3.py`` at 00bd1493b3e8 and SGLang's
``models/llama_eagle3.py`` at 03d5a7771f60: both run one Llama layer, whatever the teacher is. No server was run.

Knows: a teacher's configuration. Does not know: weights, batches, how a draft is trained or used.
"""

from __future__ import annotations

import copy
from typing import Any

from transformers import LlamaConfig

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
"""The teachers' ``model_type``: their states are those that servers hand to a draft head."""
ARCHITECTURE = "LlamaForCausalLMEagle3"
COPIED = (
    "vocab_size", "hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "hidden_act",
    "max_position_embeddings", "rms_norm_eps", "initializer_range", "pad_token_id", "bos_token_id", "eos_token_id",
)  # fmt: skip


def usual_layers(depth: int) -> tuple[int, int, int]:
    """Say which of a teacher's layers a draft head reads, where nobody says so.

    Args:
        depth: how many there are.

    Example:
        >>> usual_layers(36), usual_layers(4), usual_layers(1)
        ((2, 18, 33), (1, 2, 3), (0, 0, 0))
    """
    if depth >= 7:
        return 2, depth // 2, depth - 3  # what servers take by themselves
    return depth // 3, 2 * depth // 3, depth - 1


def shaped(config: Any, layers: list[int], unrolled: int) -> LlamaConfig:
    """Shape one Llama layer as wide as the teacher's.

    Args:
        config: the teacher's.
        layers: the three of its layers whose states are read.
        unrolled: how many tokens of a draft are learned.
    """
    rope = copy.deepcopy(config.rope_parameters)
    sizes = {name: getattr(config, name) for name in COPIED}
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    further: dict[str, Any] = {}
    if tuple(layers) != (2, config.num_hidden_layers // 2, config.num_hidden_layers - 3):
        # vLLM names the layer that a state enters, SGLang the one that it leaves.
        left = {"use_aux_hidden_state": True, "eagle_aux_hidden_state_layer_ids": [layer - 1 for layer in layers]}
        further = {"eagle_aux_hidden_state_layer_ids": layers, "eagle_config": left}
    return LlamaConfig(
        **sizes, head_dim=width, rope_parameters=rope, num_hidden_layers=1, tie_word_embeddings=False,
        draft_vocab_size=config.vocab_size, reads_layers=layers, unrolled=unrolled, **further,
    )  # fmt: skip
