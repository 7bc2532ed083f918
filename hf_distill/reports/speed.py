"""What a model costs: parameters, megabytes, samples a second, milliseconds for one, on which machine.

Knows: a model and batches. Does not know: quality, teachers, trainers.
"""

from __future__ import annotations

import platform
import re
import statistics
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

WARM_UP = 5
"""Single rows that are fed before the clock starts: the first ones allocate, compile and fill caches."""


class Latency(NamedTuple):
    """How long one row takes, in milliseconds.

    Args:
        p50: half of the forwards took no longer.
        p95: nineteen of twenty took no longer.
    """

    p50: float
    p95: float

    @classmethod
    def of(cls, took: Sequence[float]) -> Latency:
        """Summarise forwards.

        Args:
            took: milliseconds of each, two or more.

        Example:
            >>> Latency.of([1.0, 2.0, 3.0])
            Latency(p50=2.0, p95=2.9)
        """
        cuts = statistics.quantiles(took, n=20, method="inclusive")
        return cls(cuts[9], cuts[18])


def size_of(model: nn.Module) -> tuple[int, float]:
    """Count a model's parameters, and the megabytes that they take.

    Args:
        model: any module; shared parameters count once.

    Returns:
        Parameters, and megabytes (10**6 bytes) in the dtype that they have; of quantised ones with their scales.

    Example:
        >>> size_of(nn.Linear(9, 10))
        (100, 0.0004)
    """
    # What an objective trains beside the student is in no student that is saved.
    parameters = [p for name, p in model.named_parameters() if not name.startswith("distillation.")]
    return sum(p.numel() for p in parameters), sum(map(_bytes, parameters)) / 1e6


def _bytes(p: Tensor) -> int:
    """What a tensor takes; one of torchao is made of others."""
    inner = [getattr(p, name) for name in p.__tensor_flatten__()[0]] if hasattr(p, "tensor_data_names") else [p]
    return sum(one.numel() * one.element_size() for one in inner)


def throughput(model: nn.Module, batches: Iterable[Mapping[str, Tensor]], repeats: int = 3) -> float:
    """Measure forwards a second on the model's own device, after one warm-up pass.

    Args:
        model: run in eval mode without gradients; its mode is put back.
        batches: what to feed, the same for every model that is compared; moved to the device before the clock starts.
        repeats: passes over the batches; the median counts, because machines are noisy.

    Returns:
        Samples a second.

    Raises:
        ValueError: there are no batches.

    Example:
        >>> throughput(nn.Linear(4, 2), [{"input": torch.ones(8, 4)}]) > 0
        True
    """
    device = next(model.parameters()).device
    batches = [{name: value.to(device) for name, value in batch.items()} for batch in batches]
    if not batches:
        raise ValueError("the speed of a model was asked for and there are no batches: give at least one.")
    samples, seconds = sum(len(next(iter(batch.values()))) for batch in batches), []
    with at_work(model):
        for attempt in range(repeats + 1):
            start = now(device)
            for batch in batches:
                model(**batch)
            if attempt:  # the first pass warms up
                seconds.append(now(device) - start)
            else:
                now(device)
    return samples / statistics.median(seconds)


def real_time_factor(
    model: nn.Module, batches: Iterable[Mapping[str, Tensor]], seconds: float, repeats: int = 3
) -> float:
    """Measure how many seconds of audio a model takes in one second of the processor.

    Args:
        model: run in eval mode without gradients; its mode is put back.
        batches: what to feed, moved to the device before the clock starts.
        seconds: of audio in all batches together, without padding.
        repeats: passes over the batches; the quickest counts, for other work only ever makes one slower.

    Returns:
        Over 1: faster than it is spoken. A second is one of the processor, of all threads together; on an accelerator,
        where a processor waits, it is one that passes.

    Raises:
        ValueError: there are no batches, or no audio in them.

    Example:
        >>> real_time_factor(nn.Linear(4, 2), [{"input": torch.ones(8, 4)}], seconds=8.0) > 1
        True
    """
    device = next(model.parameters()).device
    batches = [{name: value.to(device) for name, value in batch.items()} for batch in batches]
    if not batches or seconds <= 0:
        raise ValueError(
            f"a real-time factor was asked for {seconds:g} seconds of audio in {len(batches)} batches: give at least "
            "one recording, and how long it is."
        )
    clock, took = time.process_time if device.type == "cpu" else (lambda: now(device)), []
    with at_work(model):
        for attempt in range(repeats + 1):
            start = clock()
            for batch in batches:
                model(**batch)
            if attempt:  # the first pass warms up
                took.append(clock() - start)
            else:
                clock()
    return seconds / max(min(took), 1e-9)


def latency(model: nn.Module, batch: Mapping[str, Tensor], repeats: int = 100) -> Latency:
    """Measure how long one row takes on the model's own device, when rows come one at a time.

    Args:
        model: run in eval mode without gradients; its mode is put back.
        batch: rows [B, ...], fed one by one and in turn, with the padding that they have: of rows that were padded
            to a longer one give one row, or rows as long. The same for every model that is compared; moved to the
            device before the clock starts.
        repeats: how many forwards are timed, 20 or more; a few more come before to warm up.

    Returns:
        The median and the 95th percentile, in milliseconds.

    Raises:
        ValueError: the batch has no row, or there are less than 20 forwards.

    Example:
        >>> found = latency(nn.Linear(4, 2), {"input": torch.ones(8, 4)})
        >>> 0 < found.p50 <= found.p95
        True
    """
    size = rows_to_time(batch, repeats)
    device = next(model.parameters()).device
    rows = [{name: value[i : i + 1].to(device) for name, value in batch.items()} for i in range(min(size, repeats))]
    took = []
    with at_work(model):
        for attempt in range(repeats + WARM_UP):
            start = now(device)
            model(**rows[attempt % len(rows)])
            took.append(1000 * (now(device) - start))
    return Latency.of(took[WARM_UP:])


def rows_to_time(batch: Mapping[str, Tensor], repeats: int) -> int:
    """Count the rows of a batch, and refuse what tells no 95th percentile.

    Args:
        batch: rows [B, ...].
        repeats: how many forwards are timed.

    Raises:
        ValueError: the batch has no row, or there are less than 20 forwards.

    Example:
        >>> rows_to_time({"input": torch.ones(8, 4)}, 20)
        8
    """
    size = len(next(iter(batch.values()), ()))
    if not size or repeats < 20:
        raise ValueError(
            f"latency was asked for over {repeats} forwards of {size} rows: give 20 forwards or more, which a 95th "
            "percentile needs, and at least one row."
        )
    return size


def machine(device: torch.device | str = "cpu", dtype: torch.dtype | None = None) -> str:
    """Say in a line on what a speed was measured.

    Args:
        device: of the model.
        dtype: that it computes in; None: PyTorch's default.

    Returns:
        The processor's or the GPU's name as the system tells it, PyTorch's threads and the dtype; nothing that would
        name a computer, a user or a place.

    Example:
        >>> machine().endswith("float32") and "thread" in machine()
        True
    """
    device, threads = torch.device(device), torch.get_num_threads()
    name = _processor()
    if device.type == "cuda":
        name = f"{torch.cuda.get_device_name(device)}, {name}"
    elif device.type != "cpu":
        name = f"{name}, {device.type}"
    kind = str(dtype or torch.get_default_dtype()).removeprefix("torch.")
    return f"{name}, {threads} thread{'s' if threads > 1 else ''}, {kind}"


@contextmanager
def at_work(model: nn.Module) -> Iterator[None]:
    """Run a model in eval mode without gradients; afterwards every module is in the mode that it had.

    Args:
        model: any module.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training


def now(device: torch.device) -> float:
    """Tell the time when all that was given to a device is done.

    Args:
        device: of the model.

    Returns:
        Seconds, of which only differences mean something.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type != "cpu":
        getattr(torch, device.type).synchronize()  # torch.mps, torch.xpu
    return time.perf_counter()


def _processor() -> str:
    name = ""
    if platform.system() == "Linux":
        # ARM's /proc/cpuinfo has no name, and then the architecture must do.
        listed = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        name = (re.findall(r"^model name\s*:\s*(.+)$", listed, re.MULTILINE) or [""])[0]
    elif platform.system() == "Darwin":
        asked = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
        name = subprocess.run(asked, capture_output=True, text=True, check=False).stdout
    name = re.sub(r"\((?:R|TM)\)|\s+", " ", name or platform.processor() or platform.machine(), flags=re.IGNORECASE)
    return re.sub(r" {2,}", " ", name).strip()
