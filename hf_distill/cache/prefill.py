"""Ask a teacher for every row of a data set, as fast as it can answer.

Knows: lengths, a token budget, ranks. Does not know: where answers are kept, which model gives them, trainers.

In training order every batch is as long as its longest row, and most of it is padding. Rows that are equally long
stand together here, and short ones come many at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from accelerate.utils import send_to_device
from tqdm.auto import tqdm

from hf_distill.tasks.batches import spans_of
from hf_distill.tasks.columns import Columns, several_texts_a_row
from hf_distill.tasks.lengths import length_of

TOKENS = 4096
"""How many tokens a batch holds, with its padding; on CPUs 2,048 to 8,192 made no difference."""


def fill(
    teacher: Any,
    rows: Sequence[Mapping[str, Any]],
    collator: Callable[[list[Mapping[str, Any]]], Mapping[str, Any]],
    needs: frozenset[str] = frozenset({"heads"}),
    tokens: int = TOKENS,
    device: str | torch.device = "cpu",
    rank: int = 0,
    ranks: int = 1,
    lengths: Sequence[int] | None = None,
) -> int:
    """Ask for every row that is not kept yet; what is kept is written as it goes, so being killed loses little.

    Which rank asks for a row is said by the row's key, the first of several: ranks that list what is kept at different
    moments agree.

    Args:
        teacher: prepared, with a memory.
        rows: a data set with a length.
        collator: makes a batch of rows, the one that training will use.
        needs: what to ask for.
        tokens: how many tokens a batch may hold; a longer row is alone.
        device: where the teacher is.
        rank: of this process.
        ranks: how many there are.
        lengths: of the rows, in tokens; None: each has as many as its texts, which rows without tokens do not say.

    Returns:
        For how many rows this process asked.

    Raises:
        ValueError: the teacher's answers cannot be kept, or its rows are padded otherwise here than in training.
    """
    always, teacher.always = teacher.always, True
    try:
        lengths = [length_of(row) for row in rows] if lengths is None else lengths
        return _fill(teacher, rows, collator, needs, tokens, device, rank, ranks, lengths)
    finally:
        teacher.always = always


def _fill(
    teacher: Any,
    rows: Sequence[Mapping[str, Any]],
    collator: Callable[[list[Mapping[str, Any]]], Mapping[str, Any]],
    needs: frozenset[str],
    tokens: int,
    device: str | torch.device,
    rank: int,
    ranks: int,
    lengths: Sequence[int],
) -> int:
    order = sorted(range(len(rows)), key=lambda index: -lengths[index])
    fetch = getattr(rows, "__getitems__", lambda some: [rows[index] for index in some])
    mine: dict[bytes, int] = {}
    widths: set[int] = set()
    with tqdm(total=len(rows), desc="Looking up rows", unit=" rows", disable=rank > 0, leave=False) as bar:
        for some in batches(order, lengths, tokens):
            batch = collator(fetch(some))
            if not mine and not teacher.check(send_to_device(batch, device), needs):
                raise ValueError(f"the answers of {teacher.facts.name} cannot be kept: {teacher.memory.off}.")
            widths |= _widths_seen(teacher, batch)
            keys = teacher.keys(batch)
            counts = [len(keys) // len(some)] * len(some)  # of a group, several
            if sum(counts) != len(keys) or (counts[0] > 1 and teacher.rows(batch).packed):
                counts = [len(teacher.keys(collator(fetch([index])))) for index in some]  # rows of some texts each
            row = np.repeat(np.arange(len(some)), counts)
            first = [keys[start] for start in np.cumsum([0, *counts[:-1]])]
            own = [int.from_bytes(key[:8], "little") % ranks == rank for key in first]
            mine.update({keys[i]: some[row[i]] for i in teacher.memory.look(keys)[1] if own[row[i]]})
            bar.update(len(some))
    if len(widths) > 1:
        raise ValueError(
            f"the teacher {teacher.facts.name} sees padding and the rows are padded to the longest of each batch, so "
            "training would not find them again: pad all rows to one length, here and there."
        )
    todo = list(dict.fromkeys(mine.values()))
    with tqdm(total=len(todo), desc="Asking the teacher", unit=" rows", disable=rank > 0) as bar:
        for some in batches(todo, lengths, tokens):
            teacher(send_to_device(collator(fetch(some)), device), needs)
            bar.update(len(some))
    teacher.memory.flush()
    return len(todo)


def _widths_seen(teacher: Any, batch: Mapping[str, Any]) -> set[int]:
    """The width of a batch whose padding the teacher sees."""
    inputs, padding = teacher.inputs(batch), teacher.memory.padding
    if (several := several_texts_a_row(inputs)) is not None:  # their padding stays content
        return set() if several.all() else {several.shape[-1]}
    if (mask := Columns.of(inputs).mask) is None:
        return set()
    spans, width = spans_of(mask), mask.shape[1]
    seen = ((spans[:, 0] > 0) & (not padding.left)) | ((spans[:, 1] < width) & (not padding.right))
    return {width} if seen.any() else set()


def batches(order: Sequence[int], lengths: Sequence[int], tokens: int) -> Iterator[list[int]]:
    """Cut sorted rows into batches of about as many tokens.

    Args:
        order: numbers of rows, the longest first.
        lengths: of all rows.
        tokens: how many a batch may hold, counted with its padding.

    Yields:
        Numbers of rows.

    Example:
        >>> list(batches([0, 1, 2, 3], [4, 4, 2, 2], tokens=8))
        [[0, 1], [2, 3]]
    """
    some: list[int] = []
    for index in order:
        if some and (len(some) + 1) * lengths[some[0]] > tokens:
            yield some
            some = []
        some.append(index)
    if some:
        yield some
