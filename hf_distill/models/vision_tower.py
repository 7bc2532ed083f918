"""The tower that reads images beside a text: where its layers are, and what they make of a batch's images.

Knows: configurations with a part for images, module lists, forward hooks. Does not know: tasks, terms, whose image it
is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

STREAM = "vision"
"""The name of what such a tower shows; see ``Signals.streams``."""
PART = "vision_config"
"""What the configuration calls the part that speaks of it."""
DEPTHS = ("num_hidden_layers", "depth", "num_layers")


def layers_of(core: nn.Module) -> nn.ModuleList | None:
    """Find the layers of a model's tower of images; None: it has none, or they are not known.

    Args:
        core: a transformers model.

    Example:
        >>> layers_of(nn.Linear(1, 1))
    """
    vision = getattr(getattr(core, "config", None), PART, None)
    depth = next((n for name in DEPTHS if isinstance(n := getattr(vision, name, None), int)), None)
    towers = (one for one in core.modules() if vision is not None and type(getattr(one, "config", 0)) is type(vision))
    lists = (one for tower in towers for one in tower.modules() if isinstance(one, nn.ModuleList))
    return next((one for one in lists if len(one) == depth), None)


@contextmanager
def hear_images(core: nn.Module, heard: list[list[Tensor]]) -> Iterator[None]:
    """While open, hear what enters a model's tower of images and what each of its layers makes of it.

    Args:
        core: the model.
        heard: is given a list for each call of the tower: what entered the first layer, then each layer's output.

    Raises:
        ValueError: no tower with layers of a known number was found.
    """
    if (layers := layers_of(core)) is None:
        raise ValueError(
            f'stream="{STREAM}" was asked of {type(core).__name__}, in which no tower of images was found whose '
            f"layers its {PART} counts: leave stream out."
        )

    def enter(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        heard.append([args[0] if args else kwargs["hidden_states"]])

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        heard[-1].append(output if isinstance(output, Tensor) else output[0])

    with ExitStack() as hooks:
        hooks.callback(layers[0].register_forward_pre_hook(enter, with_kwargs=True).remove)
        for layer in layers:
            hooks.callback(layer.register_forward_hook(leave).remove)
        yield


def states_of(core: nn.Module, heard: list[list[Tensor]]) -> tuple[Tensor, ...]:
    """Give what was heard of a batch the form of hidden states, [images, positions, d].

    A tower that reads the patches of all images one behind the other shows each as an image of one position. Where no
    row has an image, there is none.

    Args:
        core: the model.
        heard: as ``hear_images`` left it.
    """
    if not heard:
        layers = layers_of(core)
        norm = next(one for name, one in layers[0].named_parameters() if "norm" in name.lower() and one.ndim == 1)
        return (norm.view(1, 1, -1)[:0],) * (len(layers) + 1)  # as wide, and with a graph: the loss has one too
    return tuple(
        torch.cat([state.unsqueeze(1) if state.ndim == 2 else state for state in states])
        for states in zip(*heard, strict=True)
    )
