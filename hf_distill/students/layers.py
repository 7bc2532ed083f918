"""A student from some of its teacher's layers.

Knows: which layers to take, and how a model is made of them. Does not know: how a model's layers are found, training,
tasks, teachers' whereabouts.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Literal

from torch import nn
from transformers import PreTrainedModel

from hf_distill.models.denoisers import of_diffusers
from hf_distill.models.meta import built
from hf_distill.models.sharding import unsharded
from hf_distill.students.denoisers import keep_blocks
from hf_distill.students.depth import Stack, find_stacks, reshaped
from hf_distill.students.lineage import record
from hf_distill.students.positions import Moves, carry, check, entries, settle
from hf_distill.students.stages import asked, chosen_layers, nearest

PRESETS = ("uniform", "top", "lowest")
VISION = "vision_config"
"""What the part of a configuration is called that speaks of the tower of images."""


def keep_layers(
    teacher: PreTrainedModel,
    layers: Sequence[int | Sequence[int]] | int | None,
    preset: Literal["uniform", "top", "lowest"] = "uniform",
    decoder_layers: Sequence[int] | int | None = None,
    vision_layers: Sequence[int] | int | None = None,
) -> PreTrainedModel:
    """Copy a model with only some of its layers: the start that DistilBERT gave its student.

    The embeddings, the kept layers and the head are the teacher's; nothing is shared with it. Encoders, decoders and
    encoder-decoders of any architecture: their layers are found by building the class one layer deeper, without
    memory. What only the first layer has, such as T5's table of relative positions, goes to the new first layer. A
    number that a class derives from a layer's position is that of the new position, as it will be after loading.

    A model in stages, whose configuration holds a list of depths (ResNet, ConvNeXt, Swin, SegFormer and their like),
    is cut stage by stage, and no stage vanishes. Where a stage's first layer changes the width, or a layer is of
    another kind than its neighbours, a count takes the nearest layers that fit.

    A denoiser of diffusers keeps some of its transformer blocks, a UNet so many layers in each stage; see
    ``hf_distill.students.denoisers``.

    Args:
        teacher: any ``PreTrainedModel`` with lists of layers, or with one layer that is passed several times.
        layers: which to keep, from 0, in order; or how many; None: all. Of an encoder-decoder: of its encoder. Of a
            model in stages: how many in all, which are spread in proportion, at least one each; or a list that says
            for each stage how many (``[1, 1, 3, 1]``) or which (``[[0], [0], [0, 2, 5], [0]]``).
        preset: which ones a count means: ``"uniform"`` spreads them evenly from the first to the last, ``"top"`` takes
            the last ones, ``"lowest"`` the first ones.
        decoder_layers: the same for the decoder of an encoder-decoder. None: as in its encoder, if both are equally
            deep.
        vision_layers: the same for the tower that reads images beside a text; None: all of them. ``layers`` are those
            of the text.

    Returns:
        A model of the same class whose configuration has the new depth, in training mode if the teacher was.

    Raises:
        ValueError: no list of layers is found, a layer is not there, or the class would build a kept layer
            differently in its new place.

    Reference:
        Sanh et al.: DistilBERT, arXiv:1910.01108, section 3 (one layer of the teacher out of two); Sajjad et al.: On
        the Effect of Dropping Layers of Pre-trained Transformer Models, arXiv:2004.03844 (the presets); Shleifer,
        Rush: Pre-trained Summarization Distillation, arXiv:2010.13002 (a whole encoder with few decoder layers).

    Example:
        >>> from transformers import BertConfig, BertModel
        >>> four = BertConfig(hidden_size=8, num_hidden_layers=4, num_attention_heads=1, intermediate_size=8)
        >>> keep_layers(BertModel(four), 2, preset="top").config.distillation[0]["layers"]
        [2, 3]
    """
    if preset not in PRESETS:
        raise ValueError(f"preset={preset!r} was asked for: use {', '.join(PRESETS)}.")
    if of_diffusers(teacher):
        if decoder_layers is not None or vision_layers is not None:
            raise ValueError(
                f"decoder_layers or vision_layers were asked of {type(teacher).__name__}, a denoiser, which has "
                "neither: name its blocks with layers."
            )
        return keep_blocks(teacher, layers, preset)
    whole = unsharded(teacher)  # ZeRO-3 may have partitioned it while it was loaded
    chosen = _choices(whole, layers, preset, decoder_layers)
    of_images = {} if vision_layers is None else _of_images(whole, vision_layers, preset)
    chosen, texts = {**of_images, **chosen}, chosen
    before = built(type(whole), whole.config)
    after = _made(whole, chosen)
    moves = Moves({path: kept for stack, kept in chosen.items() for path in stack.paths})
    check(before, after, moves)
    student = whole if whole is not teacher else copy.deepcopy(teacher)
    for path, kept in moves.lists.items():
        stack = student.get_submodule(path)
        some = [stack[layer] for layer in kept]
        carry(after, path, first=stack[0], into=some[0])
        parent, _, name = path.rpartition(".")
        listed = nn.Sequential(*some) if isinstance(stack, nn.Sequential) else type(stack)(some)
        setattr(student.get_submodule(parent), name, listed)
    for path, some in entries(before, after, moves).items():
        parent, _, name = path.rpartition(".")
        holder = student.get_submodule(parent)
        table = getattr(holder, name).detach()[some].clone()
        setattr(holder, name, nn.Parameter(table) if name in holder._parameters else table)
    settle(student, before, after, moves)
    kept, depths = [list(some) for some in texts.values()], [stack.depth for stack in texts]
    shared = {} if moves.lists else {"shared": True}
    if next(iter(texts)).stage is not None:
        said = {"layers": kept, "depth": depths}
    else:
        said = {"layers": kept[0], "depth": depths[0]}
        if len(kept) > 1:
            said |= {"decoder_layers": kept[1], "decoder_depth": depths[1]}
    for stack, some in of_images.items():
        said |= {"vision_layers": list(some), "vision_depth": stack.depth}
    record(student, teacher, "keep_layers", **said, **shared)
    student.requires_grad_(True)  # a teacher that was frozen before must not freeze its student
    return student


def _choices(
    model: PreTrainedModel,
    layers: Sequence[int | Sequence[int]] | int | None,
    preset: str,
    decoder_layers: Sequence[int] | int | None,
) -> dict[Stack, list[int]]:
    """Decide which layers of each stack stay; the encoder comes first."""
    name, stacks = type(model).__name__, find_stacks(model)
    if not stacks:
        raise ValueError(
            f"layers of {name} were asked for, but no number in its configuration makes a list of layers longer: make "
            "its student by hand."
        )
    staged = all(stack.stage is not None for stack in stacks)
    if len(stacks) == 1 or (staged and len({(stack.owner, stack.key) for stack in stacks}) == 1):
        if decoder_layers is not None:
            raise ValueError(
                f"decoder_layers={decoder_layers} was asked of {name}, which has one stack of layers: name them with "
                "layers."
            )
        if staged:
            return _staged(model, stacks, layers, preset)
        return {stacks[0]: chosen_layers(layers, stacks[0].depth, preset, "")}
    stacks.sort(key=lambda stack: stack.decodes)
    if [stack.decodes for stack in stacks] != [False, True]:
        shown = [f"{'.'.join((*s.owner, s.key))}={s.depth} ({', '.join(s.paths)})" for s in stacks]
        raise ValueError(
            f"layers of {name} were asked for, whose configuration gives {len(stacks)} numbers of layers {shown}; one "
            "is expected, or an encoder's and a decoder's: make its student by hand."
        )
    encoder, decoder = stacks
    if decoder_layers is None and encoder.depth != decoder.depth:
        raise ValueError(
            f"layers={layers} was asked of {name}, whose encoder has {encoder.depth} layers and whose decoder has "
            f"{decoder.depth}: say with decoder_layers which of the decoder's stay."
        )
    theirs = layers if decoder_layers is None else decoder_layers
    return {
        encoder: chosen_layers(layers, encoder.depth, preset, "'s encoder"),
        decoder: chosen_layers(theirs, decoder.depth, preset, "'s decoder"),
    }


def _of_images(model: PreTrainedModel, layers: Sequence[int] | int, preset: str) -> dict[Stack, list[int]]:
    """Decide which layers of the tower that reads images stay."""
    stacks = find_stacks(model, VISION)
    if len(stacks) != 1 or stacks[0].stage is not None or model.config.get_text_config() is model.config:
        raise ValueError(
            f"vision_layers={layers} was asked of {type(model).__name__}, in which {len(stacks)} stacks of layers "
            "read images beside a text, and one is expected: leave vision_layers out, and name others with layers."
        )
    return {stacks[0]: chosen_layers(layers, stacks[0].depth, preset, "'s vision tower")}


def _staged(
    model: PreTrainedModel, stacks: Sequence[Stack], layers: Sequence[int | Sequence[int]] | int | None, preset: str
) -> dict[Stack, list[int]]:
    """Decide which layers of each stage stay."""
    each = asked(layers, [stack.depth for stack in stacks], type(model).__name__)
    chosen = {stack: chosen_layers(one, stack.depth, preset, "") for stack, one in zip(stacks, each, strict=True)}
    before, after = built(type(model), model.config), _made(model, chosen)
    for stack, one in zip(stacks, each, strict=True):
        if isinstance(one, int):  # which ones is ours to say
            old, new = (list(twin.get_submodule(stack.paths[0])) for twin in (before, after))
            chosen[stack] = nearest(chosen[stack], old, new)
    return chosen


def _made(model: PreTrainedModel, chosen: Mapping[Stack, Sequence[int]]) -> PreTrainedModel:
    """Build the student without weights."""
    config = reshaped(model.config, chosen)
    try:
        return built(type(model), config)
    except Exception as error:  # whatever a class says to a depth that it cannot have
        numbers = [len(kept) for kept in chosen.values()]
        raise ValueError(
            f"{numbers if len(numbers) > 1 else numbers[0]} layers were asked of {type(model).__name__}, which cannot "
            f"be built so ({type(error).__name__}: {' '.join(str(error).split())[:80]}): keep others, or more."
        ) from error
