"""Weights that a module computes anew from others: masks of ``torch.nn.utils.prune``, and parametrizations.

Knows: how torch keeps both, which a class makes itself. Does not know: folders, trainers, why a weight is masked.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.prune import BasePruningMethod
from transformers import PreTrainedModel

from hf_distill.models.meta import built


def computed_weights(model: nn.Module) -> dict[str, tuple[str, ...]]:
    """Find the weights that a model's own class would not compute, and from what they are.

    Parametrizations that a class makes itself, such as a convolution's norm in wav2vec2, are its own names for its
    weights, and so are those of a module that is no ``PreTrainedModel``: what its class makes is not known.

    Args:
        model: the module whose state is saved.

    Returns:
        name of a weight -> names of its parts in ``state_dict``; empty for most.

    Example:
        >>> from torch.nn.utils import prune
        >>> model = nn.Sequential(nn.Linear(2, 2))
        >>> _ = prune.l1_unstructured(model[0], "weight", 0.5)
        >>> computed_weights(model)
        {'0.weight': ('0.weight_orig', '0.weight_mask')}
    """
    found, own = {}, None
    for path, module in model.named_modules():
        before = f"{path}." if path else ""
        for method in _masks(module):
            name = before + method._tensor_name
            found[name] = (f"{name}_orig", f"{name}_mask")
        if not (parametrize.is_parametrized(module) and isinstance(model, PreTrainedModel)):
            continue
        own = set(built(type(model), model.config).state_dict()) if own is None else own
        for name, made in module.parametrizations.items():
            parts = tuple(f"{before}parametrizations.{name}.{part}" for part in made.state_dict())
            if not own.issuperset(parts):
                found[before + name] = parts
    return found


def split_state(model: nn.Module, state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Write a model's state with the names and weights of its class, and beside it what they were computed from.

    Args:
        model: stays as it is: masked, and trained as before.
        state: its own, or a part of it.

    Returns:
        The state as ``from_pretrained`` reads it, and the parts, by their own names.

    Example:
        >>> from torch.nn.utils import prune
        >>> model = prune.l1_unstructured(nn.Linear(2, 1, bias=False), "weight", 1)
        >>> plain, parts = split_state(model, model.state_dict())
        >>> int(plain["weight"].count_nonzero()), list(plain), list(parts)
        (1, ['weight'], ['weight_orig', 'weight_mask'])
    """
    plain, parts = dict(state), {}
    for name, made_of in computed_weights(model).items():
        if not set(made_of) <= state.keys():
            continue
        parts.update((part, plain.pop(part)) for part in made_of)
        plain[name] = _value(model, name)
    return plain, parts


def recompute(model: nn.Module) -> None:
    """Compute masked weights now, for those who read one before the module is run again.

    Args:
        model: whose parts have just been loaded.

    Example:
        >>> recompute(nn.Linear(1, 1))
    """
    with torch.no_grad():
        for module in model.modules():
            for method in _masks(module):
                method(module, ())


def _masks(module: nn.Module) -> list[BasePruningMethod]:
    return [hook for hook in module._forward_pre_hooks.values() if isinstance(hook, BasePruningMethod)]


def _value(model: nn.Module, name: str) -> Tensor:
    path, _, leaf = name.rpartition(".")
    module = model.get_submodule(path)
    with torch.no_grad():
        for method in _masks(module):
            if method._tensor_name == leaf:  # what the module holds is of its last forward, before the last step
                return method.apply_mask(module)
        training = module.parametrizations.training
        module.parametrizations.eval()  # some go on a step when they are read in training
        value = getattr(module, leaf).detach().clone()
        module.parametrizations.train(training)
        return value
