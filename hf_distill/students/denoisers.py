"""Students of denoisers of diffusers: fewer transformer blocks, or fewer layers in each stage of a UNet.

Knows: how diffusers names blocks and their number. Does not know: noise, training, tasks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from hf_distill.models.denoisers import UNETS, class_in, config_of, of_diffusers
from hf_distill.models.outputs import core_of
from hf_distill.students.lineage import record
from hf_distill.students.stages import asked, chosen_layers, nearest

STACKS = {"transformer_blocks": "num_layers", "single_transformer_blocks": "num_single_layers"}
"""A list of blocks -> its length in a configuration; Flux has two, one behind the other."""
NUMBERS = ("dual_attention_layers",)
"""What a configuration says of some blocks by their numbers."""
LAYER = re.compile(r"^(down_blocks|up_blocks)\.(\d+)\.(\w+)\.(\d+)\.")


def keep_blocks(teacher: nn.Module, layers: Sequence[Any] | int | None, preset: str = "uniform") -> nn.Module:
    """Copy a denoiser with only some of its blocks; ``keep_layers`` calls it for models of diffusers.

    Args:
        teacher: a transformer of diffusers (DiT, PixArt, SD3, Flux, ...) or a UNet, see ``cut_unet``.
        layers: which to keep, from 0, in order, or how many; None: all. Of two lists of blocks, as Flux has: how many
            in all, or for each which or how many, ``[[0, 3], 5]``. Of a UNet how many in each stage.
        preset: which ones a count means; see ``keep_layers``.

    Returns:
        A model of the same class, in training mode if the teacher was.

    Raises:
        ValueError: blocks that are not there, or that the class builds differently in their new place.
    """
    if class_in(teacher, UNETS):
        if not (layers is None or type(layers) is int):
            raise ValueError(
                f"layers {layers} were asked of {type(teacher).__name__}, whose stages are cut alike: say how many "
                "layers each stage keeps, or use cut_unet."
            )
        return cut_unet(teacher, layers)
    name, config = type(core_of(teacher)).__name__, config_of(teacher)
    there = {path: config[key] for path, key in STACKS.items() if config.get(key) and hasattr(teacher, path)}
    if not there or not of_diffusers(teacher):
        raise ValueError(
            f"layers of {name} were asked for, which has no {' or '.join(STACKS)} of a number that its configuration "
            "says: make its student by hand."
        )
    depths = list(there.values())
    each = asked(layers, depths, name) if len(depths) > 1 else [layers]
    kept = [chosen_layers(one, depth, preset, "") for one, depth in zip(each, depths, strict=True)]
    student = _built(teacher, _shorter(config, there, kept))
    for number, (path, one) in enumerate(zip(there, each, strict=True)):
        if one is None or isinstance(one, int):  # which ones is ours to say: a last block may be of another kind
            kept[number] = nearest(kept[number], *(list(m.get_submodule(path)) for m in (teacher, student)))
    student = _built(teacher, _shorter(config, there, kept))
    places = dict(zip(there, kept, strict=True))

    def origin(key: str) -> str:
        path, _, rest = key.partition(".")
        if path not in places:
            return key
        new, _, rest = rest.partition(".")
        return f"{path}.{places[path][int(new)]}.{rest}"

    _carry(teacher, student, origin)
    record(student, teacher, "keep_layers", layers=kept if len(kept) > 1 else kept[0])
    return student


def cut_unet(teacher: nn.Module, pairs: int | None = 1, mid_block: bool = True) -> nn.Module:
    """Copy a UNet with fewer layers in each of its stages, and perhaps without its middle: BK-SDM's students.

    A stage on the way down keeps its first ``pairs`` of a residual and an attention layer, the stage on the way up
    its first ``pairs`` and its last: those whose skip connections stay.

    Args:
        teacher: a ``UNet2DModel`` or ``UNet2DConditionModel``.
        pairs: how many layers a stage on the way down keeps; the way up has one more. None: all.
        mid_block: whether the middle block stays.

    Returns:
        A model of the same class, in training mode if the teacher was.

    Raises:
        ValueError: another model, a number of layers that is not there, or stages of several depths.

    Reference:
        Kim et al.: BK-SDM: A Lightweight, Fast, and Cheap Version of Stable Diffusion, arXiv:2305.15798, section 3.1
        (base: ``pairs=1``; small: ``pairs=1, mid_block=False``).
    """
    name = type(core_of(teacher)).__name__
    if not class_in(teacher, UNETS):
        raise ValueError(f"cut_unet was given a {name}: give a UNet of diffusers, and any other model to keep_layers.")
    config = config_of(teacher)
    depth = config["layers_per_block"]
    if not isinstance(depth, int):
        raise ValueError(
            f"pairs={pairs} was asked of {name}, whose stages have {list(depth)} layers: cut_unet cuts stages of one "
            "depth, make its student by hand."
        )
    pairs = depth if pairs is None else pairs
    if isinstance(pairs, bool) or not isinstance(pairs, int) or not 1 <= pairs <= depth:
        raise ValueError(f"{pairs} layers a stage were asked of {name}, which has {depth}: ask for 1 to {depth}.")
    kept = {"down_blocks": [*range(pairs)], "up_blocks": [*range(pairs), depth]}
    middle = {} if mid_block else {"mid_block_type": None}
    student = _built(teacher, {**config, "layers_per_block": pairs, **middle})

    def origin(key: str) -> str:
        found = LAYER.match(key)
        if found is None or found[3] not in ("resnets", "attentions"):
            return key
        way, stage, part, new = found.groups()
        return f"{way}.{stage}.{part}.{kept[way][int(new)]}.{key[found.end() :]}"

    _carry(teacher, student, origin)
    record(student, teacher, "cut_unet", pairs=pairs, of=depth, mid_block=mid_block)
    return student


def _shorter(config: Mapping[str, Any], there: Mapping[str, int], kept: Sequence[Sequence[int]]) -> dict[str, Any]:
    """A configuration with so many blocks, and what it says of some by their new numbers."""
    changed = {STACKS[path]: len(some) for path, some in zip(there, kept, strict=True)}
    for name in NUMBERS:
        if name in config:
            changed[name] = tuple(new for new, old in enumerate(kept[0]) if old in config[name])
    return {**config, **changed}


def _built(teacher: nn.Module, config: Mapping[str, Any]) -> nn.Module:
    """A new model of the teacher's class; nobody else's random numbers move."""
    given = {name: value for name, value in config.items() if not name.startswith("_")}
    with torch.random.fork_rng(devices=[]):
        return type(teacher).from_config(given)


def _carry(teacher: nn.Module, student: nn.Module, origin: Any) -> None:
    """Give each weight of the student the teacher's."""
    theirs, ours = teacher.state_dict(), student.state_dict()
    for name, value in ours.items():
        if (there := theirs.get(origin(name))) is None or there.shape != value.shape:
            raise ValueError(
                f"{name} of the student was to be {origin(name)} of {type(teacher).__name__}, which is of another "
                "kind there: keep other blocks, the last one among them."
            )
    student.load_state_dict({name: theirs[origin(name)] for name in ours})
    some = next(teacher.parameters())
    nn.Module.to(student, some.device, some.dtype).train(teacher.training)  # diffusers warns of its own parts
    student.requires_grad_(True)  # a teacher that was frozen before must not freeze its student
