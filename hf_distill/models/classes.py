"""Which class of transformers a model is of, and whether its supervised loss is still that class's.

Knows: names of classes, forwards that were written over. Does not know: what a task makes of an answer.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from hf_distill.models.outputs import core_of
from hf_distill.models.texts import IDS


def names_in(mapping: Mapping[str, Any]) -> frozenset[str]:
    """Return the class names of one of transformers' auto mappings; some models have several.

    Args:
        mapping: model type -> class name, or several.

    Example:
        >>> sorted(names_in({"bert": "BertModel", "funnel": ("FunnelModel", "FunnelBaseModel")}))
        ['BertModel', 'FunnelBaseModel', 'FunnelModel']
    """
    return frozenset(n for names in mapping.values() for n in ([names] if isinstance(names, str) else names))


OTHER = ("pixel_", "image", "video", "input_values", "input_features", "audio", "speech", "past_values")
"""What the names of forward arguments begin with that are no text: images, waves, series."""


def strangers_of(model: nn.Module) -> list[str]:
    """Name what a model reads that is no text.

    Args:
        model: any module.

    Returns:
        The forward arguments, in their order.

    Example:
        >>> class Hears(nn.Module):
        ...     def forward(self, input_values, attention_mask=None): ...
        >>> strangers_of(Hears())
        ['input_values']
    """
    return [name for name in inspect.signature(core_of(model).forward).parameters if name.startswith(OTHER)]


def reads_text(model: nn.Module) -> bool:
    """Say whether a model reads a text, alone or beside something else; of one that does not say it is assumed.

    Args:
        model: any module.

    Example:
        >>> reads_text(nn.Linear(1, 1))
        True
    """
    takes = inspect.signature(core_of(model).forward).parameters
    return not strangers_of(model) or IDS in takes


def own_loss_of(model: nn.Module, known: frozenset[str], suffix: str | None = None) -> bool | None:
    """Say whether a model of one of these classes computes a loss of its own.

    A subclass with its own forward, or an own loss function, means its own loss: it is then asked for it. So does a
    class that nobody knows, if its name says what it is for, and one that adds up more than its logits say.

    Args:
        model: any module.
        known: names of classes whose loss is known.
        suffix: what the name of any other class for the same task ends with; None: there is no other.

    Returns:
        None if the model is of none of these classes.

    Example:
        >>> class Tagger(nn.Module): ...
        >>> class MyTagger(Tagger):
        ...     def forward(self, input_ids): ...
        >>> known = frozenset({"Tagger"})
        >>> own_loss_of(Tagger(), known), own_loss_of(MyTagger(), known), own_loss_of(nn.ReLU(), known)
        (False, True, None)
    """
    core = core_of(model)
    base = next((c for c in type(core).__mro__ if c.__name__ in known), None)
    if base is None:
        named = suffix is not None and type(core).__name__.endswith(suffix)
        return True if named and reads_text(core) else None  # waves are classified under the same name
    own = "_loss_function" in vars(core) or hasattr(core, "_compute_loss")  # ProphetNet's, of several later tokens
    return own or type(core).forward is not base.forward
