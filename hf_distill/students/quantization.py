"""A student that learns to be quantised: its linear layers compute as torchao's quantised ones, on float weights.

Knows: which layers, torchao's configurations, transformers' folders. Does not know: trainers, teachers, losses.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from hf_distill.students.prepared_layers import Int8Linear, heads, linear_layers, replace_layers, restore, tied_to
from hf_distill.students.quantized_folder import write_quantized

NAMES: dict[str, dict[str, Any]] = {
    "int8": {"weights": "int8", "activations": "int8"},
    "int8-int4": {"weights": "int4", "activations": "int8"},
    "int4": {"weights": "int4"},
    "float8": {"weights": "float8", "activations": "float8"},
}
"""What a word stands for."""
WEIGHTS = (*(f"int{bits}" for bits in range(2, 9)), "float8")
GROUP = 32
"""How many weights of fewer than 8 bits share a scale, where nobody says it."""


@dataclass(frozen=True)
class StudentQuantization:
    """How the linear layers of a student are quantised, and the three things that are done with it.

    ``prepare`` lets the layers of a float model compute as the quantised ones will; the weights stay float parameters
    with their names, and gradients pass the rounding as if it were not there. ``convert`` quantises a model, prepared
    or not. ``save`` writes a folder that ``from_pretrained`` loads quantised. Weights are rounded to the nearest
    number on a symmetric grid, a scale for each row or group of it; activations for each token, by their own range.

    Args:
        weights: ``int2`` to ``int8``, or ``float8``.
        activations: ``int8``, ``float8`` beside such weights, or None: as they are.
        group_size: how many weights of a row share a scale; None: the whole row.
        skip: the layers that stay as they are, by their names or a part between dots (``classifier``, ``layer.0``).
            None: those that share their weights with another module, the output embeddings and the last module.

    Reference:
        Jacob et al.: Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference,
        arXiv:1712.05877.

    Example:
        >>> StudentQuantization.of("int8-int4")
        StudentQuantization(weights='int4', activations='int8', group_size=32, skip=None)
        >>> StudentQuantization.of({"weights": "int3", "skip": ["lm_head"]}).group_size
        32
    """

    weights: str = "int8"
    activations: str | None = None
    group_size: int | None = None
    skip: tuple[str, ...] | None = None

    @classmethod
    def of(cls, spec: str | Mapping[str, Any]) -> StudentQuantization:
        """Make one of what a user wrote.

        Args:
            spec: ``int8`` (weights and activations), ``int8-int4`` (int8 activations, int4 weights), ``int4``
                (weights alone), ``float8``, or a mapping with ``weights`` and more of this class's own arguments. A
                ``group_size`` that is not named is 32 for weights of fewer than 8 bits.

        Raises:
            ValueError: in one sentence.
        """
        given = NAMES.get(spec) if isinstance(spec, str) else spec
        fields = ("weights", "activations", "group_size", "skip")
        if not isinstance(given, Mapping) or "weights" not in given or set(given) - set(fields):
            raise ValueError(
                f"student_quantization={spec!r} is not known: use {', '.join(NAMES)}, or a mapping with weights and, "
                "if need be, activations, group_size and skip."
            )
        weights, activations, skip = given["weights"], given.get("activations"), given.get("skip")
        if weights not in WEIGHTS or activations not in (None, "float8" if weights == "float8" else "int8"):
            raise ValueError(
                f"student_quantization has weights={weights!r} and activations={activations!r}: use weights of int2 "
                "to int8 with activations of int8 or None, or float8 for both."
            )
        if weights == "float8" and activations is None:
            raise ValueError(
                'student_quantization has weights="float8" alone, which torchao does not train: use float8 for '
                "activations too."
            )
        size = given.get("group_size", None if weights in ("int8", "float8") else GROUP)
        whole = size is None or (isinstance(size, int) and not isinstance(size, bool) and size > 1)
        if not whole or (size is not None and weights == "float8"):
            raise ValueError(
                f"student_quantization has group_size={size!r} for weights={weights!r}: give how many weights share a "
                "scale, such as 32, or null for a whole row, as float8 has it."
            )
        if skip is not None and (isinstance(skip, str) or not all(isinstance(one, str) for one in skip)):
            raise ValueError(
                f"student_quantization has skip={skip!r}: give a list of the names of layers, such as [classifier]."
            )
        return cls(weights, activations, size, None if skip is None else tuple(skip))

    def __str__(self) -> str:
        """Say it in words.

        Example:
            >>> print(StudentQuantization.of("int8-int4"))
            int4 weights in groups of 32, int8 activations
        """
        groups = "" if self.group_size is None else f" in groups of {self.group_size}"
        return f"{self.weights} weights{groups}" + (f", {self.activations} activations" if self.activations else "")

    # ---- Which layers ----

    def layers(self, model: nn.Module) -> list[str]:
        """Name the layers that are quantised.

        Args:
            model: the student; of one that is prepared, the layers that are.

        Raises:
            ValueError: there are none, one cannot be cut into groups, or what is to be skipped is not there.
            ImportError: torchao is not installed.
        """
        need_torchao(self)
        linear = linear_layers(model)
        if prepared := [name for name, layer in linear.items() if type(layer) is not nn.Linear]:
            return prepared
        skip = self.skip if self.skip is not None else heads(model)
        if lost := [one for one in self.skip or () if not any(_within(name, one) for name in linear)]:
            raise ValueError(
                f"student_quantization skips {', '.join(lost)}, which {type(model).__name__} has no linear layer of: "
                f"name layers that are there, such as {', '.join(list(linear)[-3:])}."
            )
        found = [name for name in linear if not any(_within(name, one) for one in skip)]
        if not found:
            raise ValueError(
                f"student_quantization was asked for {type(model).__name__}, which has no linear layer to quantise "
                f"beside {', '.join(skip) or 'others'}: leave it out, or set skip to fewer layers."
            )
        if both := [f"{name} ({other})" for name, other in tied_to(model).items() if name in found]:
            raise ValueError(
                f"student_quantization was asked for {', '.join(both)}, whose weights are those of the module in "
                "brackets too, which stays as it is: name such layers in skip, or untie them."
            )
        size = self.group_size
        if size is not None and (uneven := {n: w for n in found if (w := linear[n].in_features) % size}):
            told = ", ".join(f"{name} ({width})" for name, width in list(uneven.items())[:3])
            more = f" and {len(uneven) - 3} more" if len(uneven) > 3 else ""
            common = math.gcd(size, *uneven.values())
            other = f"set group_size to {common}" if common > 1 else "set group_size to null (a row)"
            raise ValueError(
                f"student_quantization cuts rows of weights into groups of {size}, into which {told}{more} cannot be "
                f"cut: {other}, or name them in skip."
            )
        return found

    # ---- What is done ----

    def prepare(self, model: nn.Module) -> list[str]:
        """Let the layers compute as the quantised ones will, in place; parameters and their names stay.

        Args:
            model: the student; one that was prepared before is prepared anew.

        Returns:
            The names of the layers.

        Raises:
            ValueError: in one sentence.
            ImportError: torchao is not installed.
        """
        self.check(model)
        from torchao.quantization import quantize_
        from torchao.quantization.qat import QATConfig

        layers = self.layers(restore(model))
        if self._multiplies_integers:
            replace_layers(model, layers, Int8Linear)
        else:
            quantize_(model, QATConfig(self.torchao()), lambda module, name: name in layers)
        return layers

    def convert(self, model: nn.Module) -> nn.Module:
        """Quantise a float model in place; one that was prepared gives the same outputs as before, but for rounding.

        Args:
            model: the model, prepared or not.

        Returns:
            The model.
        """
        self.check(model)
        from torchao.quantization import quantize_

        layers = self.layers(model)
        quantize_(restore(model), self.torchao(), lambda module, name: name in layers)
        return model

    def save(self, model: nn.Module, folder: str | Path) -> Path:
        """Write the quantised model beside the float one; ``from_pretrained(folder, subfolder="quantized")`` loads it.

        Args:
            model: the student, for its class and its layers.
            folder: where ``save_pretrained`` has put it; its weights are read from there.

        Returns:
            The folder that was written.
        """
        from torchao.quantization import quantize_

        quantized, layers = type(model).from_pretrained(folder), self.layers(model)
        if self.weights == "float8":  # torchao rounds to it nowhere else
            quantized.to(next(model.parameters()).device)
        quantize_(quantized, self.torchao(), lambda module, name: name in layers)
        return write_quantized(quantized, self.transformers(model), folder)

    def check(self, model: nn.Module) -> None:
        """Refuse what torchao cannot quantise.

        Args:
            model: the student.

        Raises:
            ValueError: in one sentence.
            ImportError: torchao is not installed; the message names the extra that brings it.
        """
        need_torchao(self)
        if hasattr(model, "get_base_model"):
            raise ValueError(
                "student_quantization was asked for a student with an adapter (PEFT), whose weights are not those "
                "that are quantised in the end: merge it first (model.merge_and_unload()), or train without it."
            )
        if method := getattr(model, "quantization_method", None):
            raise ValueError(
                f"student_quantization was asked for a student that is quantised already ({method}): load it in float."
            )
        if any(isinstance(one, DTensor) for one in model.parameters()):
            raise ValueError(
                "student_quantization was asked for a student whose weights lie in pieces (tensor parallelism): load "
                "it whole, and train with DDP or FSDP2."
            )
        device = next((one.device for one in model.parameters()), torch.device("cpu"))
        able = device.type == "cuda" and (torch.version.hip or torch.cuda.get_device_capability(device) >= (8, 9))
        if self.weights == "float8" and not able:
            raise ValueError(
                f'student_quantization="float8" was asked for on {device.type}: it needs a GPU that multiplies float8 '
                "(compute capability 8.9 or more), use int8, or train there."
            )

    # ---- In other libraries' words ----

    def torchao(self) -> Any:
        """Return torchao's configuration, as its ``quantize_`` takes it."""
        from torchao import quantization as ao

        if self.weights == "float8":
            return ao.Float8DynamicActivationFloat8WeightConfig(set_inductor_config=False)
        if self._multiplies_integers:
            return ao.Int8DynamicActivationInt8WeightConfig(set_inductor_config=False)
        dtype = getattr(torch, self.weights)
        grain = ao.PerAxis(0) if self.group_size is None else ao.PerGroup(self.group_size)
        if self.activations is None:
            return ao.IntxWeightOnlyConfig(dtype, grain)
        return ao.Int8DynamicActivationIntxWeightConfig(dtype, grain)

    def transformers(self, model: nn.Module) -> Any:
        """Return transformers' configuration: ``from_pretrained(folder, quantization_config=this)`` quantises.

        Args:
            model: the student, whose other linear layers it names.
        """
        need_torchao(self)
        from transformers import TorchAoConfig

        layers = set(self.layers(model))
        return TorchAoConfig(
            self.torchao(), modules_to_not_convert=[n for n in linear_layers(model) if n not in layers]
        )

    @property
    def _multiplies_integers(self) -> bool:
        """Whether integers are multiplied with integers; elsewhere torchao's layers make weights float first."""
        return (self.weights, self.activations, self.group_size) == ("int8", "int8", None)


def need_torchao(asked: Any) -> None:
    """Refuse to go on without torchao.

    Args:
        asked: what it is needed for.

    Raises:
        ImportError: the message names the extra that brings it.
    """
    if importlib.util.find_spec("torchao") is None:
        raise ImportError(
            f'student_quantization ({asked}) needs torchao, which is not installed: pip install "hf_distill[torchao]".'
        )


def _within(name: str, part: str) -> bool:
    return f".{part}." in f".{name}."
