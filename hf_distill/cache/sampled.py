"""A large vocabulary in a hundred bytes a token: the highest classes and a sample of all others.

Knows: logits, and small integer columns that compress well. Does not know: files, keys, teachers, terms.

Cutting a teacher to its highest classes teaches the student that all others are impossible, and one class for all
others says nothing about which. A sample of them is right on average, in the value and in the gradient of the forward
KL. It holds for one temperature: the probability of the tail at another cannot be computed from it.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from hf_distill.models.topk_logits import TopKLogits

CHUNK_ELEMENTS = 2**24
"""How many float32 logits are worked on at a time: 64 MiB, and a few temporaries of that size."""

STEPS = 16
"""How many steps of a stored log-probability make one nat; 255 of them reach 16 nats below the highest."""

HIGHEST_TAIL = 1 - 2**-11
"""The float16 before 1: a tail of 1 would leave the head no probability at all."""


def sample(logits: Tensor, temperature: float, head: int, tail: int, seed: int) -> dict[str, Tensor]:
    """Keep the highest classes of each row and draw from the others, in columns that are small when compressed.

    The draws depend on ``seed``, the row's logits and its place in the call: with one seed for each sequence they are
    the same in every batch and in every process.

    Args:
        logits: [n, V], finite, any floating dtype and device; the rows of one sequence.
        temperature: greater than 0; the columns hold for this one only.
        head: h, how many of the highest classes to keep, at least 1.
        tail: m, how many to draw from all others, with replacement and in proportion to their probability; 0 draws
            none, and every loss is then a lower bound.
        seed: of the draws, any integer; of a longer one than 64 bits, such as a key, the last 64 count.

    Returns:
        On the logits' device: ``ids`` int32 [n, h] and ``tail_ids`` int32 [n, m], each sorted, the first id and then
        the differences; ``gap`` uint8 [n, h], how far below the row's highest log-probability each id is, in 1/16
        nat, 0 for the highest alone; ``tail`` float16 [n], the probability of the other classes; ``entropy`` float16
        [n], in nats.

    Raises:
        ValueError: ``head`` and ``tail`` are together as many as there are classes, or one of them cannot be used.

    Example:
        >>> columns = sample(torch.tensor([[0.0, 5.0, 1.0, 4.5, 0.0]]), temperature=1.0, head=2, tail=2, seed=0)
        >>> {name: value.tolist() for name, value in columns.items() if name in ("ids", "gap", "tail_ids")}
        {'ids': [[1, 2]], 'gap': [[0, 8]], 'tail_ids': [[2, 0]]}
    """
    rows, classes = logits.shape
    if head < 1 or tail < 0 or not temperature > 0:
        raise ValueError(
            f"head={head}, tail={tail} and temperature={temperature} were asked for: give a head of at least 1, a "
            "tail of at least 0 and a temperature greater than 0."
        )
    if head + tail >= classes:
        raise ValueError(
            f"head={head} and tail={tail} ids were asked for of {classes} classes: keep whole logits, which need less."
        )
    # All at once and on the CPU: neither the size of a chunk nor the device may move a draw.
    generator = torch.Generator().manual_seed(seed % 2**64)
    chances = torch.rand(rows, tail, generator=generator).to(logits.device)
    step = max(1, CHUNK_ELEMENTS // classes)
    parts = [
        _sample(logits[start : start + step].float() / temperature, head, chances[start : start + step])
        for start in range(0, max(1, rows), step)
    ]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _sample(scaled: Tensor, head: int, chances: Tensor) -> dict[str, Tensor]:
    log_p = scaled.log_softmax(dim=-1)
    ids = log_p.topk(head, dim=-1).indices.sort(dim=-1).values
    kept, p = log_p.gather(-1, ids), log_p.exp()
    highest, first = kept.max(dim=-1, keepdim=True)
    # The highest alone is at 0: a class just below it is moved a step away, so that the first choice is never lost.
    gap = (STEPS * (highest - kept)).round().clamp(min=1, max=255).scatter(-1, first, 0)
    entropy = -(p * log_p).sum(dim=-1)
    up_to = p.scatter_(-1, ids, 0.0).cumsum(dim=-1)
    total = up_to[:, -1:]
    # Strictly below the total, so that rounding cannot pass the last class that has any probability.
    target = torch.minimum(chances * total, total.nextafter(torch.zeros_like(total)))
    # A tail of 0 has no such class: then any id will do, because it stands for no probability.
    drawn = torch.searchsorted(up_to, target, right=True).clamp(max=scaled.shape[-1] - 1).sort(dim=-1).values
    return {
        "ids": _differences(ids),
        "gap": gap.to(torch.uint8),
        "tail_ids": _differences(drawn),
        "tail": total.squeeze(-1).clamp(max=HIGHEST_TAIL).half(),
        "entropy": entropy.half(),
    }


def _differences(ids: Tensor) -> Tensor:
    return ids.diff(dim=-1, prepend=torch.zeros_like(ids[:, :1])).to(torch.int32)


def restore(columns: Mapping[str, Tensor], temperature: float, classes: int) -> TopKLogits:
    """Read what ``sample`` kept; the head's probabilities sum to exactly 1 - tail.

    Args:
        columns: what ``sample`` returned, [n, ...] or with any other leading shape; a row of zeros is a row that
            nothing can be learned from, for padding.
        temperature: the one that was given to ``sample``.
        classes: V.

    Returns:
        The rows, with p(head) = (1 - tail) softmax(-gap / 16).

    Example:
        >>> logits = torch.tensor([[0.0, 5.0, 1.0, 4.5, 0.0]])
        >>> kept = restore(sample(logits, 1.0, head=2, tail=2, seed=0), 1.0, classes=5)
        >>> kept.ids, kept.log_p.exp(), logits.softmax(-1)[:, [1, 3]]
        (tensor([[1, 3]]), tensor([[0.6104, 0.3702]]), tensor([[0.6104, 0.3702]]))
        >>> kept.tail_ids  # of 0, 2 and 4
        tensor([[2, 2]])
    """
    tail = columns["tail"].float()
    return TopKLogits(
        ids=columns["ids"].long().cumsum(dim=-1),
        log_p=(-columns["gap"].float() / STEPS).log_softmax(dim=-1) + torch.log1p(-tail).unsqueeze(-1),
        tail_ids=columns["tail_ids"].long().cumsum(dim=-1),
        tail=tail,
        entropy=columns["entropy"].float(),
        temperature=temperature,
        classes=classes,
    )
