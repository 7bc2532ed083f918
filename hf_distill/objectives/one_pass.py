"""One pass over the rows of a head for all that is computed from it: each chunk of logits is made once.

Knows: heads, how their logits are held, what each part of the loss will be multiplied by. Does not know: tasks, alpha,
trainers.

A chunk of linear logits is made, compared, turned into its gradient and forgotten. So that this needs no second pass
in the backward, the gradient is taken in the forward, of the sum of all parts, each times its share of the loss;
shares are known before, because an optimizer step is counted before its first forward.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hf_distill.linear import LinearLogits, is_plain
from hf_distill.signals import Head, Logits, Signals, Sum

if TYPE_CHECKING:
    from hf_distill.objectives.logits import LogitTerm

CHUNK_ELEMENTS = 2**24
"""How many float32 logits a chunk holds at most: 64 MiB, the size at which temporaries stop mattering."""

Part = Callable[[Tensor, int, int], Tensor]
"""A chunk of the student's logits [n, V], its first row and the row after its last -> the sum of what they cost."""


def compared(
    asked: Mapping[str, tuple[LogitTerm, Signals | None]], student: Signals, shares: Mapping[str, Tensor] | None = None
) -> dict[str, Sum]:
    """Add up what each term makes of every row that counts in every head.

    Args:
        asked: name -> the term, and the teacher that it listens to; None: it reads the labels only.
        student: what the student shows.
        shares: name -> scalar, what the total is multiplied by in the loss. With it linear logits are gone through
            once; without it their chunks are kept for the backward.

    Returns:
        name -> the total with its graph, and how many rows there were.
    """
    totals: dict[str, list[Tensor]] = {name: [] for name in asked}
    count = 0
    for name, head in student.heads.items():
        ours = head.logits.select(head.rows)
        rows, classes = ours.shape
        size = max(1, CHUNK_ELEMENTS // max(1, classes))
        once: dict[int, _Once] = {}
        parts = {
            key: _part(term, head, None if teacher is None else _once(teacher.heads[name], head, once))
            for key, (term, teacher) in asked.items()
        }
        chunks = [(start, min(start + size, max(1, rows))) for start in range(0, max(1, rows), size)]
        if isinstance(ours, LinearLogits) and shares is not None and torch.is_grad_enabled() and rows:
            found = _linear(ours, parts, chunks, torch.stack([shares[key].float() for key in parts]))
        else:  # once also where no row counts: a zero needs its graph
            each = [[part(chunk, *at) for part in parts.values()] for at in chunks for chunk in [ours.chunk(*at)]]
            found = [torch.stack(one).sum() for one in zip(*each, strict=True)]
        for key, total in zip(parts, found, strict=True):
            totals[key].append(total)
        count += rows
    return {
        key: Sum(torch.stack(found).sum(), torch.tensor(count, device=found[0].device))
        for key, found in totals.items()
    }


def _part(term: LogitTerm, head: Head, theirs: _Once | None) -> Part:
    if theirs is not None and theirs.few:
        term.check_few(theirs.logits.temperature)

    def part(chunk: Tensor, start: int, stop: int) -> Tensor:
        given = [] if theirs is None else [theirs(start, stop).to(chunk.device)]
        if term.labelled:
            given.append(head.labelled(start, stop))
        compare = term.divergence_from_few if theirs is not None and theirs.few else term.divergence
        return compare(chunk, *given).sum()

    return part


class _Once:
    """A teacher's rows, whose chunk is made once for all terms that listen to it."""

    def __init__(self, logits: Logits) -> None:
        self.logits, self.few, self.at, self.made = logits, hasattr(logits, "few"), None, None

    def __call__(self, start: int, stop: int) -> Any:
        if self.at != (start, stop):
            self.made = None  # before the next is made: two are twice the memory
            self.at, self.made = (start, stop), (self.logits.few if self.few else self.logits.chunk)(start, stop)
        return self.made


def _once(theirs: Head, ours: Head, known: dict[int, _Once]) -> _Once:
    return known.setdefault(id(theirs.logits), _Once(theirs.logits.select(ours.rows)))


def _linear(ours: LinearLogits, parts: Mapping[str, Part], chunks: list, shares: Tensor) -> list[Tensor]:
    trained = [parameter for parameter in ours.head.parameters() if parameter.requires_grad]
    if is_plain(ours.head):
        trained = [ours.head.weight, *([] if ours.head.bias is None else [ours.head.bias])]
    return list(_Pass.apply(ours, list(parts.values()), chunks, shares, ours.hidden, *trained))


class _Pass(torch.autograd.Function):
    """Totals of all parts, with the gradient of their weighed sum taken chunk by chunk.

    What comes back in the backward is the shares again, all times one factor (the scale of a loss, a mean over ranks).
    It must be: a gradient of the parts one by one is not there any more. Anything else gives NaN.
    """

    @staticmethod
    def forward(
        ctx: Any, ours: LinearLogits, parts: list[Part], chunks: list, shares: Tensor, hidden: Tensor, *trained: Tensor
    ) -> tuple[Tensor, ...]:
        largest = shares.abs().max()
        shares = shares / torch.where(largest > 0, largest, 1.0)  # near 1, so that float16 does not lose its gradient
        plain = is_plain(ours.head)
        wanted = ctx.needs_input_grad[5:]
        into = [torch.zeros_like(p, dtype=torch.float32) if w else None for p, w in zip(trained, wanted, strict=True)]
        to_hidden, totals = torch.zeros_like(hidden), torch.zeros(len(parts), device=hidden.device)
        kind = torch.get_autocast_dtype(hidden.device.type) if torch.is_autocast_enabled(hidden.device.type) else None
        weight = trained[0].detach().to(kind or trained[0].dtype) if plain else None
        for start, stop in chunks:
            rows = hidden[start:stop].detach()
            if plain:
                rows = rows.to(weight.dtype)
                logits = rows @ weight.t()
                if ours.head.bias is not None:
                    logits = logits + trained[1].detach().to(logits.dtype)
                leaf, inputs = logits.float().requires_grad_(), None
                del logits
            else:
                rows.requires_grad_()
                inputs = [rows, *(p for p, w in zip(trained, wanted, strict=True) if w)]
            with torch.enable_grad():
                chunk = ours.tail(leaf if plain else ours.head(rows).float())
                costs = torch.stack([part(chunk, start, stop) for part in parts])
                del chunk
                found = torch.autograd.grad((costs * shares).sum(), [leaf] if plain else inputs)
            totals += costs.detach()
            if plain:
                to_logits = found[0].to(weight.dtype)
                del leaf, costs, found
                to_hidden[start:stop] = to_logits @ weight
                if into[0] is not None:
                    _add_product(into[0], to_logits, rows)
                if len(into) > 1 and into[1] is not None:
                    into[1] += to_logits.float().sum(dim=0)
            else:
                to_hidden[start:stop] = found[0]
                for kept, one in zip([one for one in into if one is not None], found[1:], strict=True):
                    kept += one
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


def _add_product(into: Tensor, to_logits: Tensor, rows: Tensor) -> None:
    """Add the gradient of the weight [V, H], without a second tensor of its size where the types allow it."""
    if to_logits.dtype == into.dtype:
        into.addmm_(to_logits.t(), rows)
    else:
        into += to_logits.t() @ rows
