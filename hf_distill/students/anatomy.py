"""Which dimension of which tensor is the model's width, an attention's heads or a feed-forward's inside.

Knows: how a class builds its modules for other sizes, the names of attention's projections. Does not know: importance,
which of them stay.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from hf_distill.models.hooks import attentions
from hf_distill.models.meta import built, reads_images_alone
from hf_distill.students.importance import LINEAR, calls

INNER = ("intermediate_size", "ffn_dim", "n_inner", "hidden_dim", "ffn_hidden_size", "d_ff", "encoder_ffn_dim")
"""What configurations call the width of a feed-forward's inside."""
RATIO = "mlp_ratio"
"""What they call it as a multiple of the width."""


@dataclass
class Sizes:
    """A model's widths.

    Args:
        hidden_size: of the residual stream.
        num_heads: attention heads.
        num_groups: heads of keys and values.
        head_dim: the width of one head.
        intermediate_size: of a feed-forward's inside.
        tied: whether the class makes heads of ``hidden_size / num_heads``, so that heads go with the width.
        inner: what the configuration calls the last one.
        vision: whether they stand in the part of the configuration that is of images.
    """

    hidden_size: int
    num_heads: int
    num_groups: int
    head_dim: int
    intermediate_size: int
    tied: bool
    inner: str
    vision: bool = False

    @classmethod
    def of(cls, model: PreTrainedModel) -> Sizes:
        """Read them from the configuration.

        Args:
            model: with one width, one number of heads and one inside.

        Raises:
            ValueError: it has more, or none.
        """
        name, vision = type(model).__name__, reads_images_alone(model) and hasattr(model.config, "vision_config")
        config = model.config.vision_config if vision else model.config
        sizes = {key: getattr(config, key, None) for key in ("hidden_size", "num_attention_heads")}
        if hasattr(config, "n_inner") and config.n_inner is None and isinstance(sizes["hidden_size"], int):
            inner, intermediate = "n_inner", 4 * sizes["hidden_size"]  # what the class takes None for
        else:
            inner = next((key for key in INNER if isinstance(getattr(config, key, None), int)), None)
            intermediate = getattr(config, inner, None) if inner else None
            ratio, width = getattr(config, RATIO, None), sizes["hidden_size"]
            if inner is None and isinstance(ratio, int) and isinstance(width, int):
                inner, intermediate = RATIO, ratio * width
        whole = all(isinstance(one, int) for one in (*sizes.values(), intermediate))
        if getattr(config, "is_encoder_decoder", False) or not whole:
            raise ValueError(
                f"the width of {name} was to be cut, whose configuration does not give one hidden_size, one number of "
                "heads and one intermediate_size: keep some of its layers instead."
            )
        width, heads = sizes.values()
        explicit = getattr(config, "head_dim", None)
        groups = getattr(config, "num_key_value_heads", None) or heads
        return cls(width, heads, groups, explicit or width // heads, intermediate, not explicit, inner, vision)

    def set_in(self, config: PretrainedConfig) -> PretrainedConfig:
        """Copy a configuration with these sizes.

        Args:
            config: of a model of the same class; is left as it is.
        """
        whole = config = copy.deepcopy(config)
        config = config.vision_config if self.vision else config
        config.hidden_size, config.num_attention_heads = self.hidden_size, self.num_heads
        ratio = self.intermediate_size // self.hidden_size
        setattr(config, self.inner, ratio if self.inner == RATIO else self.intermediate_size)
        if getattr(config, "num_key_value_heads", None):
            config.num_key_value_heads = self.num_groups
        return whole


@dataclass
class Anatomy:
    """Where the widths are.

    Args:
        width: tensor -> its dimensions that are the residual stream, or several of them one after the other.
        attentions: for each attention its query, key, value (or one that gives all three) and last projection.
        insides: path of a layer -> (tensor, dimension, how many times it holds the inside) of its feed-forward.
        biases: (tensor, dimension, layer) of what an attention adds for each of its heads.
        norms: path -> a norm of the residual stream.
        downs: path of a layer -> the last projection of its feed-forward.
    """

    width: dict[str, list[int]] = field(default_factory=dict)
    attentions: list[dict[str, nn.Module]] = field(default_factory=list)
    insides: dict[str, list[tuple[str, int, int]]] = field(default_factory=dict)
    biases: list[tuple[str, int, str]] = field(default_factory=list)
    norms: dict[str, nn.Module] = field(default_factory=dict)
    downs: dict[str, nn.Module] = field(default_factory=dict)


def dissect(model: PreTrainedModel, sizes: Sizes, batch: Mapping[str, Any]) -> Anatomy:
    """Find where the widths are.

    The residual stream and the insides are what grows when the class is built wider; of attention the projections are
    known by name, and the last one is the linear module that is called next.

    Args:
        model: whole.
        sizes: its own.
        batch: what its forward takes; it is run once.

    Raises:
        ValueError: a projection is not found, or a tensor grows otherwise than a width does.
    """
    name, found, paths = type(model).__name__, Anatomy(), {module: path for path, module in model.named_modules()}
    before = tensors(built(type(model), sizes.set_in(model.config)))
    held = tensors(model)
    if {n: v.shape for n, v in before.items()} != {n: v.shape for n, v in held.items()}:
        raise ValueError(f"the width of {name} was to be cut, whose tensors are not those of its configuration.")
    parts = attentions(model)
    if any("interleaved" in one for one in parts):
        raise ValueError(
            f"the width of {name} was to be cut, whose one projection gives a query, a key and a value for each head "
            "in turn: keep some of its layers instead."
        )
    with calls(model) as order, torch.no_grad():
        training = model.training
        model.eval()(**{n: v.to(model.device) for n, v in batch.items() if n != "labels"})
        model.train(training)
    for one in parts:
        if any(type(module) not in LINEAR for module in one.values()) or not set(one.values()) <= set(order):
            raise ValueError(f"the width of {name} was to be cut, whose attention has projections of another kind.")
        last = max(order.index(module) for module in one.values())
        found.attentions.append({**one, "out": order[last + 1]})

    follows = sizes.inner == RATIO
    more = sizes.hidden_size if follows else 1
    grown = _built(model, sizes, intermediate_size=sizes.intermediate_size + more)
    for path, value in before.items():
        for dim, (a, b) in enumerate(zip(value.shape, grown[path].shape, strict=True)):
            if a == b:
                continue
            layer, module = layer_of(model, path), model.get_submodule(path.rpartition(".")[0])
            if a * more != (b - a) * sizes.intermediate_size or type(module) not in LINEAR:
                raise ValueError(f"the width of {name} was to be cut, whose {path} follows its inside in another way.")
            found.insides.setdefault(layer, []).append((path, dim, (b - a) // more))
            if path.endswith(".weight") and dim == side(model, path, out=False):
                found.downs[layer] = module

    heads = {paths[module] + ".weight" for one in found.attentions for module in one.values()}
    heads |= {paths[m] + ".bias" for one in found.attentions for kind, m in one.items() if kind != "out"}
    layers = {layer_of(model, paths[one["out"]]) for one in found.attentions}
    wider = {"num_heads": 2 * sizes.num_heads, "num_groups": 2 * sizes.num_groups} if sizes.tied else {}
    wider |= {"intermediate_size": 2 * sizes.intermediate_size} if follows else {}
    grown = _built(model, sizes, hidden_size=2 * sizes.hidden_size, **wider)
    inside = {(path, dim) for places in found.insides.values() for path, dim, _ in places}
    for path, value in before.items():
        both = enumerate(zip(value.shape, grown[path].shape, strict=True))
        dims = [d for d, (a, b) in both if a != b and (path, d) not in inside]
        if path in heads:  # which of its two dimensions the heads are is known
            dims = [] if path.endswith(".bias") else [side(model, path, out=_is_out(found, paths, path))]
        if len(dims) == 1 and _of_heads(value.shape[dims[0]], grown[path].shape[dims[0]], sizes):
            if (layer := layer_of(model, path)) and layer in layers:
                found.biases.append((path, dims[0], layer))
                continue
        if any(not _follows(model, path, d, value.shape[d], grown[path].shape[d], sizes.hidden_size) for d in dims):
            raise ValueError(
                f"the width of {name} was to be cut, whose {path} follows it in another "
                "way: keep some of its layers instead."
            )
        if dims:
            found.width[path] = dims
    for path, module in model.named_modules():
        own = dict(module.named_parameters(recurse=False))
        if "Norm" in type(module).__name__ and own and all(found.width.get(f"{path}.{n}") == [0] for n in own):
            found.norms[path] = module

    return found


def tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """All parameters and buffers of a model by name, those that are tied under each of their names.

    Args:
        model: any module.
    """
    buffers = dict(model.named_buffers(remove_duplicate=False))
    return {**dict(model.named_parameters(remove_duplicate=False)), **buffers}


def _built(model: PreTrainedModel, sizes: Sizes, **changes: int) -> dict[str, torch.Tensor]:
    other = copy.copy(sizes)
    vars(other).update(changes)
    return tensors(built(type(model), other.set_in(model.config)))


def side(model: nn.Module, path: str, out: bool) -> int:
    """Return which dimension of a weight is what its module makes, or what it is given.

    Args:
        model: that holds it.
        path: of a weight.
        out: what it makes.

    Example:
        >>> side(nn.Sequential(nn.Linear(1, 1)), "0.weight", out=True)
        0
    """
    linear = isinstance(model.get_submodule(path.rpartition(".")[0]), nn.Linear)
    return 0 if linear == out else 1  # Conv1D keeps its weight the other way round


def _of_heads(size: int, grown: int, sizes: Sizes) -> bool:
    same = sizes.num_groups == sizes.num_heads != sizes.hidden_size
    return sizes.tied and same and (size, grown) == (sizes.num_heads, 2 * sizes.num_heads)


def _follows(model: nn.Module, path: str, dim: int, size: int, grown: int, width: int) -> bool:
    """Whether a dimension is the width, or what a linear module is given of several of them side by side."""
    linear = type(model.get_submodule(path.rpartition(".")[0])) in LINEAR
    given = linear and path.endswith(".weight") and dim == side(model, path, out=False)
    return grown == 2 * size and (size == width or (given and size % width == 0))


def _is_out(found: Anatomy, paths: Mapping[nn.Module, str], path: str) -> bool:
    return any(paths[one["out"]] + ".weight" == path for one in found.attentions)


def layer_of(model: nn.Module, path: str) -> str:
    """Return the innermost member of a list that a tensor or module is in; empty: it is in none.

    Args:
        model: that holds it.
        path: its own.

    Example:
        >>> layer_of(nn.ModuleDict({"stack": nn.ModuleList([nn.Linear(1, 1)])}), "stack.0.weight")
        'stack.0'
    """
    names = path.split(".")
    for end in range(len(names) - 1, 0, -1):
        if isinstance(model.get_submodule(".".join(names[: end - 1])), nn.ModuleList):
            return ".".join(names[:end])
    return ""
