"""Linear layers that compute as quantised ones while their weights are float parameters, and which layers these are.

Knows: modules, torchao's digits. Does not know: what a user asked for, folders, trainers.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Int8Linear(nn.Linear):
    """A prepared layer of int8 weights and activations: it sums integers, kept as floats, as torchao's kernel does.

    Integers of such a sum are exact in float32 wherever it stays below 2**24, so that the converted layer gives the
    same digits, whatever is summed first. torchao's own module rounds and sums floats instead, and where a token's
    largest value lies half-way between two integers, as it does by definition, the last digit decides between them.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Multiply.

        Args:
            x: [..., in_features].

        Returns:
            [..., out_features].
        """
        (rows, row_scale), (tokens, token_scale) = _in_int8(self.weight), _in_int8(x)
        sums = F.linear(tokens, rows)
        y = sums * token_scale * row_scale.flatten()
        return (y if self.bias is None else y + self.bias).to(sums.dtype)


class _Straight(torch.autograd.Function):
    """Shows integers, and lets the gradient pass to what was divided by the scale and rounded to them."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, integers: Tensor, scale: Tensor) -> Tensor:
        ctx.save_for_backward(scale)
        return integers

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (scale,) = ctx.saved_tensors
        return gradient / scale, None, None


def _in_int8(x: Tensor) -> tuple[Tensor, Tensor]:
    """Round each row of [..., width] by its largest value, in torchao's digits: integers in the dtype of x, scales."""
    from torchao.quantization.quant_primitives import MappingType, choose_qparams_affine, quantize_affine

    block, least, fixed = [*(1 for _ in x.shape[:-1]), x.shape[-1]], torch.finfo(torch.float32).eps, x.detach()
    kinds = {"scale_dtype": torch.float32, "zero_point_dtype": torch.int8, "keepdim": True}
    scale, zero = choose_qparams_affine(fixed, MappingType.SYMMETRIC, block, torch.int8, -128, 127, least, **kinds)
    integers = quantize_affine(fixed, block, scale, zero, torch.int8, -128, 127)
    return _Straight.apply(x, integers.to(x.dtype), scale), scale


def restore(model: nn.Module) -> nn.Module:
    """Put plain linear layers in the place of prepared ones; the parameters stay.

    Args:
        model: the student, prepared or not.

    Returns:
        The model.
    """
    replace_layers(
        model, [name for name, layer in linear_layers(model).items() if type(layer) is not nn.Linear], nn.Linear
    )
    return model


def replace_layers(model: nn.Module, layers: Iterable[str], kind: type[nn.Linear]) -> None:
    """Put layers of another class in the place of linear ones, in place; the parameters stay.

    Args:
        model: the student.
        layers: their names.
        kind: the class.
    """
    for name in layers:
        old = model.get_submodule(name)
        new = kind(old.in_features, old.out_features, old.bias is not None, device="meta")
        new.weight, new.bias = old.weight, old.bias
        model.set_submodule(name, new.train(old.training))


def linear_layers(model: nn.Module) -> dict[str, nn.Linear]:
    """Find the linear layers, plain or prepared; those whose weights others read are of classes of their own.

    Args:
        model: the student.

    Returns:
        name -> layer.
    """
    from torchao.quantization.qat import FakeQuantizedLinear

    kinds = (nn.Linear, Int8Linear, FakeQuantizedLinear)
    return {name: module for name, module in model.named_modules() if type(module) in kinds}


def heads(model: nn.Module) -> list[str]:
    """Name what stays float by default, which is what transformers leaves: tied layers, output embeddings, the last.

    Args:
        model: the student.
    """
    last = list(model.named_parameters(remove_duplicate=False))[-1][0].rpartition(".")[0]
    out = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    return sorted(
        {*tied_to(model), last, *(n for n, module in model.named_modules() if out is not None and module is out)}
    )


def tied_to(model: nn.Module) -> dict[str, str]:
    """Find the modules that share a parameter with another one.

    Args:
        model: the student.

    Returns:
        name -> one of the others.
    """
    owners: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        owners.setdefault(id(parameter), []).append(name.rpartition(".")[0])
    return {
        name: next(n for n in names if n != name) for names in owners.values() for name in names if len({*names}) > 1
    }
