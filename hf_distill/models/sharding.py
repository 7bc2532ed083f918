"""Whole tensors and whole models of what FSDP2 or ZeRO-3 has spread over ranks.

Knows: how either keeps a parameter's share. Does not know: whose parameters they are.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor


def is_sharded(module: nn.Module) -> bool:
    """Say whether a rank holds only a share of the module's parameters.

    Args:
        module: any module.

    Example:
        >>> is_sharded(nn.Linear(1, 1))
        False
    """
    return any(isinstance(p, DTensor) or hasattr(p, "ds_id") for p in module.parameters())


def whole_state(module: nn.Module) -> dict[str, Tensor]:
    """Gather a module's state on the CPU, wherever its parameters are; every rank must call it together.

    Args:
        module: whole, sharded by FSDP2, or partitioned by ZeRO-3.

    Returns:
        name -> whole tensor.

    Example:
        >>> list(whole_state(nn.Linear(1, 1)))
        ['weight', 'bias']
    """
    partitioned = [p for p in module.parameters() if hasattr(p, "ds_id")]
    if partitioned:
        import deepspeed

        with deepspeed.zero.GatheredParameters(partitioned):
            return {name: value.detach().cpu().clone() for name, value in module.state_dict().items()}
    state = {n: v.full_tensor() if isinstance(v, DTensor) else v for n, v in module.state_dict().items()}
    return {name: value.detach().cpu().clone() for name, value in state.items()}


def unsharded(model: Any) -> Any:
    """Return a whole model: itself if it is one, else a copy on the CPU; every rank must call it together.

    Args:
        model: a ``PreTrainedModel``, or a PEFT model around one.

    Returns:
        A model of the same class with the same weights; what an objective trains beside them is left out.

    Example:
        >>> model = nn.Linear(1, 1)
        >>> unsharded(model) is model
        True
    """
    if not is_sharded(model):
        return model
    core = model.get_base_model() if hasattr(model, "get_base_model") else model
    kind = next(c for c in type(core).__mro__ if not issubclass(c, FSDPModule))  # FSDP2 makes a subclass of its own
    copy = kind(deepcopy(core.config))
    if hasattr(model, "peft_config"):
        from peft import get_peft_model

        copy = get_peft_model(copy, next(iter(model.peft_config.values())))
    state = whole_state(model)
    copy.load_state_dict({name: value for name, value in state.items() if not name.startswith("distillation.")})
    return copy.to(next(iter(state.values())).dtype).eval()
