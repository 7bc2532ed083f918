"""What every format of an export says and does.

Knows: libraries that may be missing, layers. Does not know: any one format, how models are measured.
"""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from torch import nn
from transformers.pytorch_utils import Conv1D

from hf_distill.export.plan import Plan

TOLERANCE = 1e-4
"""How far an exact export may be from PyTorch, for each 1 that the largest output of a row is above 1."""


class Format(ABC):
    """A way to write a model down.

    Attributes:
        name: as the command takes it, and of the folder that it is written to.
        extra: of this package, that brings what it needs.
        needs: the modules.
        exact: whether its outputs are to be PyTorch's, within ``TOLERANCE``.
        reads: what loads the folder, for its card.
    """

    name: ClassVar[str]
    extra: ClassVar[str]
    needs: ClassVar[tuple[str, ...]]
    exact: ClassVar[bool] = False
    reads: ClassVar[str]

    @classmethod
    def check(cls, model: nn.Module) -> None:
        """Refuse what cannot be written, before anything is run.

        Args:
            model: of any task that has an export.

        Raises:
            ImportError: a library is missing; names the extra.
            ValueError: a layer that cannot be quantised; names it.
        """
        if missing := [one for one in cls.needs if importlib.util.find_spec(one) is None]:
            raise ImportError(f"{cls.name} needs {', '.join(missing)}: pip install 'hf_distill[{cls.extra}]'.")

    @classmethod
    @abstractmethod
    def write(cls, model: nn.Module, plan: Plan, folder: Path) -> None:
        """Write the model.

        Args:
            model: in float32, on the CPU, in eval mode.
            plan: what of it.
            folder: is there, and takes the weights.
        """

    @classmethod
    @abstractmethod
    def load(cls, folder: Path, model: nn.Module, plan: Plan) -> nn.Module:
        """Run again what was written.

        Args:
            folder: with it.
            model: of which it was written: its configuration and its class.
            plan: what of it was.

        Returns:
            A module that takes a batch's columns and returns its outputs by name.
        """

    @classmethod
    def megabytes(cls, folder: Path) -> float:
        """Say how large the weights are on the disk, in 10**6 bytes.

        Args:
            folder: with them.
        """
        endings = (".onnx", ".data", ".bin", ".safetensors", ".xml")
        return sum(one.stat().st_size for one in folder.iterdir() if one.name.endswith(endings)) / 1e6


def check_products(model: nn.Module, name: str, kinds: tuple[type[nn.Module], ...] = (nn.Linear, Conv1D)) -> None:
    """Refuse a model most of whose weights are in no matrix product.

    Args:
        model: any.
        name: of the format.
        kinds: the layers that it quantises; embeddings stay as they are, or are looked up as they are.

    Raises:
        ValueError: names the largest of the other layers.
    """
    ours, others = 0, {}
    for path, layer in model.named_modules():
        count = sum(p.numel() for p in layer.parameters(recurse=False))
        if isinstance(layer, kinds):
            ours += count
        elif count and not isinstance(layer, nn.Embedding):
            others[path] = (count, layer)
    if sum(count for count, _ in others.values()) > ours:
        path, (_, layer) = max(others.items(), key=lambda one: one[1][0])
        raise ValueError(
            f"{name} quantises matrix products, and most of this model is in other layers, such as {path} "
            f"({type(layer).__name__}), which it cannot quantise: export it with --format onnx."
        )
