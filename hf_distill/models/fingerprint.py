"""A hash of a model's weights: whether two models are the same one.

Knows: weights, buffers, the precision that they are computed in. Does not know: teachers, folders of answers.
"""

from __future__ import annotations

import torch
import xxhash
from torch import Tensor, nn


def weights_of(model: nn.Module, dtype: torch.dtype | None = None) -> str | None:
    """Hash the weights and buffers as they will be computed with.

    Args:
        model: any module.
        dtype: the precision that floating weights are going to be cast to; None leaves them.

    Returns:
        32 hexadecimal digits; None where the weights are not whole here (sharded, quantised, without memory), and
        the name and revision must do.

    Example:
        >>> from torch.nn import Linear
        >>> one = Linear(2, 2)
        >>> weights_of(one) == weights_of(one), weights_of(one) == weights_of(Linear(2, 2))
        (True, False)
    """
    partitioned = any(parameter.is_meta or hasattr(parameter, "ds_id") for parameter in model.parameters())
    if partitioned or getattr(model, "quantization_method", None):
        return None
    state = xxhash.xxh3_128()
    for name, value in sorted(model.state_dict().items()):
        if not isinstance(value, Tensor):
            continue
        if type(value) not in (Tensor, nn.Parameter):  # a shard, or a quantised one
            return None
        value = value.to(dtype) if dtype is not None and value.is_floating_point() else value
        state.update(f"{name}|{value.dtype}|{tuple(value.shape)}|".encode())
        state.update(value.cpu().contiguous().flatten().view(torch.uint8).numpy())
    return state.hexdigest()
