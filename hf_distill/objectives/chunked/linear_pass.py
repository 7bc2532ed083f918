"""The losses of a head and their gradient in one pass: each chunk of logits is compared and becomes its gradient.

Knows: heads, the parts of a loss as functions of a chunk, what each will be multiplied by. Does not know: signals,
terms, which rows count, trainers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from hf_distill.models.linear_logits import LinearLogits, LogitTransform, is_plain
from hf_distill.objectives.chunked.compiled import Compiled

BLOCK_ELEMENTS = 2**19
"""How many logits a CPU compares at once: their temporaries stay in its cache, which is three times faster."""
LARGE = 2**24
"""A chunk of so many logits on a GPU is worth a compiler: there passes over memory are what takes the time."""


class Part(NamedTuple):
    """What one term makes of some rows.

    Args:
        compare: the student's rows [n, V], and what is told of them -> what each costs [n].
        pick: how the term sees the student's rows.
        told: the first row and the one after the last -> the teacher's rows, labels, as the term takes them.
    """

    compare: Callable[..., Tensor]
    pick: Callable[[Tensor], Tensor]
    told: Callable[[int, int], list[Any]]

    def cost(self, rows: Tensor, told: list[Any]) -> Tensor:
        """Return the sum of what rows cost, a scalar."""
        return self.compare(self.pick(rows), *told).sum()


def totals_of(ours: LinearLogits, parts: Mapping[str, Part], size: int, shares: Tensor) -> list[Tensor]:
    """Add up what each part makes of all rows of a head.

    Args:
        ours: what enters the head [n, H], and the head.
        parts: name -> what is made of a chunk.
        size: how many rows a chunk has.
        shares: float32 [parts], what each total is multiplied by in the loss.

    Returns:
        A total for each part, whose gradients are known already; see ``_Pass``.
    """
    trained = [parameter for parameter in ours.head.parameters() if parameter.requires_grad]
    if is_plain(ours.head):
        trained = [ours.head.weight, *([] if ours.head.bias is None else [ours.head.bias])]
    return list(_Pass.apply(ours, list(parts.values()), size, shares, ours.hidden, *trained))


class _Pass(torch.autograd.Function):
    """Totals of all parts, with the gradient of their weighed sum taken chunk by chunk.

    What comes back in the backward is the shares again, all times one factor (the scale of a loss, a mean over ranks).
    It must be: a gradient of the parts one by one is not there any more. Anything else gives NaN.
    """

    @staticmethod
    def forward(
        ctx: Any, ours: LinearLogits, parts: list[Part], size: int, shares: Tensor, hidden: Tensor, *trained: Tensor
    ) -> tuple[Tensor, ...]:
        largest = shares.abs().max()
        shares = shares / torch.where(largest > 0, largest, 1.0)  # near 1, so that float16 does not lose its gradient
        wanted = ctx.needs_input_grad[5:]
        into = [torch.zeros_like(p, dtype=torch.float32) if w else None for p, w in zip(trained, wanted, strict=True)]
        to_hidden, totals = torch.zeros_like(hidden), torch.zeros(len(parts), device=hidden.device)
        apply = _plain if is_plain(ours.head) else _called
        for start in range(0, len(hidden), size):
            at = slice(start, min(start + size, len(hidden)))
            with ours.precision():
                logits, finish = apply(ours.head, hidden[at].detach(), trained, into)
            totals += _costs(logits, ours.tail, parts, shares, start)  # and in place of the logits their gradient
            to_hidden[at] = finish(logits)
        kept = [None if one is None else one.to(p.dtype) for one, p in zip(into, trained, strict=True)]
        ctx.save_for_backward(shares, to_hidden, *(one for one in kept if one is not None))
        ctx.there, ctx.spent = [one is not None for one in kept], False
        return tuple(totals.unbind())

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.spent:
            raise RuntimeError("the gradient of a head was asked for twice: retain_graph cannot be used with it.")
        ctx.spent = True
        shares, to_hidden, *kept = ctx.saved_tensors
        came = torch.stack([grad.float() for grad in grads])
        factor = (came * shares).sum() / shares.square().sum().clamp(min=1e-30)
        off = (came - factor * shares).abs().max() > 1e-4 * came.abs().max()
        factor = torch.where(off, torch.nan, factor)
        rest = iter(kept)
        # In place: it is read once, and a second copy of a head's gradient is what this file exists to spare.
        return (
            None,
            None,
            None,
            None,
            to_hidden.mul_(factor),
            *(next(rest).mul_(factor) if t else None for t in ctx.there),
        )


def _costs(logits: Tensor, tail: LogitTransform, parts: list[Part], shares: Tensor, start: int) -> Tensor:
    """Return what each part of a chunk costs, and put the gradient of their weighed sum where the logits were."""
    rows, classes = logits.shape
    size = max(1, BLOCK_ELEMENTS // classes) if logits.device.type == "cpu" else rows
    totals = torch.zeros(len(parts), device=logits.device)
    for first in range(0, rows, size):
        block = logits[first : first + size]
        told = [part.told(start + first, start + first + len(block)) for part in parts]
        use = _WEIGHED if _is_large(block) else _WEIGHED.as_it_is
        gradient, costs = use(_differentiated, block, tail, parts, told, shares)
        block.copy_(gradient)
        totals += costs
    return totals


def _is_large(block: Tensor) -> bool:
    return block.is_cuda and block.numel() >= LARGE


def _weighed(
    leaf: Tensor, tail: LogitTransform, parts: list[Part], told: list[list[Any]], shares: Tensor
) -> tuple[Tensor, Tensor]:
    seen = tail(leaf.float())
    costs = torch.stack([part.cost(seen, given) for part, given in zip(parts, told, strict=True)])
    return (costs * shares).sum(), costs


_WEIGHED = Compiled(_weighed)


def _differentiated(weighed: Callable[..., tuple[Tensor, Tensor]], block: Tensor, *told: Any) -> tuple[Tensor, Tensor]:
    leaf = block.detach().requires_grad_()
    with torch.enable_grad():
        loss, costs = weighed(leaf, *told)
        (gradient,) = torch.autograd.grad(loss, leaf)
    return gradient, costs.detach()


def _plain(
    head: nn.Linear, rows: Tensor, trained: Sequence[Tensor], into: Sequence[Tensor | None]
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Make a chunk of logits with a weight, and say what their gradient is to be turned into."""
    kind = rows.device.type
    weight = trained[0].detach()
    weight = weight.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else weight
    rows = rows.to(weight.dtype)
    logits = rows @ weight.t()
    if len(trained) > 1:
        logits += trained[1].detach()

    def finish(gradient: Tensor) -> Tensor:
        if into[0] is not None and gradient.dtype == into[0].dtype:
            into[0].addmm_(gradient.t(), rows)  # without a second tensor of the size of a head
        elif into[0] is not None:
            _add_product(into[0], gradient.t(), rows)
        if len(into) > 1 and into[1] is not None:
            into[1] += gradient.float().sum(dim=0)
        return gradient @ weight

    return logits, finish


def _add_product(into: Tensor, one: Tensor, other: Tensor) -> None:
    """Add a product of two narrow matrices to a float32 one; on a GPU without a narrow copy of it in between."""
    if into.is_cuda and torch.version.hip is None and hasattr(torch.ops.aten.addmm, "dtype_out"):
        torch.addmm(into, one, other, out_dtype=into.dtype, out=into)
    else:
        into += one @ other


def _called(
    head: nn.Module, rows: Tensor, trained: Sequence[Tensor], into: Sequence[Tensor | None]
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Make a chunk of logits by calling the head, such as one with an adapter; see ``_plain``."""
    rows = rows.requires_grad_()
    with torch.enable_grad():
        made = head(rows)

    def finish(gradient: Tensor) -> Tensor:
        to_rows, *others = torch.autograd.grad(made, [rows, *trained], gradient.to(made.dtype))
        for kept, one in zip(into, others, strict=True):
            kept += one
        return to_rows

    return made.detach().clone(), finish
