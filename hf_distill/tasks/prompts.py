"""Prompts that are trained (PEFT): vectors that a model reads before its text, and that are no token of it.

Knows: PEFT's configurations, what stands before the text in what a model shows. Does not know: tasks, terms.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from hf_distill.signals import Signals


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
        signals: what the model shows; its heads are cut already, and so is the mask.
        size: how many vectors the prompt has.

    Returns:
        The signals of the text alone.

    Example:
        >>> import torch
        >>> shown = Signals({}, (torch.ones(1, 5, 4),), mask=torch.ones(1, 3, dtype=torch.bool))
        >>> without_prompt(shown, 2).hidden[0].shape
        torch.Size([1, 3, 4])
    """
    if not size or signals.mask is None:
        return signals
    text = signals.mask.shape[1]

    def cut(state: Tensor, *axes: int) -> Tensor:
        for axis in axes:  # a tuned prefix is read by attention alone: states have as many positions as the text
            if state.ndim > axis and state.shape[axis] == text + size:
                state = state.narrow(axis, size, text)
        return state

    return replace(
        signals,
        hidden=tuple(cut(state, 1) for state in signals.hidden),
        attention=tuple(cut(maps, 2, 3) for maps in signals.attention),
        qkv=tuple(tuple(cut(one, 1) for one in layer) for layer in signals.qkv),
        taps={path: cut(tap, 1) for path, tap in signals.taps.items()},
    )
