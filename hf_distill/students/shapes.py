"""Which shapes a student of a teacher can have: so many layers, so wide, with so many heads; and how large each is.

Knows: what the teacher's class builds, without memory. Does not know: weights, budgets, which shape is best.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel

from hf_distill.models.meta import built
from hf_distill.students.anatomy import RATIO, Sizes
from hf_distill.students.depth import Stack, find_stacks
from hf_distill.students.stages import chosen_layers

STEPS = 16
"""So many widths at most, and half as many insides, are looked at of a teacher."""


@dataclass(frozen=True, eq=False)
class Shape:
    """What a student can be cut to.

    Args:
        layers: how many are kept; None: all, of a model whose layers are not counted by one number.
        sizes: what ``shrink_width`` is asked for; empty: the teacher's own width.
        shares: of the teacher's depth, width and inside that are left, each above 0 and at most 1.
        parameters: of the whole student.
        megabytes: that they take in the teacher's dtype, 10**6 bytes each.
    """

    layers: int | None
    sizes: Mapping[str, int]
    shares: tuple[float, ...]
    parameters: int
    megabytes: float

    @property
    def imbalance(self) -> float:
        """The largest share over the smallest: 1 where depth, width and inside are cut alike."""
        return max(self.shares) / min(self.shares)

    def __str__(self) -> str:
        sizes = [f"{name} {size}" for name, size in self.sizes.items()]
        return ", ".join([*([] if self.layers is None else [f"{self.layers} layers"]), *sizes])


def shapes_of(
    teacher: PreTrainedModel, *, wide: bool = True, layers: int | None = None, hidden_size: int | None = None
) -> list[Shape]:
    """Enumerate the shapes of a teacher's students.

    Depths are all from 1 to the teacher's. Widths go with whole heads where the class divides its width by them, at
    most 16 of them evenly spread; where heads have a width of their own, in sixteenths of the width, and the heads
    (of each group of queries) in proportion. Insides are eighths of the teacher's.

    Args:
        teacher: on any device; of its weights only the dtype is read.
        wide: whether the width may be cut; where the class does not give one, it is not.
        layers: only this depth.
        hidden_size: only this width.

    Returns:
        Shapes in no order that matters, the teacher's own among them.

    Raises:
        ValueError: nothing can be cut, or the one size that was asked for is not there.

    Example:
        >>> from transformers import BertConfig, BertModel
        >>> four = BertConfig(hidden_size=8, num_hidden_layers=4, num_attention_heads=2, intermediate_size=8)
        >>> found = shapes_of(BertModel(four))
        >>> len(found), str(min(found, key=lambda shape: shape.parameters))
        (64, '1 layers, hidden_size 4, num_heads 1, intermediate_size 1')
    """
    name, size = type(teacher).__name__, next(teacher.parameters()).element_size()
    try:
        own = Sizes.of(teacher) if wide else None
    except ValueError:  # an encoder beside a decoder, stages: their layers alone are cut
        own = None
    stacks = [stack for stack in find_stacks(teacher) if stack.stage is None and stack.paths]
    depths = {stack.depth for stack in stacks}
    depth = depths.pop() if len(depths) == 1 else None
    if own is None and depth is None:
        raise ValueError(
            f"students of {name} were to be enumerated, whose configuration gives neither one depth nor one width: "
            "cut it with keep_layers, or make one with fresh_student."
        )
    counts = [None] if depth is None else [*range(1, depth + 1)]
    widths = [(teacher.config, {}, (1.0, 1.0))] if own is None else list(_widths(teacher, own))
    there = {"layers": counts, "hidden_size": sorted({sizes.get("hidden_size") for _, sizes, _ in widths} - {None})}
    for what, asked in (("layers", layers), ("hidden_size", hidden_size)):
        if asked is not None and asked not in there[what]:
            raise ValueError(f"{what}={asked} was asked of a student of {name}: ask for one of {there[what]}.")
    found = []
    for config, sizes, shares in widths:
        if hidden_size is not None and sizes["hidden_size"] != hidden_size:
            continue
        whole, each = _counted(built(type(teacher), config), stacks if depth else [])
        for count in counts if layers is None else [layers]:
            kept = set() if count is None else set(chosen_layers(count, depth, "uniform", ""))
            parameters = whole + sum(each[layer] for layer in kept)
            part = 1.0 if count is None else count / depth
            cut = {} if own is not None and all(getattr(own, n) == s for n, s in sizes.items()) else sizes
            found.append(Shape(count, cut, (part, *shares), parameters, parameters * size / 1e6))
    return found


def _widths(teacher: PreTrainedModel, own: Sizes) -> Iterator[tuple[object, dict[str, int], tuple[float, float]]]:
    """The configurations of each width and inside, what ``shrink_width`` is asked for, and the shares of both."""
    each = own.num_heads // own.num_groups if own.num_groups != own.num_heads else own.num_heads
    if own.tied:
        heads = [*range(own.num_heads, 0, -max(1, -(-own.num_heads // STEPS)))]
        pairs = [(count * own.head_dim, count) for count in heads]
    else:
        unit = max(1, own.hidden_size // STEPS)
        pairs = []
        for width in range(own.hidden_size, 0, -unit):
            some = max(1, -(-each * width // own.hidden_size))  # of each group
            pairs.append((width, some * own.num_groups if own.num_groups != own.num_heads else some))
    for width, count in pairs:
        for inner in _insides(own, width):
            new = copy.copy(own)
            new.hidden_size, new.num_heads, new.intermediate_size = width, count, inner
            new.num_groups = count if own.num_groups == own.num_heads else own.num_groups
            asked = {"hidden_size": width, "num_heads": count, "intermediate_size": inner}
            shares = width / own.hidden_size, inner / own.intermediate_size
            yield new.set_in(teacher.config), asked, shares


def _insides(own: Sizes, width: int) -> list[int]:
    if own.inner == RATIO:  # a whole multiple of the width
        return [width * times for times in range(own.intermediate_size // own.hidden_size, 0, -1)]
    eighths = (round(own.intermediate_size * part / (STEPS // 2)) for part in range(1, STEPS // 2 + 1))
    return sorted({max(1, inner) for inner in eighths})


def _counted(model: nn.Module, stacks: Sequence[Stack]) -> tuple[int, dict[int, int]]:
    """Count the parameters outside of the layers, and those of each layer; what is shared counts where it is first."""
    paths, outside, inside = [path for stack in stacks for path in stack.paths], 0, {}
    for name, value in model.named_parameters():
        path = next((path for path in paths if name.startswith(f"{path}.")), None)
        if path is None:
            outside += value.numel()
        else:
            layer = int(name[len(path) + 1 :].partition(".")[0])
            inside[layer] = inside.get(layer, 0) + value.numel()
    return outside, inside
