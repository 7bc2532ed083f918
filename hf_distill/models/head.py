"""What a model does to the output of its head before it calls it logits: measured, not read from a configuration.

Knows: models, and how to run one on two tokens. Does not know: tasks, terms, when logits are made.
"""

from __future__ import annotations

import logging
from contextlib import ExitStack
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from hf_distill.models.encoder import Encoded, encoder_of
from hf_distill.models.linear_logits import LinearLogits, LogitTransform, autocast_on, head_of
from hf_distill.models.texts import DECODER, IDS

logger = logging.getLogger(__name__)

TAILS: WeakKeyDictionary[nn.Module, LogitTransform | None] = WeakKeyDictionary()
"""What was measured of a model, as long as the model lives."""


@torch.no_grad()
def logit_transform(model: nn.Module) -> LogitTransform | None:
    """Measure, once for a model, what it does to its logits after its head, by running it on two tokens.

    The head's output is replaced by constants, and what comes out says how they were scaled, capped and shifted. Then
    the real logits must be those of the head and the tail; a model for which they are not is read whole.

    Args:
        model: a language model, not wrapped or sharded yet.

    Returns:
        The tail; None where the logits cannot be made from what enters the head.

    Example:
        >>> from transformers import Gemma2Config, Gemma2ForCausalLM
        >>> tiny = Gemma2Config(vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=1,
        ...                     num_key_value_heads=1, head_dim=8, intermediate_size=8)
        >>> logit_transform(Gemma2ForCausalLM(tiny))
        LogitTransform(scale=1.0, cap=30.0, bias=None)
    """
    if model in TAILS:
        return TAILS[model]
    TAILS[model], head = None, head_of(model)
    if head is None:
        return None
    core = model.get_base_model() if hasattr(model, "get_base_model") else model
    training = core.training
    try:
        fed = _two_positions(core)
        core.eval()
        with torch.random.fork_rng(devices=[]):
            TAILS[model] = _measured(core, head, fed)
    except Exception as error:  # whatever a model of another kind makes of two tokens, it can still be read whole
        logger.info(
            "the head of %s could not be taken apart (%s): its logits are made whole.", type(core).__name__, error
        )
    finally:
        core.train(training)
    return TAILS[model]


def _two_positions(core: nn.Module) -> dict[str, Any]:
    """Two tokens; for a decoder of what is no text, beside two states of its encoder."""
    first = next(core.parameters())
    ids = torch.zeros(1, 2, dtype=torch.long, device=first.device)
    encoder = encoder_of(core)
    if encoder is None or getattr(core, "main_input_name", IDS) == IDS:
        return {IDS: ids} if encoder is None else {IDS: ids, DECODER + IDS: ids}
    config = getattr(encoder, "config", core.config)
    width = getattr(config, "d_model", None) or config.hidden_size
    dtype = first.dtype if first.is_floating_point() else None
    known = Encoded(last_hidden_state=torch.zeros(1, 2, width, device=first.device, dtype=dtype))
    return {"encoder_outputs": known, DECODER + IDS: ids}


def _measured(core: nn.Module, head: nn.Module, fed: dict[str, Any]) -> LogitTransform | None:
    entered: list[LinearLogits] = []

    def hear(module: nn.Module, given: Any) -> None:
        # A trainer's autocast is inside of the model's forward: what is made out here is to be made in it too.
        entered.append(LinearLogits(given[0], head, autocast=autocast_on(given[0].device.type)))

    with ExitStack() as stack:
        stack.callback(head.register_forward_pre_hook(hear).remove)
        whole = core(**fed).logits.float()
    if len(entered) != 1:
        return None

    def answer(constant: float) -> Tensor:
        def replaced(module: nn.Module, given: Any, output: Tensor) -> Tensor:
            return torch.full_like(output, constant, dtype=torch.float32)

        with ExitStack() as stack:
            stack.callback(head.register_forward_hook(replaced).remove)
            return core(**fed).logits.float()[0, -1]

    with torch.enable_grad():
        bias, small, high, low = (answer(constant) for constant in (0.0, 1e-3, 1e6, -1e6))
    if bias.requires_grad:
        return None  # what comes after the head is trained, and measuring would freeze it
    slope, end = (small - bias).double().mean().item() / 1e-3, (high - low).double().mean().item() / 2
    capped = end < 0.5 * slope * 1e6
    scale = slope if capped else end / 1e6
    scale = 1.0 if abs(scale - 1) < 1e-5 else scale
    tail = LogitTransform(scale, end if capped else None, bias if bias.any() else None)
    (linear,) = entered
    made = LinearLogits(linear.hidden, head, tail, linear.autocast)
    if made.shape != whole.shape:
        return None
    near = 1e-4 if linear.hidden.dtype == torch.float32 and linear.autocast is None else 2e-2
    off = (made.chunk(0, whole[..., 0].numel()).view_as(whole) - whole).abs().max()
    return tail if off <= near * whole.abs().max().clamp(min=1e-6) else None
