"""How many frames an audio model makes of a recording, and which of them are no padding.

Knows: what models of transformers say of their own convolutions, the columns of recordings. Does not know: tasks,
losses, what a frame says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hf_distill.models.outputs import core_of
from hf_distill.models.texts import MASK

RECORDINGS = ("input_values", "input_features")
"""Waves [B, samples], or features [B, T, F]."""
TOLD = ("_get_feat_extract_output_lengths", "_get_subsampling_output_length")
"""The methods of transformers' models, and of their encoders, that tell how many frames there are."""

Frames = Callable[[Tensor], Tensor]
"""Lengths of recordings, in samples or in rows of features -> frames."""


def recording_in(batch: Mapping[str, Any]) -> Tensor | None:
    """Return the recordings, waves [B, T] or features [B, T, F]; None: there are none.

    Args:
        batch: the batch.

    Example:
        >>> recording_in({"input_values": torch.zeros(2, 8)}).shape, recording_in({"input_ids": torch.zeros(2, 8)})
        (torch.Size([2, 8]), None)
    """
    return next((one for name in RECORDINGS if (one := batch.get(name)) is not None), None)


def frames_of(model: nn.Module) -> Frames:
    """Return what tells how many frames a model makes of recordings; as many as they are long, if it does not say.

    Args:
        model: any module.

    Example:
        >>> frames_of(nn.Linear(1, 1))(torch.tensor([7]))
        tensor([7])
    """
    core = core_of(model)
    parts = (core, getattr(core, "base_model", None), getattr(core, "encoder", None))
    told = next((one for part in parts for name in TOLD if (one := getattr(part, name, None)) is not None), None)
    if told is None:
        return lambda lengths: lengths
    if not isinstance(told(torch.tensor([2**16])), Tensor):  # one number of one recording, as Moonshine
        return lambda lengths: lengths.new_tensor([told(one) for one in lengths.tolist()], dtype=torch.int64)
    return lambda lengths: told(lengths).to(torch.int64)


def frame_mask(batch: Mapping[str, Any], frames: Frames) -> Tensor | None:
    """Say which frames are no padding.

    Args:
        batch: the batch. Without an attention mask recordings are as long as the longest: what stands behind a shorter
            one is a part of it, as models with a group norm take it.
        frames: see ``frames_of``.

    Returns:
        bool [B, frames]; None: it holds no recordings.

    Example:
        >>> batch = {"input_values": torch.zeros(2, 8), "attention_mask": torch.tensor([[1] * 8, [1] * 4 + [0] * 4])}
        >>> frame_mask(batch, lambda lengths: lengths // 4).tolist()
        [[True, True], [True, False]]
    """
    if (given := recording_in(batch)) is None:
        return None
    mask = batch.get(MASK)
    rows, width = (given if mask is None else mask).shape[:2]  # of features [B, F, T], as Whisper's, a mask alone says
    lengths = torch.full((rows,), width, device=given.device) if mask is None else mask.sum(dim=-1).to(torch.int64)
    several = int(frames(torch.tensor([width]))[0])
    return torch.arange(several, device=given.device) < frames(lengths).unsqueeze(1).to(given.device)


def in_own_dtype(model: nn.Module, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Give recordings to a model in the numbers that it computes in: its convolutions take no others.

    Args:
        model: any module.
        inputs: what it is given.

    Example:
        >>> given = {"input_values": torch.zeros(1, 8), "attention_mask": torch.ones(1, 8)}
        >>> {name: one.dtype for name, one in in_own_dtype(nn.Linear(1, 1).bfloat16(), given).items()}
        {'input_values': torch.bfloat16, 'attention_mask': torch.float32}
    """
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), None)
    if dtype is None or dtype.itemsize < 2:  # 8 bits are how weights are kept, and nothing that is computed in
        return dict(inputs)
    return {name: one.to(dtype) if name in RECORDINGS else one for name, one in inputs.items()}
