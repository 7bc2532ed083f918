"""Where a frozen model lives: beside the student, sharded as the student is, or wherever it already is.

Knows: devices, FSDP2, DeepSpeed ZeRO-3. Does not know: batches, Signals, what a teacher is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn
from torch.distributed.tensor import DTensor

from hf_distill.models.denoisers import LENDING, class_in


def place(
    model: nn.Module, accelerator: Accelerator, dtype: torch.dtype | None = None
) -> tuple[Callable[..., Any], bool]:
    """Put a frozen model where a run's student will be.

    A model that is spread by a ``device_map`` or already sharded stays where it is, and so does what bitsandbytes
    quantised, which cannot be moved; what others quantised goes whole to each rank's device. Under ZeRO-3 a model gets
    a frozen engine of its own, under FSDP2 it is sharded block by block, so each rank holds its share. Otherwise every
    rank holds all of it, without a wrapper: DDP refuses a model that has nothing to train.

    Args:
        model: the model, frozen and in eval mode; it is changed in place.
        accelerator: the run's.
        dtype: the precision that the user asked for; None follows the run's.

    Returns:
        What to call instead of the model, and whether all ranks must call it together.

    Example:
        >>> run, collective = place(nn.Linear(2, 2), Accelerator(cpu=True))
        >>> run(torch.zeros(1, 2)).shape, collective
        (torch.Size([1, 2]), False)
    """
    quantised = getattr(model, "quantization_method", None)
    if getattr(model, "hf_device_map", None) or quantised == "bitsandbytes":
        return model, False
    if quantised:
        return model.to(accelerator.device), False
    if any(isinstance(parameter, DTensor) for parameter in model.parameters()):
        return model, True
    deepspeed = getattr(accelerator.state, "deepspeed_plugin", None)
    if deepspeed is not None and deepspeed.hf_ds_config.is_zero3():
        return _zero3_engine(model, accelerator, dtype), True
    if getattr(accelerator.state, "fsdp_plugin", None) is not None and accelerator.num_processes > 1:
        _shard(model, accelerator, dtype)
        return model, True
    return model.to(accelerator.device), False


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """Find the blocks that are gathered one at a time: those the model names itself, or the items of its lists.

    Args:
        model: any module.

    Returns:
        Modules that do not contain each other; none shares a parameter with the rest of the model.

    Example:
        >>> class Stack(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.first, self.layers = nn.Linear(1, 1), nn.ModuleList(nn.Linear(1, 1) for _ in range(3))
        >>> len(blocks_of(Stack()))
        3
    """
    names = set(getattr(model, "_no_split_modules", None) or ())
    found = list(_outermost(model, lambda parent, child: type(child).__name__ in names))
    if not found:
        found = list(_outermost(model, lambda parent, child: isinstance(parent, nn.ModuleList)))
    if class_in(model, LENDING):
        found = found[1:]  # gathered with the rest, which uses a part of it
    owners: dict[int, int] = {}
    for module in model.modules():  # a parameter that two modules own is shared, and belongs to no single block
        for parameter in module.parameters(recurse=False):
            owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    parameters = ((block, list(block.parameters())) for block in found)
    return [block for block, held in parameters if held and all(owners[id(p)] == 1 for p in held)]


def _outermost(module: nn.Module, wanted: Callable[[nn.Module, nn.Module], bool]) -> Iterator[nn.Module]:
    for child in module.children():
        if not isinstance(child, nn.ModuleList) and wanted(module, child):
            yield child
        else:
            yield from _outermost(child, wanted)


def _shard(model: nn.Module, accelerator: Accelerator, dtype: torch.dtype | None) -> None:
    """FSDP2, each block and then the rest; accelerate's prepare_model does not shard what is not trained."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, OffloadPolicy, fully_shard

    if any(parameter.is_meta for parameter in model.parameters()):
        raise ValueError(
            "the teacher was loaded without its weights on this rank, as fsdp_cpu_ram_efficient_loading does for a "
            "student: set it to false."
        )
    plugin = accelerator.state.fsdp_plugin
    mesh, config = getattr(accelerator, "torch_device_mesh", None), getattr(accelerator, "parallelism_config", None)
    if mesh is not None and config is not None:
        mesh = mesh[tuple(config.fsdp_dim_names)]
    else:
        mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    mixed = plugin.mixed_precision_policy if dtype is None else None
    options = {
        "mesh": mesh,
        "mp_policy": mixed if isinstance(mixed, MixedPrecisionPolicy) else MixedPrecisionPolicy(),
        "offload_policy": plugin.cpu_offload if isinstance(plugin.cpu_offload, OffloadPolicy) else OffloadPolicy(),
        "reshard_after_forward": True,  # the root as well: there is no backward that would want it whole
    }
    for block in blocks_of(model):
        fully_shard(block, **options)
    fully_shard(model, **options)


def _zero3_engine(model: nn.Module, accelerator: Accelerator, dtype: torch.dtype | None) -> nn.Module:
    """Give the model an engine without an optimizer: it partitions the parameters and gathers them when they run."""
    import deepspeed

    asked = accelerator.state.deepspeed_plugin.hf_ds_config.config["zero_optimization"]
    kept = {name: value for name, value in asked.items() if value != "auto" and name != "offload_optimizer"}
    precision = dtype or {"bf16": torch.bfloat16, "fp16": torch.float16}.get(accelerator.mixed_precision)
    config = {
        "train_micro_batch_size_per_gpu": 1,  # it is asked for and, without an optimizer, changes nothing
        "zero_optimization": kept,
        "bf16": {"enabled": precision == torch.bfloat16},
        "fp16": {"enabled": precision == torch.float16},
    }
    engine, *_ = deepspeed.initialize(model=model, config=config)
    return engine.eval()
