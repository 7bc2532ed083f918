"""Hear what happens inside a model in one call: what its modules give, what its attention makes of its input.

Knows: modules, forward hooks, how projections are called. Does not know: terms, tasks, trainers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from hf_distill.models.encoder import encoder_of
from hf_distill.models.head import logit_transform
from hf_distill.models.linear_logits import LinearLogits, emptied, head_of
from hf_distill.models.vision_tower import STREAM, hear_images

TAP = "tap:"
"""A need that begins with this names a module by its path, as ``model.get_submodule`` does."""
QKV = "qkv"
"""The need for queries, keys and values."""

LINEAR = "linear"
"""The need for what enters the head in place of its logits, which are then not made."""

IMAGES = f"hidden:{STREAM}"
"""The need for the hidden states of a tower that reads images beside a text."""

ENCODED = "encoded"
"""The need for what the encoder of an encoder-decoder returns."""

CAPTURED = (TAP.rstrip(":"), QKV)
"""What a model that is run here can be heard to give, as a teacher says it: any tap is a ``"tap"``."""

SPLIT = {
    "query": ("q_proj", "query", "query_proj", "q_lin", "q", "q_linear", "wq"),
    "key": ("k_proj", "key", "key_proj", "k_lin", "k", "k_linear", "wk"),
    "value": ("v_proj", "value", "value_proj", "v_lin", "v", "v_linear", "wv"),
}
"""What the three projections of an attention are called."""
FUSED = ("c_attn", "Wqkv", "qkv", "qkv_proj", "in_proj")
"""What one projection is called that gives queries, then keys, then values."""
INTERLEAVED = "query_key_value"
"""What one projection is called that gives a query, a key and a value for each head in turn."""
CROSS = re.compile(r"cross|encoder_attn|encdec", re.IGNORECASE)
"""Attention of a decoder to an encoder, which has two rows of tokens."""


class Projected(NamedTuple):
    """What one attention makes of its input, before it turns or scales it.

    Args:
        query: [B, T, width].
        key: [B, T, width of the keys].
        value: [B, T, width of the values].
    """

    query: Tensor
    key: Tensor
    value: Tensor


class Captured(NamedTuple):
    """What was heard in one call.

    Args:
        taps: module path -> its output; of several outputs the first.
        qkv: for each attention, from the first layer up, its queries, keys and values.
        linear: what entered the head, with the head; empty where logits were made.
        encoded: what the encoder returned; empty where nobody asked, or it was not run.
        vision: what the tower of images made of them in each call, see ``hear_images``; None where nobody asked.
    """

    taps: dict[str, Tensor]
    qkv: list[dict[str, Tensor]]
    linear: list[LinearLogits]
    encoded: Sequence[Any] = ()
    vision: list[list[Tensor]] | None = None


@contextmanager
def capture(model: nn.Module, needs: Iterable[str]) -> Iterator[Captured | None]:
    """While open, hear what is needed of one call.

    Args:
        model: the model itself, not its wrapper (DDP, a compiled module); a PEFT model's paths are those of its base.
        needs: ``"tap:<module path>"``, ``"qkv"`` and, of a model whose head can be taken apart (``logit_transform``),
            ``"linear"``, of an encoder-decoder ``"encoded"``; all others are somebody else's.

    Yields:
        What was heard; None where nothing is to be heard.

    Raises:
        ValueError: a path that is not there, or attention whose projections are not found.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
        >>> with capture(model, {"tap:0", "heads"}) as captured:
        ...     _ = model(torch.ones(1, 2))
        >>> captured.taps["0"].shape
        torch.Size([1, 3])
    """
    paths = sorted(need.removeprefix(TAP) for need in needs if need.startswith(TAP))
    if not paths and not {QKV, LINEAR, ENCODED, IMAGES} & set(needs):
        yield None
        return
    core = model.get_base_model() if hasattr(model, "get_base_model") else model
    captured, hooks = Captured({}, [], [], [], [] if IMAGES in needs else None), ExitStack()
    outside = torch.is_grad_enabled()

    def listen(module: nn.Module, keep: Callable[[Tensor], None]) -> None:
        def hook(module: nn.Module, given: Any, output: Any) -> None:
            first = output
            while not isinstance(first, Tensor):
                first = next(iter(first.values() if isinstance(first, dict) else first))
            if outside and not torch.is_grad_enabled():
                raise ValueError(
                    "an objective hears a module whose forward is run without gradients first: set "
                    'gradient_checkpointing_kwargs={"use_reentrant": False}.'
                )
            keep(first)

        hooks.callback(module.register_forward_hook(hook).remove)

    with hooks:
        for path in paths:
            listen(tapped(core, path), lambda output, path=path: captured.taps.__setitem__(path, output))
        if QKV in needs:
            for parts in attentions(core):
                for kind, module in parts.items():
                    listen(module, lambda output, kind=kind: _hear(captured.qkv, kind, output))
        if captured.vision is not None:
            hooks.enter_context(hear_images(core, captured.vision))
        if ENCODED in needs:
            keep = captured.encoded.append
            hooks.callback(encoder_of(core).register_forward_hook(lambda module, given, output: keep(output)).remove)
        if LINEAR in needs:
            hooks.enter_context(emptied(head_of(model), logit_transform(model), captured.linear))
        yield captured


def _hear(qkv: list[dict[str, Tensor]], kind: str, output: Tensor) -> None:
    """Add to the attention that is being heard, or begin the next; layers that share weights are heard one by one."""
    if not qkv or kind in qkv[-1]:
        qkv.append({})
    qkv[-1][kind] = output


def tapped(core: nn.Module, path: str) -> nn.Module:
    """Find a module by its path.

    Args:
        core: the model.
        path: as in ``model.named_modules()``.

    Raises:
        ValueError: there is none.

    Example:
        >>> tapped(nn.Sequential(nn.ReLU()), "0")
        ReLU()
    """
    try:
        return core.get_submodule(path)
    except AttributeError as error:
        there = [name for name, _ in core.named_modules() if name and name.count(".") <= path.count(".")]
        near = ", ".join(there[:12]) + (", ..." if len(there) > 12 else "")
        raise ValueError(
            f"tap:{path} was asked of {type(core).__name__}, which has no module of that path: name one of its "
            f"named_modules() ({near})."
        ) from error


def attentions(core: nn.Module) -> list[dict[str, nn.Module]]:
    """Find the projections of each attention of a model to itself, from the first layer up.

    Of a model with a decoder these are the decoder's; attention to the encoder is none of them. Of a model of texts
    and images they are those of the text.

    Args:
        core: a transformers model.

    Returns:
        For each attention, kind -> module: ``query``, ``key`` and ``value``, or one that gives all three.

    Raises:
        ValueError: there are none that are known.

    Example:
        >>> from transformers import BertConfig, BertModel
        >>> tiny = BertConfig(hidden_size=8, num_hidden_layers=2, num_attention_heads=1, intermediate_size=8)
        >>> [sorted(parts) for parts in attentions(BertModel(tiny))]
        [['key', 'query', 'value'], ['key', 'query', 'value']]
    """
    config, found = getattr(core, "config", None), []
    heads = hasattr(config, "get_text_config") and hasattr(config.get_text_config(), "num_attention_heads")
    decoder = core.get_decoder() if getattr(config, "is_encoder_decoder", False) else _text_part(core)
    for path, module in decoder.named_modules() if heads else ():
        if CROSS.search(path):
            continue
        children = dict(module.named_children())
        split = {kind: children[name] for kind, names in SPLIT.items() for name in names if name in children}
        fused = [children[name] for name in FUSED if name in children]
        if len(split) == 3:
            found.append(split)
        elif fused:
            found.append({"fused": fused[0]})
        elif INTERLEAVED in children:
            found.append({"interleaved": children[INTERLEAVED]})
    if not found:
        raise ValueError(
            f"queries, keys and values were asked of {type(core).__name__}, in which no projections of a known name "
            f"were found ({', '.join((*SPLIT['query'], *FUSED, INTERLEAVED))}): use a term on hidden states."
        )
    return found


def _text_part(core: nn.Module) -> nn.Module:
    """The part of a model that reads the text; the model itself where that is all that it has."""
    config = getattr(core, "config", None)
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    if text is config:
        return core
    parts = (part for part in core.modules() if type(getattr(part, "config", None)) is type(text))
    return next(parts, core)


def taken_apart(core: nn.Module, captured: list[dict[str, Tensor]]) -> tuple[Projected, ...]:
    """Give what was heard of each attention the same form.

    Args:
        core: the model.
        captured: as ``Captured.qkv``.

    Returns:
        For each attention its queries, keys and values.

    Raises:
        ValueError: a fused projection whose width is not that of the model's heads.

    Example:
        >>> captured = [dict.fromkeys(("query", "key", "value"), torch.ones(1, 2, 4))]
        >>> taken_apart(nn.Identity(), captured)[0].key.shape
        torch.Size([1, 2, 4])
    """
    return tuple(_three(core, parts) for parts in captured)


def _three(core: nn.Module, parts: dict[str, Tensor]) -> Projected:
    if "query" in parts:
        return Projected(parts["query"], parts["key"], parts["value"])
    config = core.config.get_text_config()
    heads = config.num_attention_heads
    kv = getattr(config, "num_key_value_heads", None) or heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    ((kind, whole),) = parts.items()
    if whole.shape[-1] != (heads + 2 * kv) * size or (kind == "interleaved" and kv != heads):
        raise ValueError(
            f"queries, keys and values were asked of {type(core).__name__}, whose one projection is "
            f"{whole.shape[-1]} wide where {heads} heads and {kv} for keys and values of {size} would give "
            f"{(heads + 2 * kv) * size}: use a term on hidden states."
        )
    if kind == "interleaved":
        whole = whole.unflatten(-1, (heads, 3, size)).transpose(-3, -2).flatten(-3)
    return Projected(*whole.split([heads * size, kv * size, kv * size], dim=-1))
