"""How many layers each stage of a model keeps, and which: spread in proportion, and such as fit their new place.

Knows: two models that were built without weights, their stages' lists. Does not know: configurations, weights.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

from torch import nn


def counts_of(layers: int, depths: Sequence[int]) -> list[int]:
    """Spread a number of layers over stages in proportion to their depths, at least one each.

    Args:
        layers: how many in all, from ``len(depths)`` to ``sum(depths)``.
        depths: how many each stage has.

    Returns:
        How many each stage keeps.

    Example:
        >>> counts_of(6, [2, 2, 6, 2]), counts_of(4, [2, 2, 6, 2]), counts_of(8, [3, 4, 6, 3])
        ([1, 1, 3, 1], [1, 1, 1, 1], [2, 2, 3, 1])
    """
    counts, share = [1] * len(depths), layers / sum(depths)
    while sum(counts) < layers:
        lacks = [share * depth - count if count < depth else -1.0 for depth, count in zip(depths, counts, strict=True)]
        counts[lacks.index(max(lacks))] += 1
    return counts


def chosen_layers(layers: Sequence[int] | int | None, depth: int, preset: str, of: str) -> list[int]:
    """Say which layers of one stack stay.

    Args:
        layers: which, or how many; None: all.
        depth: how many there are.
        preset: which ones a count means: ``uniform``, ``top`` or ``lowest``.
        of: what a message says behind "a model".

    Raises:
        ValueError: layers that are not there.

    Example:
        >>> chosen_layers(2, 6, "uniform", ""), chosen_layers(2, 6, "top", ""), chosen_layers([1, 4], 6, "top", "")
        ([0, 5], [4, 5], [1, 4])
    """
    if layers is None:
        return [*range(depth)]
    if isinstance(layers, int):
        if not 1 <= layers <= depth:
            raise ValueError(f"{layers} layers were asked of a model{of} with {depth}: ask for 1 to {depth}.")
        spread = [round(i * (depth - 1) / max(1, layers - 1)) for i in range(layers)]
        return {"uniform": spread, "top": [*range(depth - layers, depth)], "lowest": [*range(layers)]}[preset]
    if any(not isinstance(layer, int) for layer in layers):
        raise ValueError(
            f"layers {list(layers)} were asked of a model{of} with one stack of {depth}: name some of 0 to "
            f"{depth - 1}, in order, or say how many; a list for each stage is for models in stages."
        )
    if not layers or sorted(set(layers)) != list(layers) or not 0 <= layers[0] <= layers[-1] < depth:
        raise ValueError(
            f"layers {list(layers)} were asked of a model{of} with {depth}: name some of 0 to {depth - 1}, in order."
        )
    return list(layers)


def asked(layers: Sequence[Any] | int | None, depths: Sequence[int], name: str) -> list[int | list[int]]:
    """Read what was asked of a model in stages.

    Args:
        layers: how many in all; or for each stage how many, or which; None: all.
        depths: how many each stage has.
        name: the model's, for a message.

    Returns:
        For each stage how many, or which.

    Raises:
        ValueError: a number that is not there, or a stage would have no layer.

    Example:
        >>> asked([1, [0, 3]], [2, 4], "Net"), asked(None, [2, 4], "Net")
        ([1, [0, 3]], [2, 4])
    """
    there = f"{name}, whose {len(depths)} stages have {list(depths)} layers"
    if layers is None:
        return list(depths)
    if isinstance(layers, int):
        if not len(depths) <= layers <= sum(depths):
            raise ValueError(
                f"{layers} layers were asked of {there}, and no stage may vanish: ask for {len(depths)} to "
                f"{sum(depths)}, or for a list of one number a stage."
            )
        return list(counts_of(layers, depths))
    each = [list(one) if isinstance(one, (list, tuple, range)) else one for one in layers]
    fits = len(each) == len(depths) and all(_fits(one, depth) for one, depth in zip(each, depths, strict=True))
    if not fits:
        raise ValueError(
            f"layers {each} were asked of {there}: give for each stage how many stay, from 1 to its depth, or the "
            f"numbers of those that stay, such as {counts_of(max(len(depths), sum(depths) // 2), depths)}."
        )
    return each


def _fits(one: Any, depth: int) -> bool:
    if isinstance(one, list):
        return bool(one) and sorted(set(one)) == one and 0 <= one[0] <= one[-1] < depth
    return isinstance(one, int) and 1 <= one <= depth


def nearest(wanted: Sequence[int], old: Sequence[nn.Module], new: Sequence[nn.Module]) -> list[int]:
    """Choose layers as near as can be to those wanted, each of the kind that its class builds in the new place.

    A stage's first layer may change width and resolution, its last be of another kind, every second one shift its
    windows: such a layer stays where it is, or goes to a place that is like its own.

    Args:
        wanted: the numbers of layers, in order.
        old: the layers of the teacher's stage, without weights.
        new: those that the class builds for the student, one for each that is wanted.

    Returns:
        Numbers in order; those wanted if no choice fits in kind.

    Example:
        >>> first, other = nn.Linear(1, 2), nn.Linear(2, 2)
        >>> nearest([1, 3], [first, other, other, other], [first, other])
        [0, 3]
    """
    kinds, places = [_kind(layer) for layer in old], [_kind(layer) for layer in new]
    best: dict[int, tuple[int, list[int]]] = {-1: (0, [])}  # the last layer chosen -> the least distance, the layers
    for place, number in zip(places, wanted, strict=True):
        step: dict[int, tuple[int, list[int]]] = {}
        for layer, kind in enumerate(kinds):
            earlier = [some for last, some in best.items() if last < layer]
            if kind == place and earlier:
                far, some = min(earlier)
                step[layer] = far + abs(layer - number), [*some, layer]
        best = step
    return min(best.values())[1] if best else list(wanted)


def _kind(layer: nn.Module) -> Hashable:
    """What a layer is made of, without what its class derives from its position alone: its number, its drop path."""
    return tuple(
        (
            path,
            type(module).__name__,
            tuple((name, tuple(value.shape)) for name, value in module.named_parameters(recurse=False)),
            tuple((name, repr(value)) for name, value in sorted(vars(module).items()) if _tells(name, value)),
        )
        for path, module in layer.named_modules()
        if not drops_paths(module)
    )


def drops_paths(module: nn.Module) -> bool:
    """Say whether a module is a drop path, or what stands there where the rate is 0.

    Args:
        module: any.

    Example:
        >>> drops_paths(nn.Identity()), drops_paths(nn.ReLU())
        (True, False)
    """
    return isinstance(module, nn.Identity) or "DropPath" in type(module).__name__


def _tells(name: str, value: Any) -> bool:
    if name.startswith("_") or name in ("training", "layer_idx", "index", "idx", "layer_id", "layer_index"):
        return False
    whole = value if isinstance(value, (tuple, list)) else (value,)
    return all(isinstance(one, (bool, int, str)) for one in whole)
