"""One pass over the rows of a head for all that is computed from it: each chunk of logits is made once.

Knows: heads, how their logits are held, which rows count, what each part of the loss will be multiplied by.
Does not know: tasks, alpha, trainers.

A chunk of linear logits is made, compared, turned into its gradient and forgotten. So that this needs no second pass
in the backward, the gradient is taken in the forward, of the sum of all parts, each times its share of the loss;
shares are known before, because an optimizer step is counted before its first forward.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from hf_distill.models.linear_logits import LinearLogits
from hf_distill.objectives.chunked.linear_pass import Part, totals_of
from hf_distill.objectives.term import Term
from hf_distill.signals import Head, Logits, Signals, Sum

CHUNK_ELEMENTS = 2**24
"""How many float32 logits a chunk holds at most: 64 MiB, enough rows for a matrix product to be one."""
CUDA_CHUNK_ELEMENTS = 2**27
"""The same on a GPU, which needs more rows to be busy: each chunk reads both heads and a gradient of one."""


def compared(
    asked: Mapping[str, tuple[Term, Signals, Signals | None]],
    shares: Mapping[str, Tensor] | None = None,
    batch: Mapping[str, Any] | None = None,
) -> dict[str, Sum]:
    """Add up what each term makes of every row that counts in every head.

    Args:
        asked: name -> the term, what the student shows, what the teacher that it listens to shows; None: it reads the
            labels only.
        shares: name -> scalar, what the total is multiplied by in the loss. With it linear logits are gone through
            once; without it they are made whole for the backward.
        batch: the batch, for terms that must know more of a row than logits.

    Returns:
        name -> the total with its graph, and how many rows there were; of rows that are parts of a sample each counts
        as its part.
    """
    stacks: dict[tuple[str, int, int], _Stack] = {}
    for key, (term, student, teacher) in asked.items():
        for name, head in student.heads.items():
            whole, pick = _looked_at(head.logits)
            at = (name, id(whole), id(head.rows))
            if at not in stacks:  # its rows are copied, so it is not made to be thrown away
                stacks[at] = _Stack(whole, head.rows, head.share)
            taught = None if teacher is None else teacher.heads[name]
            stacks[at].add(key, term, head, pick, taught, batch or {})
    totals: dict[str, list[Tensor]] = {name: [] for name in asked}
    counts: dict[str, float] = dict.fromkeys(asked, 0)
    for stack in stacks.values():
        for key, total in stack.totals(shares).items():
            totals[key].append(total)
            counts[key] += len(stack) * stack.share
    return {
        key: Sum(torch.stack(found).sum(), torch.tensor(round(counts[key]), device=found[0].device))
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

    def __init__(self, logits: Logits, rows: Tensor, share: float) -> None:
        self.rows, self.share, self.ours = rows, share, logits.select(rows)
        most = CUDA_CHUNK_ELEMENTS if rows.is_cuda else CHUNK_ELEMENTS
        self.size = max(1, most // max(1, self.ours.shape[-1]))
        self.parts: dict[str, Part] = {}
        self.theirs: dict[int, _Once] = {}

    def __len__(self) -> int:
        return self.ours.shape[0]

    def add(
        self, key: str, term: Term, head: Head, pick: Callable, taught: Head | None, batch: Mapping[str, Any]
    ) -> None:
        theirs = None if taught is None else taught.logits
        if theirs is not None and id(theirs) not in self.theirs:
            self.theirs[id(theirs)] = _Once(theirs.select(self.rows), self.size)
        once = None if theirs is None else self.theirs[id(theirs)]
        if few := once is not None and once.few:
            term.check_few(once.logits.temperature)
        compare = term.divergence_from_few if few else term.divergence
        more = None if taught is None else term.beside(head, taught, batch)
        more = None if more is None else more[self.rows]

        def told(start: int, stop: int) -> list[Any]:
            given = [] if once is None else [once(start, stop).to(self.rows.device)]
            given += [head.labelled(start, stop)] if term.labelled else []
            return given if more is None else [*given, more[start:stop]]

        part = Part(compare, pick, told)
        self.parts[key] = (
            part if taught is None or taught.weights is None else _weighed(part, taught.weights[self.rows])
        )

    def totals(self, shares: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
        if isinstance(self.ours, LinearLogits) and torch.is_grad_enabled() and shares is not None and len(self):
            found = totals_of(
                self.ours, self.parts, self.size, torch.stack([shares[key].float() for key in self.parts])
            )
        else:
            found = _chunks(self.ours, self.parts, self.size)
        found = found if self.share == 1.0 else [self.share * total for total in found]
        return dict(zip(self.parts, found, strict=True))


def _weighed(part: Part, weights: Tensor) -> Part:
    """Let each row cost as much as its teacher says that there is to learn."""

    def compare(ours: Tensor, *told: Any) -> Tensor:
        *told, own = told
        return part.compare(ours, *told) * own

    def told(start: int, stop: int) -> list[Any]:
        return [*part.told(start, stop), weights[start:stop]]

    return Part(compare, part.pick, told)


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
        [part.cost(piece, part.told(n * size, n * size + len(piece))) for part in parts.values()]
        for n, piece in enumerate(pieces)
    ]
    return [torch.stack(one).sum() for one in zip(*each, strict=True)]
