"""Logits that are never whole: what enters a model's head, and the head; the second form of logits.

Knows: output embeddings, and what a model does to its logits after them. Does not know: terms, tasks, labels.

A vocabulary of 150,000 words makes the logits of 4,096 tokens 2.3 GiB in float32, and a divergence holds several such
tensors. What enters the head is a hundred times smaller, and a chunk of logits is made where it is read.
"""

from __future__ import annotations

import logging
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Iterator

logger = logging.getLogger(__name__)

TAILS: WeakKeyDictionary[nn.Module, Tail | None] = WeakKeyDictionary()
"""What was measured of a model, as long as the model lives."""


class Tail(NamedTuple):
    """What a model does to the output of its head before it calls it logits: ``cap * tanh(scale * x / cap) + bias``.

    Args:
        scale: a factor: Cohere's ``logit_scale``, the inverse of Granite's ``logits_scaling``.
        cap: the soft cap of Gemma; None: there is none.
        bias: float32 [V], added last: Bart's ``final_logits_bias``; None: there is none. A bias of the head itself is
            the head's.

    Example:
        >>> Tail(scale=0.5, cap=1.0)(torch.tensor([0.0, 2.0, 200.0]))
        tensor([0.0000, 0.7616, 1.0000])
    """

    scale: float = 1.0
    cap: float | None = None
    bias: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """Return logits [..., V] of what the head gave."""
        x = x if self.scale == 1.0 else x * self.scale
        x = x if self.cap is None else self.cap * torch.tanh(x / self.cap)
        return x if self.bias is None else x + self.bias.to(x.device)


class LinearLogits:
    """Logits as what enters a head, the head, and what comes after it.

    Args:
        hidden: [..., H], what enters the head.
        head: the head: ``nn.Linear``, or any module that maps [n, H] to [n, V], such as one with an adapter.
        tail: what comes after it.

    Example:
        >>> head = nn.Linear(2, 3, bias=False)
        >>> _ = head.weight.data.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))
        >>> logits = LinearLogits(torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]), head, Tail(scale=2.0))
        >>> logits.shape, logits.select(torch.tensor([[False, True]])).chunk(0, 1).tolist()
        (torch.Size([1, 2, 3]), [[6.0, 8.0, 14.0]])
    """

    def __init__(self, hidden: Tensor, head: nn.Module, tail: Tail = Tail()) -> None:  # noqa: B008 - immutable
        self.hidden, self.head, self.tail = hidden, head, tail

    @property
    def shape(self) -> torch.Size:
        """The leading shape, then the number of classes V."""
        return torch.Size((*self.hidden.shape[:-1], classes_of(self.head)))

    def select(self, rows: Tensor) -> LinearLogits:
        """Keep the rows where ``rows`` (bool, the leading shape) is true: [n, V]."""
        return LinearLogits(self.hidden[rows.to(self.hidden.device)], self.head, self.tail)

    def last(self, positions: int) -> LinearLogits:
        """Keep the last positions of each row [B, T, V]."""
        return LinearLogits(self.hidden[:, -positions:], self.head, self.tail)

    def chunk(self, start: int, stop: int) -> Tensor:
        """Return rows ``start:stop`` of the flattened leading shape as float32 [stop - start, V]."""
        return self.tail(project(self.head, self.hidden.flatten(0, -2)[start:stop]).float())

    def finite(self) -> Tensor:
        """Return for each row (bool, the leading shape) whether what enters the head is neither infinity nor NaN."""
        return self.hidden.isfinite().all(dim=-1)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> LinearLogits:
        """Return the same: a head that lies on another device makes its chunks there."""
        return self


def is_plain(head: nn.Module) -> bool:
    """Say whether a head is nothing but its weight and its bias.

    Args:
        head: the head; a quantised one, and one with an adapter, is more.

    Example:
        >>> is_plain(nn.Linear(1, 2)), is_plain(nn.Sequential(nn.Linear(1, 2)))
        (True, False)
    """
    return isinstance(head, nn.Linear) and type(head).forward is nn.Linear.forward


def project(head: nn.Module, hidden: Tensor) -> Tensor:
    """Call a head on some rows: a plain one by its weight, because FSDP2 cannot call a module twice in a forward.

    Args:
        head: the head.
        hidden: [n, H].

    Returns:
        [n, V].
    """
    if is_plain(head):
        return F.linear(hidden.to(head.weight.dtype), head.weight, head.bias)
    return head(hidden)


def classes_of(head: nn.Module) -> int:
    """Return V, how many classes a head has.

    Args:
        head: ``nn.Linear``, or a module around one that knows its ``out_features``.
    """
    if not is_plain(head):
        return head.out_features
    return getattr(head.weight, "ds_shape", head.weight.shape)[0]  # ZeRO-3 leaves a share of no shape


def head_of(model: nn.Module) -> nn.Module | None:
    """Find the last module before the logits; None where a model names none.

    Args:
        model: the model itself; a PEFT model's is that of its base, with its adapter.

    Example:
        >>> head_of(nn.Linear(1, 1)) is None
        True
    """
    core = model.get_base_model() if hasattr(model, "get_base_model") else model
    head = core.get_output_embeddings() if hasattr(core, "get_output_embeddings") else None
    return head if head is not None and (is_plain(head) or hasattr(head, "out_features")) else None


@torch.no_grad()
def tail_of(model: nn.Module) -> Tail | None:
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
        >>> tail_of(Gemma2ForCausalLM(tiny))
        Tail(scale=1.0, cap=30.0, bias=None)
    """
    if model in TAILS:
        return TAILS[model]
    TAILS[model], head = None, head_of(model)
    if head is None:
        return None
    core = model.get_base_model() if hasattr(model, "get_base_model") else model
    ids = torch.zeros(1, 2, dtype=torch.long, device=next(model.parameters()).device)
    fed = {
        "input_ids": ids,
        **({"decoder_input_ids": ids} if getattr(core.config, "is_encoder_decoder", False) else {}),
    }
    training = core.training
    try:
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


def _measured(core: nn.Module, head: nn.Module, fed: dict[str, Tensor]) -> Tail | None:
    entered: list[Tensor] = []
    with ExitStack() as stack:
        stack.callback(head.register_forward_pre_hook(lambda module, given: entered.append(given[0])).remove)
        whole = core(**fed).logits.float()
    if len(entered) != 1:
        return None

    def answer(constant: float) -> Tensor:
        def replaced(module: nn.Module, given: Any, output: Tensor) -> Tensor:
            return torch.full_like(output, constant, dtype=torch.float32)

        with ExitStack() as stack:
            stack.callback(head.register_forward_hook(replaced).remove)
            return core(**fed).logits.float()[0, -1]

    bias, small, high, low = (answer(constant) for constant in (0.0, 1e-3, 1e6, -1e6))
    slope, end = (small - bias).double().mean().item() / 1e-3, (high - low).double().mean().item() / 2
    capped = end < 0.5 * slope * 1e6
    scale = slope if capped else end / 1e6
    scale = 1.0 if abs(scale - 1) < 1e-5 else scale
    tail = Tail(scale, end if capped else None, bias if bias.any() else None)
    made = tail(project(head, entered[0]).float())
    near = 1e-4 if whole.dtype == made.dtype and entered[0].dtype == torch.float32 else 2e-2
    same = made.shape == whole.shape and (made - whole).abs().max() <= near * whole.abs().max().clamp(min=1e-6)
    return tail if same else None


@contextmanager
def emptied(head: nn.Module, tail: Tail, heard: list[LinearLogits]) -> Iterator[None]:
    """Keep what enters a head the next time, and let no row of it enter: no logits are made.

    Args:
        head: the head.
        tail: what comes after it.
        heard: the logits that would have been made are added here, [..., T, V].

    Example:
        >>> head, heard = nn.Linear(2, 3), []
        >>> with emptied(head, Tail(), heard):
        ...     head(torch.ones(1, 4, 2)).shape
        torch.Size([1, 0, 3])
        >>> heard[0].shape
        torch.Size([1, 4, 3])
    """

    def hear(module: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        hook.remove()  # afterwards the head is called to make the chunks
        heard.append(LinearLogits(given[0], head, tail))
        return (given[0][..., :0, :], *given[1:])

    hook = head.register_forward_pre_hook(hear)
    try:
        yield
    finally:
        hook.remove()
