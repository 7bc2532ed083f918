"""Which class of transformers a model is of, and whether its supervised loss is still that class's.

Knows: names of classes, forwards that were written over. Does not know: what a task makes of an answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from hf_distill.tasks.outputs import core_of


def names_in(mapping: Mapping[str, Any]) -> frozenset[str]:
    """Return the class names of one of transformers' auto mappings; some models have several.

    Args:
        mapping: model type -> class name, or several.

    Example:
        >>> sorted(names_in({"bert": "BertModel", "funnel": ("FunnelModel", "FunnelBaseModel")}))
        ['BertModel', 'FunnelBaseModel', 'FunnelModel']
    """
    return frozenset(n for names in mapping.values() for n in ([names] if isinstance(names, str) else names))


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
        return True if suffix is not None and type(core).__name__.endswith(suffix) else None
    own = "_loss_function" in vars(core) or hasattr(core, "_compute_loss")  # ProphetNet's, of several later tokens
    return own or type(core).forward is not base.forward
