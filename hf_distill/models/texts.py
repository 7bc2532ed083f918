"""The names under which transformers passes a text to a model, and which of its positions are no padding.

Knows: the arguments of a forward. Does not know: tasks, batches of anything else, what a model makes of a text.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

IDS, MASK, VECTORS = "input_ids", "attention_mask", "inputs_embeds"
DECODER = "decoder_"
"""Arguments under this prefix are the decoder's, and have its positions."""


def text_positions(batch: Mapping[str, Any]) -> Tensor | None:
    """Say which positions of a batch of texts are not padding.

    Args:
        batch: the batch.

    Returns:
        bool [B, T]; None where it holds no text.

    Example:
        >>> import torch
        >>> text_positions({"input_ids": torch.tensor([[5, 6]])}), text_positions({"pixel_values": torch.ones(1, 3)})
        (tensor([[True, True]]), None)
    """
    mask, ids, vectors = (batch.get(name) for name in (MASK, IDS, VECTORS))
    if mask is not None and mask.ndim == 2:
        return mask.bool()
    if ids is not None and ids.ndim == 2:
        return ids.new_ones(ids.shape).bool()
    return None if vectors is None or vectors.ndim != 3 else vectors.new_ones(vectors.shape[:2]).bool()


def cache_word(forward: Callable) -> str:
    """Say under which name a forward takes the keys and values of earlier tokens.

    Args:
        forward: of a model, or of an attention.

    Returns:
        ``cache``; before transformers 5.24 ``past_key_values``.

    Example:
        >>> def forward(input_ids, past_key_values=None): ...
        >>> cache_word(forward)
        'past_key_values'
    """
    return "cache" if "cache" in inspect.signature(forward).parameters else "past_key_values"
