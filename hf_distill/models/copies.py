"""Of which layers of its first teacher a model's layers are copies, as its configuration tells how it was made.

Knows: the steps that ``students`` writes down, and which of them leave layers where they are. Does not know: weights,
how a step is done, terms.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

SAME_LAYERS = frozenset({"cut_to", "fit_budget", "prune_2_4", "prune_magnitude", "shrink_width", "trim_vocabulary"})
"""Steps after which each layer is still its own, whatever became of its inside."""

BESIDE = ("decoder", "vision", "audio")
"""Parts whose layers a step names by themselves, ``decoder_layers``; all others are cut by ``layers``."""
WHOLE = ("vision", "audio")
"""Parts that keep all of their layers where a step does not name them."""


def copied_layers(
    steps: Iterable[Mapping[str, Any]], part: str | None, depth: int | None
) -> tuple[tuple[int, ...] | None, int | None]:
    """Compose the steps in which a model was made.

    Args:
        steps: ``config.distillation``, oldest first.
        part: a stream's name, ``"encoder"``, ``"vision"``, ...; None: what the model shows first, of an
            encoder-decoder the decoder.
        depth: how many layers the part has now.

    Returns:
        For each layer which one of the first teacher's it is a copy of, both from 0, and how many that teacher has.
        None for both: no steps, layers that began at random, or one layer that is passed several times. None for the
        second: earlier versions did not write it down. Of a model in stages each stage is one layer, as its hidden
        states are.

    Example:
        >>> first = {"step": "keep_layers", "layers": [0, 2, 5], "depth": 6}
        >>> copied_layers([first, {"step": "shrink_width"}, {"step": "keep_layers", "layers": [1, 2]}], None, 2)
        ((2, 5), 6)
        >>> copied_layers([{"step": "fresh_student"}], None, 2)
        (None, None)
    """
    known, layers, before = False, None, None
    for step in steps:
        if step.get("step") == "keep_layers":
            some, there = _kept(step, part)
            if some is None:
                known = part in WHOLE
            elif layers is None:
                known, layers, before = True, some, there
            else:
                known = max(some) < len(layers)
                layers = tuple(layers[layer] for layer in some) if known else None
        else:
            known = step.get("step") in SAME_LAYERS
        if not known:
            layers, before = None, None
    if not known or depth is None:
        return None, None
    if layers is None:  # they are all there
        return tuple(range(depth)), depth
    return (layers, before) if len(layers) == depth else (None, None)


def _kept(step: Mapping[str, Any], part: str | None) -> tuple[tuple[int, ...] | None, int | None]:
    """Which layers of a part a step kept, and of how many; None: it does not say."""
    part = "decoder" if part is None and "decoder_layers" in step else part
    before = f"{part}_" if part in BESIDE else ""
    some, there = step.get(f"{before}layers"), step.get(f"{before}depth")
    if step.get("shared") or not isinstance(some, (list, tuple)) or not some:
        return None, None
    if all(isinstance(one, (list, tuple)) for one in some):
        return tuple(range(len(some))), len(some)
    whole = all(type(one) is int and one >= 0 for one in some)
    return (tuple(some), there if type(there) is int else None) if whole else (None, None)
