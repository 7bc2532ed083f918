"""``hf-distill env``: what a bug report needs to know of this installation and this machine.

Knows: installed packages, what this package asks of them, PyTorch's devices. Does not know: models, runs, settings.

Nothing that names a person or a computer is among it: no path, no host, no token.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

import hf_distill

PACKAGE = "hf_distill"
PACKAGES = ("torch", "transformers", "accelerate", "datasets", "evaluate", "peft", "huggingface_hub")
"""What every run uses."""
SAID = (
    "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "PYTORCH_CUDA_ALLOC_CONF", "TOKENIZERS_PARALLELISM", "HF_HUB_OFFLINE",
    "HF_DATASETS_OFFLINE", "WORLD_SIZE", "ACCELERATE_MIXED_PRECISION", "ACCELERATE_USE_FSDP",
    "ACCELERATE_USE_DEEPSPEED",
)  # fmt: skip
"""Variables whose values are numbers and switches: these alone are shown."""
USAGE = """usage: hf-distill env

Prints the versions of what is installed, which extras are there, the devices and the threads: paste it into an issue.
It has no token, no path and no name of a user or a computer."""


def main(argv: Sequence[str]) -> None:
    """Run the command.

    Args:
        argv: nothing, or ``--help``.

    Raises:
        ValueError: it was given something.
    """
    if list(argv[:1]) in (["-h"], ["--help"]):
        print(USAGE)
        return
    if argv:
        raise ValueError(f"{' '.join(argv)} was given, and env takes nothing: leave it out.")
    print("\n".join(f"- {name}: {value}" for name, value in described()))


def described() -> Iterator[tuple[str, str]]:
    """Name everything, and say what it is."""
    yield PACKAGE, hf_distill.__version__
    yield "Python", f"{platform.python_version()}, {platform.python_implementation()}"
    yield "system", f"{platform.system()} {platform.release()}, {platform.machine()}"
    yield from ((name, version_of(name) or "not installed") for name in PACKAGES)
    for extra in extras():
        lacking = missing(extra)
        told = f"absent ({'; '.join(lacking)}): pip install '{PACKAGE}[{extra}]'"
        yield f"extra {extra}", told if lacking else "present"
    yield from _devices()
    if told := ", ".join(f"{name}={os.environ[name]}" for name in SAID if name in os.environ):
        yield "environment", told


def version_of(name: str) -> str | None:
    """Return the version of an installed package; None where there is none.

    Example:
        >>> version_of("no-such-package") is None
        True
    """
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def extras() -> list[str]:
    """Name the extras of this package; none where it runs from files that were never installed."""
    try:
        return metadata.metadata(PACKAGE).get_all("Provides-Extra") or []
    except metadata.PackageNotFoundError:
        return []


def missing(extra: str) -> list[str]:
    """Say what of an extra is not installed, or is too old.

    Args:
        extra: its name; what it takes of other extras of this package belongs to it.
    """
    found = []
    for one in map(Requirement, metadata.requires(PACKAGE) or ()):
        if one.marker is None or not one.marker.evaluate({"extra": extra}) or one.marker.evaluate({"extra": ""}):
            continue
        if one.name.replace("-", "_") == PACKAGE:
            found += [told for further in sorted(one.extras) for told in missing(further)]
        elif (version := version_of(one.name)) is None:
            found.append(f"no {one.name}")
        elif not one.specifier.contains(version, prereleases=True):
            found.append(f"{one.name} {version} is not {one.specifier}")
    return found


def _devices() -> Iterator[tuple[str, str]]:
    """What PyTorch computes on; where it cannot be imported, why."""
    try:
        import torch
    except Exception as error:  # whatever keeps it from being imported is what the report is about
        yield "torch cannot be imported", without_home(f"{type(error).__name__}: {' '.join(str(error).split())}")
        return
    from hf_distill.reports.speed import machine

    yield "processor", f"{machine()}; {os.cpu_count()} cores"
    if not torch.accelerator.is_available():
        yield "accelerator", "none"
        return
    kind = torch.accelerator.current_accelerator().type
    count = torch.accelerator.device_count()
    name = torch.cuda.get_device_name(0) if kind == "cuda" else kind
    yield "accelerator", f"{count} x {name}" + (f", CUDA {torch.version.cuda}" if torch.version.cuda else "")


def without_home(text: str) -> str:
    """Write ``~`` for the user's folder: its name is often a person's.

    Example:
        >>> without_home(f"{Path.home()}/lib/libtorch.so: no such file")
        '~/lib/libtorch.so: no such file'
    """
    home = str(Path.home())
    return text if home == "/" else text.replace(home, "~")
