"""How transformers models are asked for more than logits, and where they put it.

Knows: forward flags, the names of outputs. Does not know: what a task or a term does with them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

SHOWN = {
    "hidden": (
        "output_hidden_states",
        (
            "hidden_states",
            "decoder_hidden_states",
            "encoder_hidden_states",
            "reshaped_hidden_states",
        ),
    ),
    "attention": ("output_attentions", ("attentions", "decoder_attentions", "encoder_attentions", "cross_attentions")),
}
"""need -> the flag that asks for it, and the outputs that it adds."""


def core_of(model: nn.Module) -> nn.Module:
    """Return the transformers model inside a compiled or a PEFT model; any other model is its own core.

    Args:
        model: any module.

    Example:
        >>> core_of(nn.Linear(1, 1))
        Linear(in_features=1, out_features=1, bias=True)
    """
    model = getattr(model, "_orig_mod", model)
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def asking(needs: Iterable[str], model: nn.Module | None = None) -> dict[str, bool]:
    """Return the forward flags that make a model show what is needed.

    Args:
        needs: as in ``Term.needs``; what one stream needs, ``"hidden:encoder"``, is asked for as ``"hidden"`` is.
        model: leave out the flags that its own configuration sets already.

    Example:
        >>> asking({"heads", "hidden"})
        {'output_hidden_states': True}
    """
    config = getattr(core_of(model), "config", None) if model is not None else None
    kinds = {need.partition(":")[0] for need in needs}
    flags = (SHOWN[need][0] for need in SHOWN if need in kinds)
    asked = {flag: True for flag in flags if not getattr(config, flag, False)}
    if asked and not getattr(config, "return_dict", True):
        asked["return_dict"] = True  # a tuple does not say which of its entries are hidden states
    return asked


def without(outputs: Any, asked: Mapping[str, bool]) -> Any:
    """Return the outputs as if nobody had asked for more, so that predictions hold what they always held.

    Args:
        outputs: what the model returned.
        asked: the flags that were added to the call; see ``asking``.

    Example:
        >>> without({"logits": 1, "hidden_states": (2, 3)}, {"output_hidden_states": True})
        {'logits': 1}
    """
    added = {name for flag, names in SHOWN.values() if flag in asked for name in names}
    if not added or not isinstance(outputs, Mapping):
        return outputs
    return type(outputs)(**{name: value for name, value in outputs.items() if name not in added})


def logits_in(outputs: Any, name: str) -> Tensor:
    """Find the logits in what a model returned.

    Args:
        outputs: a mapping with ``logits``, a tuple (its first tensor that is not a scalar loss), or the logits.
        name: how to name the model in an error.

    Returns:
        The logits, as they are.

    Raises:
        ValueError: there are none.

    Example:
        >>> import torch
        >>> logits_in((torch.tensor(0.5), torch.tensor([[1.0, 2.0]])), "a model")
        tensor([[1., 2.]])
    """
    if isinstance(outputs, Tensor):
        return outputs
    if isinstance(outputs, Mapping):
        found, shown = outputs.get("logits"), ", ".join(outputs)
    else:
        found = next((part for part in outputs if isinstance(part, Tensor) and part.ndim > 0), None)
        shown = f"a {type(outputs).__name__} of {len(outputs)}"
    if not isinstance(found, Tensor):
        raise ValueError(
            f"logits were asked of {name}, it returned {shown}: use a model with a head for this task, of "
            "an AutoModelFor... class (AutoModelForSequenceClassification, not AutoModel)."
        )
    return found
