"""Which hidden dimensions, heads and inner neurons a model uses most, measured on a few batches.

Knows: what enters and leaves modules. Does not know: how many stay, how a tensor is cut.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from hf_distill.models.texts import text_positions

LINEAR = (nn.Linear, Conv1D)


def ran(
    model: PreTrainedModel,
    batches: Sequence[Mapping[str, Any]],
    given: Mapping[nn.Module, Any] | None = None,
    made: Mapping[nn.Module, Any] | None = None,
) -> int:
    """Run a model and show to some functions what enters and what leaves some modules, without padding.

    Args:
        model: in whatever mode; it is run in eval mode.
        batches: what its forward takes; labels are left out.
        given: module -> a function of what it is given, float64 [n, width] of the positions that are not padding.
        made: module -> a function of what it makes.

    Returns:
        How many positions there were: tokens, or patches and what stands beside them.
    """
    mask: Tensor | None = None

    def counted(value: Any) -> Tensor:
        nonlocal most
        value = (value[0] if isinstance(value, tuple) else value).double()
        most = max(most, value.shape[:-1].numel())
        if mask is not None and value.shape[:-1] == mask.shape:
            return value[mask]
        return value[mask.flatten()] if mask is not None and value.shape[0] == mask.numel() else value.flatten(0, -2)

    training, positions, most = model.training, 0, 0
    hooks = [m.register_forward_pre_hook(lambda _, args, f=f: f(counted(args))) for m, f in (given or {}).items()]
    hooks += [m.register_forward_hook(lambda _, args, out, f=f: f(counted(out))) for m, f in (made or {}).items()]
    try:
        model.eval()
        for batch in batches:
            inputs = {name: value.to(model.device) for name, value in batch.items() if name != "labels"}
            mask, most = text_positions(inputs), 0
            with torch.no_grad():
                model(**inputs)
            positions += most if mask is None else int(mask.sum())
    finally:
        for hook in hooks:
            hook.remove()
        model.train(training)
    return positions


def sizes_of(
    model: PreTrainedModel,
    batches: Sequence[Mapping[str, Any]],
    norms: Iterable[nn.Module],
    outs: Iterable[nn.Module],
    downs: Iterable[nn.Module],
) -> tuple[dict[nn.Module, Tensor], int]:
    """Add up absolute activations.

    Args:
        model: is run once a batch.
        batches: as for ``ran``.
        norms: heard for the size of what they make.
        outs: the last projections of attentions: heard for the square of what enters.
        downs: the last projections of feed-forwards: heard for the size of what enters.

    Returns:
        module -> float64 [width], and how many positions there were.
    """
    found: dict[nn.Module, Tensor] = {}

    def adding(module: nn.Module, measure: Any) -> Any:
        def add(value: Tensor) -> None:
            found[module] = found.get(module, 0) + measure(value).sum(dim=0)

        return add

    given = {module: adding(module, torch.square) for module in outs}
    given |= {module: adding(module, torch.abs) for module in downs}
    return found, ran(model, batches, given, {module: adding(module, torch.abs) for module in norms})


def rescaling(
    model: PreTrainedModel, batches: Sequence[Mapping[str, Any]], norms: Sequence[nn.Module], kept: Tensor
) -> dict[nn.Module, float]:
    """Measure by how much each norm would blow up the kept dimensions: what it divides by changes with them.

    Args:
        model: is run once a batch.
        batches: as for ``ran``.
        norms: LayerNorm or RMSNorm.
        kept: the dimensions that stay.

    Returns:
        norm -> spread of the kept dimensions / spread of all, the mean over tokens; 1 where all are kept.
    """
    found: dict[nn.Module, list[float]] = {module: [] for module in norms}

    def ratio(module: nn.Module) -> Any:
        def add(value: Tensor) -> None:
            whole, part = _spread(module, value), _spread(module, value[..., kept])
            found[module] += torch.where(whole > 0, part / whole, 1.0).tolist()

        return add

    ran(model, batches, {module: ratio(module) for module in norms})
    return {module: sum(ratios) / len(ratios) if ratios else 1.0 for module, ratios in found.items()}


def _spread(module: nn.Module, value: Tensor) -> Tensor:
    centred = value - value.mean(dim=-1, keepdim=True) if isinstance(module, nn.LayerNorm) else value
    return centred.square().mean(dim=-1).sqrt()


@contextmanager
def calls(model: nn.Module) -> Iterator[list[nn.Module]]:
    """While open, write down which linear modules are called, in order.

    Args:
        model: any module.

    Example:
        >>> model = nn.Sequential(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 1))
        >>> with calls(model) as order:
        ...     _ = model(torch.ones(1, 1))
        >>> len(order)
        2
    """
    order: list[nn.Module] = []
    hooks = [
        module.register_forward_hook(lambda module, *_: order.append(module))
        for module in model.modules()
        if isinstance(module, LINEAR)
    ]
    try:
        yield order
    finally:
        for hook in hooks:
            hook.remove()
