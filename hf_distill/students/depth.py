"""Where a model's layers are: found by building it one layer deeper, without memory, and looking at what grew.

Knows: configurations, module lists. Does not know: the names of architectures, weights, which layers are wanted.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from hf_distill.models.meta import built

DEPTH = re.compile(r"layer|depth|block")
DEPTHS = re.compile(r"^depths?$|_blocks$")
"""What a list is called that holds the depth of each stage."""
PER_LAYER = re.compile(r"layer|_types$|block_type|pattern|window|_heads|intermediate_size|idx|indices|indexes")
NOT_PER_LAYER = re.compile(r"token|section|label|architectures|^mtp|proj_layers")
LEADING = ("max_window_layers", "first_k_dense_replace", "num_dense_layers", "moe_layer_start_index")
"""Numbers that say how many of the first layers are of another kind."""


@dataclass(frozen=True)
class Stack:
    """A depth in a configuration, and the lists of layers that follow it.

    Args:
        owner: the part of the configuration that holds it; () is the configuration itself.
        key: its name there.
        depth: its value.
        paths: the lists of layers; several where a model keeps a layer's parts in parallel lists, none where one
            layer is passed ``depth`` times.
        stage: which entry of a list of depths it is; None: the configuration holds one number.
    """

    owner: tuple[str, ...]
    key: str
    depth: int
    paths: tuple[str, ...]
    stage: int | None = None

    @property
    def decodes(self) -> bool:
        """Whether it is a decoder that stands beside an encoder, or would."""
        return bool(self.paths) and ("decoder" in self.key or all("decoder" in path for path in self.paths))


def find_stacks(model: PreTrainedModel, inside: str | None = None) -> list[Stack]:
    """Find the stacks of layers of a model, each with the number in the configuration that it follows.

    Args:
        model: whole.
        inside: what the configuration calls the part that is meant, such as ``"vision_config"``; None: the text part,
            if the model has parts.

    Returns:
        One ``Stack`` for each number. Of a model in stages, whose
        configuration holds a list of depths, one for each stage. Empty: none was found.

    Example:
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> find_stacks(GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=3, n_head=1, vocab_size=8)))
        [Stack(owner=(), key='n_layer', depth=3, paths=('transformer.h',), stage=None)]
    """
    before = built(type(model), model.config)
    lists, shapes = _lists(before), _shapes(before)
    found, shared = [], []
    for owner, part in parts(model.config):
        for key, depth in part.to_dict().items():
            if not (isinstance(depth, int) and not isinstance(depth, bool) and depth > 0 and DEPTH.search(key)):
                continue
            deepest = key == part.attribute_map.get("num_hidden_layers", "num_hidden_layers")
            if depth not in lists.values() and not deepest:
                continue
            stack = Stack(owner, key, depth, ())
            try:
                after = built(type(model), reshaped(model.config, {stack: [*range(depth), depth - 1]}))
            except Exception:  # whatever a class says to a number that is no depth, or that it cannot make one larger
                continue
            grown = _lists(after)
            paths = tuple(p for p, n in lists.items() if n == depth and grown.get(p) == depth + 1)
            if any(next(before.get_submodule(path)[0].children(), None) is not None for path in paths):  # not tables
                found.append(Stack(owner, key, depth, paths))
            elif deepest and max(lists.values(), default=1) == 1 and _shapes(after) == shapes:
                shared.append(stack)
    found = found or _stages(model, before) or shared
    if inside is not None:
        return [one for one in found if inside in one.owner]
    if getattr(model.config, "is_encoder_decoder", False):
        return found
    text = model.config.get_text_config()
    return [one for one in found if one.owner and _part(model.config, one.owner) is text] or found


def parts(config: PretrainedConfig, owner: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], PretrainedConfig]]:
    """Go through a configuration and the configurations in it.

    Args:
        config: any.
        owner: where it was found.
    """
    yield owner, config
    for name in config.sub_configs:
        if isinstance(part := getattr(config, name, None), PretrainedConfig):
            yield from parts(part, (*owner, name))


def reshaped(config: PretrainedConfig, chosen: Mapping[Stack, Sequence[int]]) -> PretrainedConfig:
    """Copy a configuration so that it describes a model of other layers, whatever it says layer by layer.

    Args:
        config: is left as it is.
        chosen: for each stack which of its layers there are now, in their new order.

    Returns:
        The copy: the depth, lists with one entry a layer, lists of layer numbers, and numbers of leading layers.

    Example:
        >>> from transformers import Qwen2Config
        >>> old = Qwen2Config(num_hidden_layers=4, layer_types=["full_attention"] * 3 + ["sliding_attention"])
        >>> new = reshaped(old, {Stack((), "num_hidden_layers", 4, ("layers",)): [0, 3]})
        >>> new.num_hidden_layers, new.layer_types
        (2, ['full_attention', 'sliding_attention'])
    """
    config = copy.deepcopy(config)
    for stack, layers in chosen.items():
        part = _part(config, stack.owner)
        if stack.stage is not None:  # the other lists have an entry a stage, and each stage stays
            depths = list(getattr(part, stack.key))
            depths[stack.stage] = len(layers)
            setattr(part, stack.key, depths)
            continue
        shown = len(getattr(part, "stage_names", None) or ()) == stack.depth + 1 and bool(stack.paths)
        others = {"encoder", "decoder"} - {word for word in ("encoder", "decoder") if word in stack.key}
        for name in list(part.to_dict()):
            value = getattr(part, name, None)
            foreign = len(others) == 1 and any(word in name.replace("encoder_decoder", "") for word in others)
            if name in LEADING and isinstance(value, int):
                setattr(part, name, sum(layer < value for layer in layers))
            if (
                (shown and name == "out_indices")
                or foreign
                or not PER_LAYER.search(name)
                or NOT_PER_LAYER.search(name)
            ):
                continue
            if isinstance(value, (list, tuple)) and (cut := _cut(value, layers, stack.depth)) is not None:
                setattr(part, name, cut)
        setattr(part, stack.key, len(layers))
        if shown:
            _name_stages(part, layers)
        # Some configurations keep the encoder's depth under a second name that no module reads.
        second = "encoder" in stack.key and "num_hidden_layers" in vars(part)
        if second and part.num_hidden_layers == stack.depth:
            part.num_hidden_layers = len(layers)
    return config


def _name_stages(part: PretrainedConfig, layers: Sequence[int]) -> None:
    """Let a backbone of images, each of whose layers is a stage, show those that it showed, or their next below."""
    shown, next_one = [], len(layers) + 1
    for index in reversed(part.out_indices):
        next_one = min(sum(layer < index % len(part.stage_names) for layer in layers), next_one - 1)
        shown.insert(0, next_one)
    part.stage_names = part.stage_names[: len(layers) + 1]
    if shown and shown[0] < 0:
        raise ValueError(
            f"{len(layers)} layers were asked of a model that shows the outputs of {len(shown)} "
            f"(out_indices={part.out_indices}): keep {len(shown)} or more."
        )
    part.out_indices = shown


def _cut(value: Sequence[Any], layers: Sequence[int], depth: int) -> list[Any] | None:
    """Choose from a list what belongs to some layers; None: it does not speak of layers one by one."""
    numbers = all(isinstance(one, int) and not isinstance(one, bool) for one in value)
    if value and numbers and list(value) == sorted(set(value)) and 0 <= value[0] and value[-1] < depth:
        if len(value) < depth or list(value) == list(range(depth)):  # the numbers of some layers, not a flag for each
            return [new for new, old in enumerate(layers) if old in value]
    if len(value) == depth:
        return [value[layer] for layer in layers]
    runs = all(isinstance(one, (list, tuple)) and len(one) == 2 and isinstance(one[1], int) for one in value)
    if value and runs and all(isinstance(kinds, (list, tuple)) for kinds, _ in value):  # [[kinds, times], ...]
        spread = [kind for kinds, times in value for _ in range(times) for kind in kinds]
        if len(spread) == depth:
            return [[[spread[layer] for layer in layers], 1]]
    return None


def _part(config: PretrainedConfig, owner: tuple[str, ...]) -> PretrainedConfig:
    for name in owner:
        config = getattr(config, name)
    return config


def _stages(model: PreTrainedModel, before: nn.Module) -> list[Stack]:
    """The stages of a model whose configuration holds the depth of each; a layer more must be one module more."""
    lists, found = _lengths(before), []
    for owner, part in parts(model.config):
        for key, depths in part.to_dict().items():
            whole = isinstance(depths, (list, tuple)) and all(type(one) is int and one > 0 for one in depths)
            if not (whole and depths and DEPTHS.search(key)):
                continue
            stages = []
            for stage, depth in enumerate(depths):
                stack = Stack(owner, key, depth, (), stage)
                try:
                    grown = _lengths(built(type(model), reshaped(model.config, {stack: [*range(depth), depth - 1]})))
                except Exception:  # as above
                    break
                longer = [p for p, n in lists.items() if grown.get(p, n) != n]
                paths = tuple(_outer(longer))
                if not paths or any(lists[p] != depth or grown[p] != depth + 1 for p in paths):
                    break
                stages.append(Stack(owner, key, depth, paths, stage))
            if len(stages) == len(depths):
                found += stages
    return found


def _lists(model: nn.Module) -> dict[str, int]:
    """The lists that are in no other list, and their lengths: experts and heads are inside layers."""
    found = _lengths(model)
    return {path: found[path] for path in _outer(found)}


def _lengths(model: nn.Module) -> dict[str, int]:
    kinds = (nn.ModuleList, nn.Sequential)
    return {path: len(module) for path, module in model.named_modules() if isinstance(module, kinds)}


def _outer(paths: Collection[str]) -> list[str]:
    return [path for path in paths if not any(path.startswith(f"{other}.") for other in paths if other != path)]


def _shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in model.named_parameters()}
