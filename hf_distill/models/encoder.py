"""The encoder of an encoder-decoder: where it is, whether it draws at random, whether two of them are the same one.

Knows: modules, their tensors and plain attributes. Does not know: teachers, students, what an encoder reads.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput

from hf_distill.models.outputs import core_of

PLAIN = (bool, int, float, str, tuple, torch.dtype)
"""Settings that modules keep beside their tensors."""
BESIDE = {"training", "forward", "gradient_checkpointing", "name_or_path"}
"""Attributes of modules that say nothing of what they compute."""


@dataclass
class Encoded(BaseModelOutput):
    """What any encoder of transformers returns; some say too which of their positions are no padding (Moonshine).

    Args:
        attention_mask: int [B, T]; None: all count, or the model knows by itself.
    """

    attention_mask: Tensor | None = None


def encoder_of(model: nn.Module) -> nn.Module | None:
    """Return the encoder of an encoder-decoder; None of any other model.

    Args:
        model: any module; what is inside a compiled or a PEFT model is looked at.

    Example:
        >>> from transformers import BartConfig, BartForConditionalGeneration
        >>> tiny = BartConfig(vocab_size=9, d_model=8, encoder_layers=1, decoder_layers=1, encoder_attention_heads=1,
        ...                   decoder_attention_heads=1, encoder_ffn_dim=8, decoder_ffn_dim=8)
        >>> type(encoder_of(BartForConditionalGeneration(tiny))).__name__, encoder_of(nn.Linear(1, 1))
        ('BartEncoder', None)
    """
    core = core_of(model)
    both = getattr(getattr(core, "config", None), "is_encoder_decoder", False)
    return core.get_encoder() if both and hasattr(core, "get_encoder") else None


def random_part(model: nn.Module) -> str:
    """Say what of a model's encoder is random, or of the batch, as it stands, in training or not; else nothing.

    Args:
        model: an encoder-decoder.

    Returns:
        Such as ``"layers.0.dropout=0.1"``.

    Example:
        >>> from transformers import T5Config, T5ForConditionalGeneration
        >>> tiny = T5Config(vocab_size=9, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
        >>> model = T5ForConditionalGeneration(tiny)
        >>> random_part(model.train()), random_part(model.eval())
        ('block.0.layer.0.SelfAttention.dropout=0.1', '')
    """
    core, encoder = core_of(model), encoder_of(model)
    if core.training and getattr(core.config, "apply_spec_augment", False):
        masks = ((name, getattr(core.config, name, 0)) for name in ("mask_time_prob", "mask_feature_prob"))
        if told := next((f"{name}={share:g}" for name, share in masks if share), ""):
            return told
    read = getattr(encoder, "config", core.config)  # some layers look it up in their forward
    shared = {name: getattr(read, name, 0) for name in ("attention_dropout", "layerdrop")}
    for path, module in encoder.named_modules():
        drops = {name: value for name, value in vars(module).items() if "drop" in name}
        if isinstance(module, nn.modules.dropout._DropoutNd):
            drops = {"p": module.p}
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training:
            return f"{path} takes means over the batch"
        for name, value in {**drops, **shared}.items() if module.training else ():
            if isinstance(value, float) and value > 0:
                return ".".join(filter(None, (path, f"{name}={value:g}")))
    return ""


def difference(one: nn.Module, other: nn.Module) -> str:
    """Say in what two encoders differ; empty where they compute the same of the same.

    Args:
        one: an encoder.
        other: another one, or the same.

    Returns:
        Such as ``"its layers.0.fc1.weight has other values"``.

    Example:
        >>> layer, wider = nn.Linear(2, 2), nn.Linear(2, 3)
        >>> difference(layer, layer), difference(nn.LayerNorm(2), nn.LayerNorm(2, eps=0.1))
        ('', 'it has other settings (eps)')
        >>> difference(layer, wider)
        'it has other settings (out_features)'
    """
    if one is other:
        return ""
    ours, theirs = _settings(one), _settings(other)
    if ours != theirs:
        wrong = sorted(name for name in {*ours, *theirs} if ours.get(name) != theirs.get(name))
        return f"it has other settings ({wrong[0]})"
    ours, theirs = _tensors(one), _tensors(other)
    if ours.keys() != theirs.keys():
        return f"it has other tensors ({min(ours.keys() ^ theirs.keys())})"
    for name, tensor in ours.items():
        if tensor.dtype != theirs[name].dtype:
            return f"its {name} is {tensor.dtype}, the other's {theirs[name].dtype}"
        if not torch.equal(tensor, theirs[name].to(tensor.device)):
            return f"its {name} has other values"
    return ""


def _tensors(encoder: nn.Module) -> dict[str, Tensor]:
    named = (*encoder.named_parameters(remove_duplicate=False), *encoder.named_buffers(remove_duplicate=False))
    return {name: tensor.detach() for name, tensor in named}


def _settings(encoder: nn.Module) -> dict[str, Any]:
    """What is not in a tensor: which modules there are, their numbers, the functions that they call."""
    found = {"attention": getattr(getattr(encoder, "config", None), "_attn_implementation", None)}
    for path, module in encoder.named_modules():
        prefix = f"{path}." if path else ""
        found[prefix + "class"] = type(module).__name__
        for name, value in vars(module).items():
            if name.startswith("_") or name in BESIDE or "drop" in name:
                continue
            if inspect.isroutine(value):
                found[prefix + name] = getattr(value, "__qualname__", "")
            elif isinstance(value, PLAIN) and not isinstance(module, nn.modules.dropout._DropoutNd):
                found[prefix + name] = value
    return found
