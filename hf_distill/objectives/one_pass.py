"""One pass over the rows of a head for all that is computed from it: each chunk of logits is made once.

Knows: heads, how their logits are held, what each part of the loss will be multiplied by. Does not know: tasks, alpha,
trainers.

A chunk of linear logits is made, compared, turned into its gradient and forgotten. So that this needs no second pass
in the backward, the gradient is taken in the forward, of the sum of all parts, each times its share of the loss;
shares are known before, because an optimizer step is counted before its first forward.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from hf_distill.linear import LinearLogits, Tail, is_plain
from hf_distill.signals import Head, Logits, Signals, Sum

if TYPE_CHECKING:
    from hf_distill.objectives.logits import LogitTerm

CHUNK_ELEMENTS = 2**24
"""How many float32 logits a chunk holds at most: 64 MiB, enough rows for a matrix product to be one."""
BLOCK_ELEMENTS = 2**19
"""How many of them a CPU compares at once: their temporaries stay in its cache, which is three times faster."""

Part = Callable[[Tensor, int, int], Tensor]
"""Rows of the student's logits [n, V], the first of them and the one after the last -> the sum of what they cost."""


def compared(
    asked: Mapping[str, tuple[LogitTerm, Signals, Signals | None]], shares: Mapping[str, Tensor] | None = None
) -> dict[str, Sum]:
    """Add up what each term makes of every row that counts in every head.

    Args:
        asked: name -> the term, what the student shows, what the teacher that it listens to shows; None: it reads the
            labels only.
        shares: name -> scalar, what the total is multiplied by in the loss. With it linear logits are gone through
            once; without it they are made whole for the backward.

    Returns:
        name -> the total with its graph, and how many rows there were.
    """
    stacks: dict[tuple[str, int, int], _Stack] = {}
    for key, (term, student, teacher) in asked.items():
        for name, head in student.heads.items():
            whole, pick = _looked_at(head.logits)
            at = (name, id(whole), id(head.rows))
            if at not in stacks:  # its rows are copied, so it is not made to be thrown away
                stacks[at] = _Stack(whole, head.rows)
            stacks[at].add(key, term, head, pick, None if teacher is None else teacher.heads[name].logits)
    totals: dict[str, list[Tensor]] = {name: [] for name in asked}
    counts = dict.fromkeys(asked, 0)
    for stack in stacks.values():
        for key, total in stack.totals(shares).items():
            totals[key].append(total)
            counts[key] += len(stack)
    return {
        key: Sum(torch.stack(found).sum(), torch.tensor(counts[key], device=found[0].device))
        for key, found in totals.items()
    }


def _looked_at(logits: Logits) -> tuple[Logits, Callable[[Tensor], Tensor]]:
    """Return the logits that a view is of, and how it sees some of their rows."""
    if not hasattr(logits, "seen"):
        return logits, lambda rows: rows
    whole, pick = _looked_at(logits.logits)
    return whole, lambda rows: logits.seen(pick(rows))


class _Stack:
    """One student head, gone through for all parts that are computed from it."""

    def __init__(self, logits: Logits, rows: Tensor) -> None:
        self.rows, self.ours = rows, logits.select(rows)
        self.size = max(1, CHUNK_ELEMENTS // max(1, self.ours.shape[-1]))
        self.parts: dict[str, Part] = {}
        self.theirs: dict[int, _Once] = {}

    def __len__(self) -> int:
        return self.ours.shape[0]

    def add(self, key: str, term: LogitTerm, head: Head, pick: Callable, theirs: Logits | None) -> None:
        if theirs is not None and id(theirs) not in self.theirs:
            self.theirs[id(theirs)] = _Once(theirs.select(self.rows), self.size)
        once = None if theirs is None else self.theirs[id(theirs)]
        if few := once is not None and once.few:
            term.check_few(once.logits.temperature)
        compare = term.divergence_from_few if few else term.divergence

        def part(rows: Tensor, start: int, stop: int) -> Tensor:
            given = [] if once is None else [once(start, stop).to(rows.device)]
            if term.labelled:
                given.append(head.labelled(start, stop))
            return compare(pick(rows), *given).sum()

        self.parts[key] = part

    def totals(self, shares: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
        if isinstance(self.ours, LinearLogits) and torch.is_grad_enabled() and shares is not None and len(self):
            found = _linear(self.ours, self.parts, self.size, torch.stack([shares[key].float() for key in self.parts]))
        else:
            found = _chunks(self.ours, self.parts, self.size)
        return dict(zip(self.parts, found, strict=True))


class _Once:
    """A teacher's rows, of which a chunk is made once for all terms and all blocks that it is compared in."""

    def __init__(self, logits: Logits, size: int) -> None:
        self.logits, self.size, self.few = logits, size, hasattr(logits, "few")
        self.first, self.made = -1, None

    def __call__(self, start: int, stop: int) -> Any:
        if self.few:
            return self.logits.few(start, stop)
        first = start - start % self.size
        if self.first != first:
            self.made = None  # before the next is made: two are twice the memory
            self.first, self.made = first, self.logits.chunk(first, first + self.size)
        return self.made[start - first : stop - first]


def _chunks(ours: Logits, parts: Mapping[str, Part], size: int) -> list[Tensor]:
    """Sum chunk by chunk what autograd keeps; once also where no row counts: a zero needs its graph."""
    rows = ours.shape[0]
    if torch.is_grad_enabled():  # split once: each slice of its own would have a gradient of the whole size
        pieces: Iterable[Tensor] = ours.chunk(0, max(1, rows)).split(size)
    else:
        pieces = (ours.chunk(start, start + size) for start in range(0, max(1, rows), size))
    each = [
        [part(piece, n * size, n * size + len(piece)) for part in parts.values()] for n, piece in enumerate(pieces)
    ]
    return [torch.stack(one).sum() for one in zip(*each, strict=True)]


def _linear(ours: LinearLogits, parts: Mapping[str, Part], size: int, shares: Tensor) -> list[Tensor]:
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


def _costs(logits: Tensor, tail: Tail, parts: list[Part], shares: Tensor, start: int) -> Tensor:
    """Return what each part of a chunk costs, and put the gradient of their weighed sum where the logits were."""
    rows, classes = logits.shape
    size = max(1, BLOCK_ELEMENTS // classes) if logits.device.type == "cpu" else rows
    totals = torch.zeros(len(parts), device=logits.device)
    for first in range(0, rows, size):
        block = logits[first : first + size]
        leaf = block.float().requires_grad_()
        with torch.enable_grad():
            seen = tail(leaf)
            costs = torch.stack([part(seen, start + first, start + first + len(block)) for part in parts])
            (gradient,) = torch.autograd.grad((costs * shares).sum(), leaf)
        block.copy_(gradient)
        totals += costs.detach()
    return totals


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
            into[0] += gradient.t() @ rows
        if len(into) > 1 and into[1] is not None:
            into[1] += gradient.float().sum(dim=0)
        return gradient @ weight

    return logits, finish


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
