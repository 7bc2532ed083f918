"""Logits that are never whole: what enters a model's head, and the head; the second form of logits.

Knows: output embeddings, and what comes after them. Does not know: how that was found out, terms, tasks, labels.

A vocabulary of 150,000 words makes the logits of 4,096 tokens 2.3 GiB in float32, and a divergence holds several such
tensors. What enters the head is a hundred times smaller, and a chunk of logits is made where it is read.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Iterator


class LogitTransform(NamedTuple):
    """What a model does to the output of its head before it calls it logits: ``cap * tanh(scale * x / cap) + bias``.

    Args:
        scale: a factor: Cohere's ``logit_scale``, the inverse of Granite's ``logits_scaling``.
        cap: the soft cap of Gemma; None: there is none.
        bias: float32 [V], added last: Bart's ``final_logits_bias``; None: there is none. A bias of the head itself is
            the head's.

    Example:
        >>> LogitTransform(scale=0.5, cap=1.0)(torch.tensor([0.0, 2.0, 200.0]))
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
        autocast: the precision in which the head was called; None: without autocast. Chunks are made in it, whoever
            reads them: a teacher's logits must not take the precision of the student's context.

    Example:
        >>> head = nn.Linear(2, 3, bias=False)
        >>> _ = head.weight.data.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))
        >>> logits = LinearLogits(torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]), head, LogitTransform(scale=2.0))
        >>> logits.shape, logits.select(torch.tensor([[False, True]])).chunk(0, 1).tolist()
        (torch.Size([1, 2, 3]), [[6.0, 8.0, 14.0]])
    """

    def __init__(
        self,
        hidden: Tensor,
        head: nn.Module,
        tail: LogitTransform = LogitTransform(),  # noqa: B008 - immutable
        autocast: torch.dtype | None = None,
    ) -> None:
        self.hidden, self.head, self.tail, self.autocast = hidden, head, tail, autocast

    @property
    def shape(self) -> torch.Size:
        """The leading shape, then the number of classes V."""
        return torch.Size((*self.hidden.shape[:-1], classes_of(self.head)))

    def select(self, rows: Tensor) -> LinearLogits:
        """Keep the rows where ``rows`` (bool, the leading shape) is true: [n, V]."""
        return LinearLogits(self.hidden[rows.to(self.hidden.device)], self.head, self.tail, self.autocast)

    def last(self, positions: int) -> LinearLogits:
        """Keep the last positions of each row [B, T, V]."""
        return LinearLogits(self.hidden[:, -positions:], self.head, self.tail, self.autocast)

    def chunk(self, start: int, stop: int) -> Tensor:
        """Return rows ``start:stop`` of the flattened leading shape as float32 [stop - start, V]."""
        with self.precision():
            made = project(self.head, self.hidden.flatten(0, -2)[start:stop])
        return self.tail(made.float())

    def precision(self) -> torch.autocast:
        """Make the context in which the head is called."""
        on = self.autocast is not None
        return torch.autocast(self.hidden.device.type, dtype=self.autocast if on else torch.bfloat16, enabled=on)

    def finite(self) -> Tensor:
        """Return for each row (bool, the leading shape) whether what enters the head is neither infinity nor NaN."""
        return self.hidden.isfinite().all(dim=-1)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> LinearLogits:
        """Return the same: a head that lies on another device makes its chunks there."""
        return self


def autocast_on(kind: str) -> torch.dtype | None:
    """Return the precision that autocast gives on a kind of device here and now; None: there is none.

    Args:
        kind: such as ``"cuda"``.

    Example:
        >>> with torch.autocast("cpu", torch.bfloat16):
        ...     autocast_on("cpu")
        torch.bfloat16
    """
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None


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
        return F.linear(hidden.to(head.weight.dtype), head.weight, head.bias)  # autocast goes before either dtype
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


@contextmanager
def emptied(head: nn.Module, tail: LogitTransform, captured: list[LinearLogits]) -> Iterator[None]:
    """Keep what enters a head the next time, and let no row of it enter: no logits are made.

    Args:
        head: the head.
        tail: what comes after it.
        captured: the logits that would have been made are added here, [..., T, V].

    Example:
        >>> head, captured = nn.Linear(2, 3), []
        >>> with emptied(head, LogitTransform(), captured):
        ...     head(torch.ones(1, 4, 2)).shape
        torch.Size([1, 0, 3])
        >>> captured[0].shape
        torch.Size([1, 4, 3])
    """

    def hear(module: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        hook.remove()  # afterwards the head is called to make the chunks
        captured.append(LinearLogits(given[0], head, tail, autocast_on(given[0].device.type)))
        return (given[0][..., :0, :], *given[1:])

    hook = head.register_forward_pre_hook(hear)
    try:
        yield
    finally:
        hook.remove()
