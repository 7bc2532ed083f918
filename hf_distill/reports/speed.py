"""What a model costs: parameters, megabytes, samples a second.

Knows: a model and batches. Does not know: quality, teachers, trainers.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn


def size_of(model: nn.Module) -> tuple[int, float]:
    """Count a model's parameters, and the megabytes that they take.

    Args:
        model: any module; shared parameters count once.

    Returns:
        Parameters, and megabytes (10**6 bytes) in the dtype that they have.

    Example:
        >>> size_of(nn.Linear(9, 10))
        (100, 0.0004)
    """
    # What an objective trains beside the student is in no student that is saved.
    parameters = [p for name, p in model.named_parameters() if not name.startswith("distillation.")]
    return sum(p.numel() for p in parameters), sum(p.numel() * p.element_size() for p in parameters) / 1e6


def throughput(model: nn.Module, batches: Iterable[Mapping[str, Tensor]], repeats: int = 3) -> float:
    """Measure forwards a second on the model's own device, after one warm-up pass.

    Args:
        model: run in eval mode without gradients; its mode is put back.
        batches: what to feed, the same for every model that is compared; moved to the device before the clock starts.
        repeats: passes over the batches; the median counts, because machines are noisy.

    Returns:
        Samples a second.

    Example:
        >>> throughput(nn.Linear(4, 2), [{"input": torch.ones(8, 4)}]) > 0
        True
    """
    device = next(model.parameters()).device
    batches = [{name: value.to(device) for name, value in batch.items()} for batch in batches]
    samples = sum(len(next(iter(batch.values()))) for batch in batches)
    was_training, seconds = model.training, []
    model.eval()
    with torch.no_grad():
        for attempt in range(repeats + 1):
            start = time.perf_counter()
            for batch in batches:
                model(**batch)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if attempt:  # the first pass warms up
                seconds.append(time.perf_counter() - start)
    model.train(was_training)
    return samples / statistics.median(seconds)
