"""Make a model show its attention maps.

Knows: attention implementations of transformers models. Does not know: terms, tasks, trainers.
"""

from __future__ import annotations

import logging
from typing import Any

from torch import nn

logger = logging.getLogger(__name__)


def show_attention(model: nn.Module, name: str) -> None:
    """Switch a model to eager attention, the only one that makes maps; it then runs slower and uses more memory.

    Args:
        model: a transformers model or a PEFT model around one.
        name: what a message calls it.

    Raises:
        ValueError: it has no attention maps, or cannot be switched.

    Example:
        >>> from transformers import BertConfig, BertModel
        >>> tiny = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
        >>> model = BertModel(tiny)
        >>> show_attention(model, "a BERT")
        >>> model.config._attn_implementation
        'eager'
    """
    core = model.get_base_model() if hasattr(model, "get_base_model") else model
    if not _has_maps(core):
        raise ValueError(
            f"attention maps were asked of {name}, a {type(core).__name__}, which gives none: use terms on hidden "
            "states, logits or relations instead."
        )
    before = getattr(core.config, "_attn_implementation", None)
    if before in (None, "eager"):
        return
    core.set_attn_implementation("eager")
    parts = [part for part in core.modules() if hasattr(getattr(part, "config", None), "_attn_implementation")]
    if left := sorted({part.config._attn_implementation for part in parts} - {"eager"}):
        raise ValueError(
            f"attention maps were asked of {name}, a {type(core).__name__} that stays with {left[0]} attention: load "
            'it with attn_implementation="eager".'
        )
    logger.warning(
        "%s was switched from %s to eager attention, because an objective compares attention maps; it is slower now "
        "(minilm compares what attends without this).", name, before,
    )  # fmt: skip


def _has_maps(core: Any) -> bool:
    """Whether a model says that it records attentions; older ones do not say, and pass them on if they have heads."""
    recorded = [kinds for part in core.modules() if (kinds := getattr(part, "_can_record_outputs", None))]
    if recorded:
        return any("attentions" in kind for kinds in recorded for kind in kinds)
    return bool(getattr(getattr(core, "config", None), "num_attention_heads", 0))
