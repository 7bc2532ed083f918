"""How fast several models are beside each other, on a machine that may have other work.

Knows: models and batches. Does not know: quality, teachers, trainers.

Other work only ever makes a forward slower, and comes and goes within seconds. So models take turns, forward by
forward, the quick forwards count, and a figure that does not come out twice is none.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from torch import Tensor, nn

from hf_distill.reports.speed import WARM_UP, Latency, at_work, now, rows_to_time

PASSES, AGREE = 5, 0.1
"""A figure is that of the quickest of so many passes, if the next quickest is slower by no more than this share."""

Batch = Mapping[str, Tensor]


def latencies(models: Mapping[str, nn.Module], batch: Batch, repeats: int = 50) -> dict[str, float | None]:
    """Measure how long one row takes, when rows come one at a time.

    Args:
        models: by their names; run in eval mode without gradients, on their own devices; their modes are put back.
        batch: rows [B, ...], fed one by one and in turn, with the padding that they have.
        repeats: how many forwards of each model a pass has, 10 or more.

    Returns:
        name -> milliseconds, which one forward in ten stays under; None where no two passes agree.

    Raises:
        ValueError: the batch has no row, or there are less than 10 forwards.

    Example:
        >>> import torch
        >>> small, large = nn.Linear(4, 2), nn.Sequential(nn.Linear(4, 4000), nn.Linear(4000, 2))
        >>> sorted(latencies({"small": small, "large": large}, {"input": torch.ones(8, 4)}))
        ['large', 'small']
    """
    size = len(next(iter(batch.values()), ()))
    if not size or repeats < 10:
        raise ValueError(
            f"latencies were asked for over {repeats} forwards of {size} rows: give 10 forwards or more, of which the "
            "quick ones count, and at least one row."
        )
    rows = [{name: value[i : i + 1] for name, value in batch.items()} for i in range(min(size, repeats))]
    turns = [rows[i % len(rows)] for i in range(repeats)]
    found = _agreed(models, turns, [rows[i % len(rows)] for i in range(WARM_UP)], _quick)
    return {name: None if seconds is None else 1000 * seconds for name, seconds in found.items()}


def waits(models: Mapping[str, nn.Module], batch: Batch, repeats: int = 200) -> dict[str, Latency]:
    """Measure how long one row takes, and how long it takes at worst but for one in twenty, when models take turns.

    Args:
        models: as in ``latencies``.
        batch: rows [B, ...], fed one by one and in turn, with the padding that they have.
        repeats: forwards of each model, 20 or more; a few more come before to warm up.

    Returns:
        name -> the median and the 95th percentile, in milliseconds, other work on the machine included.

    Raises:
        ValueError: the batch has no row, or there are less than 20 forwards.

    Example:
        >>> import torch
        >>> found = waits({"small": nn.Linear(4, 2)}, {"input": torch.ones(8, 4)}, repeats=20)
        >>> 0 < found["small"].p50 <= found["small"].p95
        True
    """
    size = rows_to_time(batch, repeats)
    devices = {name: next(model.parameters()).device for name, model in models.items()}
    took: dict[str, list[float]] = {name: [] for name in models}
    with ExitStack() as stack:
        for model in models.values():
            stack.enter_context(at_work(model))
        for attempt in range(repeats + WARM_UP):
            row = attempt % size
            for name, model in models.items():
                fed = {column: value[row : row + 1].to(devices[name]) for column, value in batch.items()}
                start = now(devices[name])
                model(**fed)
                took[name].append(1000 * (now(devices[name]) - start))
    return {name: Latency.of(one[WARM_UP:]) for name, one in took.items()}


def throughputs(models: Mapping[str, nn.Module], batches: Iterable[Batch]) -> dict[str, float | None]:
    """Measure how many samples a model takes in a second.

    Args:
        models: as in ``latencies``.
        batches: what to feed, moved to the devices before the clock starts.

    Returns:
        name -> samples a second; None where no two passes over the batches agree.

    Raises:
        ValueError: there are no batches.

    Example:
        >>> import torch
        >>> list(throughputs({"small": nn.Linear(4, 2)}, [{"input": torch.ones(8, 4)}]))
        ['small']
    """
    batches = list(batches)
    if not batches:
        raise ValueError("the speed of models was asked for and there are no batches: give at least one.")
    samples = sum(len(next(iter(batch.values()))) for batch in batches)
    found = _agreed(models, batches, batches, sum)
    return {name: None if seconds is None else samples / seconds for name, seconds in found.items()}


def method() -> str:
    """Say how the figures are found.

    Example:
        >>> method().split(";")[0]
        'the models took turns'
    """
    return (
        "the models took turns; of one row alone the 10th percentile of forwards; each the quickest of up to "
        f"{PASSES} passes, if another is within {100 * AGREE:.0f} % of it"
    )


def _quick(seconds: Sequence[float]) -> float:
    return statistics.quantiles(seconds, n=10, method="inclusive")[0]


def _agreed(
    models: Mapping[str, nn.Module], batches: Sequence[Batch], first: Sequence[Batch], figure: Callable[..., Any]
) -> dict[str, float | None]:
    """Let models take turns over batches, pass after pass, until two passes agree for each of them."""
    devices = {name: next(model.parameters()).device for name, model in models.items()}
    fed = {
        device: {id(batch): {n: v.to(device) for n, v in batch.items()} for batch in (*batches, *first)}
        for device in dict.fromkeys(devices.values())
    }
    names, found = list(models), {name: [] for name in models}

    def done(values: list[float]) -> bool:
        return len(values) > 1 and sorted(values)[1] <= (1 + AGREE) * min(values)

    with ExitStack() as stack:
        for model in models.values():
            stack.enter_context(at_work(model))
        for attempt in range(PASSES + 1):
            took: dict[str, list[float]] = {name: [] for name in models}
            for i, batch in enumerate(batches if attempt else first):  # the first pass warms up
                turn = i % len(names)
                for name in names[turn:] + names[:turn]:  # none is always the one behind the largest
                    device = devices[name]
                    start = now(device)
                    models[name](**fed[device][id(batch)])
                    took[name].append(now(device) - start)
            for name in names if attempt else ():
                found[name].append(figure(took[name]))
            if attempt and all(map(done, found.values())):
                break
    return {name: min(values) if done(values) else None for name, values in found.items()}
