"""Prompts that are trained (PEFT): vectors that a model reads before its text, and that are no token of it.

Knows: PEFT's configurations, what stands before the text in what a model shows. Does not know: tasks, terms.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from hf_distill.signals import Signals, Stream


def virtual_tokens(model: Any) -> int:
    """Count the vectors that a model puts before its text; 0 for a model that does not.

    Args:
        model: any; of a function, None.

    Example:
        >>> import torch
        >>> virtual_tokens(torch.nn.Linear(1, 1))
        0
    """
    config = getattr(model, "active_peft_config", None)
    return config.num_virtual_tokens if getattr(config, "is_prompt_learning", False) else 0


def without_prompt(signals: Signals, size: int) -> Signals:
    """Leave out what a model shows for a prompt of its own.

    Of attention maps what looks at the prompt is left out too: terms on maps compare what is left.

    Args:
        signals: what the model shows; its heads are cut already, and so are the masks.
        size: how many vectors the prompt has.

    Returns:
        The signals of the text alone.

    Example:
        >>> import torch
        >>> shown = Signals({}, (torch.ones(1, 5, 4),), mask=torch.ones(1, 3, dtype=torch.bool))
        >>> without_prompt(shown, 2).hidden[0].shape
        torch.Size([1, 3, 4])
    """
    if not size:
        return signals
    streams = {name: _cut(stream, size) for name, stream in signals.streams.items()}
    taps = {path: _behind(tap, size, signals.mask, 1) for path, tap in signals.taps.items()}
    return replace(signals, **vars(_cut(signals.stream(), size)), streams=streams, taps=taps)


def _cut(stream: Stream, size: int) -> Stream:
    mask = stream.mask
    return replace(
        stream,
        hidden=tuple(_behind(state, size, mask, 1) for state in stream.hidden),
        attention=tuple(_behind(maps, size, mask, 2, 3) for maps in stream.attention),
        qkv=tuple(tuple(_behind(one, size, mask, 1) for one in layer) for layer in stream.qkv),
    )


def _behind(state: Tensor, size: int, mask: Tensor | None, *axes: int) -> Tensor:
    """Keep what stands behind the prompt; where no mask says how long the text is, all of it."""
    for axis in axes if mask is not None else ():
        # A tuned prefix is read by attention alone: states have as many positions as the text.
        if state.ndim > axis and state.shape[axis] == mask.shape[1] + size:
            state = state.narrow(axis, size, mask.shape[1])
    return state
