"""A model of transformers whose weights torchao has quantised; ``from_pretrained`` loads it again.

Knows: torchao's configurations. Does not know: other runtimes, tokenizers, how models are measured.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn
from transformers.utils import logging

from hf_distill.export.format import Format, check_products
from hf_distill.export.plan import Plan

GROUP = 32


class TorchaoInt8(Format):
    """Weights of eight bits, activations of eight bits that are scaled while it runs."""

    name: ClassVar[str] = "torchao-int8"
    extra: ClassVar[str] = "torchao"
    needs: ClassVar[tuple[str, ...]] = ("torchao",)
    reads: ClassVar[str] = "transformers and torchao"

    @classmethod
    def check(cls, model: nn.Module) -> None:
        """Refuse a model whose products are no ``nn.Linear`` too; see ``Format.check``."""
        super().check(model)
        check_products(model, cls.name, (nn.Linear,))

    @classmethod
    def settings(cls) -> Any:
        """What torchao is asked for."""
        from torchao.quantization import Int8DynamicActivationInt8WeightConfig

        return Int8DynamicActivationInt8WeightConfig()

    @classmethod
    def write(cls, model: nn.Module, plan: Plan, folder: Path) -> None:
        """Write safetensors and a configuration that says how they are quantised; see ``Format.write``."""
        from transformers import TorchAoConfig

        with tempfile.TemporaryDirectory() as plain:
            model.save_pretrained(plain)
            cls._read(model, Path(plain), quantization_config=TorchAoConfig(cls.settings())).save_pretrained(folder)

    @classmethod
    def load(cls, folder: Path, model: nn.Module, plan: Plan) -> nn.Module:
        """Load it as a user does; see ``Format.load``."""
        return cls._read(model, folder)

    @classmethod
    def _read(cls, model: nn.Module, folder: Path, **options: Any) -> nn.Module:
        quiet = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()
        try:
            return type(model).from_pretrained(folder, dtype=torch.float32, **options).eval()
        finally:
            if quiet:
                logging.enable_progress_bar()


class TorchaoInt4(TorchaoInt8):
    """Weights of four bits in groups of 32, which are products of float32 while it runs.

    They are written a byte each, which every processor reads: what is packed two in a byte belongs to one kind of GPU.
    """

    name: ClassVar[str] = "torchao-int4"

    @classmethod
    def check(cls, model: nn.Module) -> None:
        """Refuse a layer that has no whole groups too; see ``Format.check``."""
        super().check(model)
        for path, layer in model.named_modules():
            if isinstance(layer, nn.Linear) and layer.in_features % GROUP:
                raise ValueError(
                    f"{cls.name} quantises weights in groups of {GROUP}, and {path} reads {layer.in_features} "
                    "features, which are no whole groups: export it with --format torchao-int8."
                )

    @classmethod
    def settings(cls) -> Any:
        """What torchao is asked for."""
        from torchao.quantization import IntxWeightOnlyConfig
        from torchao.quantization.granularity import PerGroup

        return IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=PerGroup(GROUP))
