"""Whether a teacher answers each row for itself, and whether it sees padding: asked of it once, not guessed.

Knows: batches, Signals, how to ask. Does not know: which model answers, what is kept of the answers.

A model whose rows look at each other (a batch norm left in training mode, logits between the texts of a batch), or
that draws random numbers, cannot be remembered row by row. One that sees padding can, under its padding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from hf_distill.cache.answers import HEADS, parts_of, unkeepable
from hf_distill.cache.keys import NEITHER, Padding
from hf_distill.models.texts import DECODER, IDS
from hf_distill.signals import ABSENT, Signals
from hf_distill.tasks.alignment.tokenizers import PREFIX
from hf_distill.tasks.batches import spans_of, take
from hf_distill.tasks.columns import Columns, rows_in
from hf_distill.tasks.pairing import kind_of, owners_of

Ask = Callable[[Mapping[str, Any]], Signals]
NONE: Mapping[str, int] = MappingProxyType({})


def answers_alone(
    ask: Ask, batch: Mapping[str, Any], shown: Signals, tolerance: float, owners: Mapping[str, Tensor] = NONE
) -> bool:
    """Ask for one row of a batch alone, and say whether the answer is the one that it had in company.

    Args:
        ask: the teacher.
        batch: any batch.
        shown: what the teacher showed for it.
        tolerance: the largest difference (root mean square), in standard deviations of the batch's values.
        owners: whose each entry is, of columns of the batch with any number a row.

    Returns:
        Whether they agree; a batch of one row is compared with itself twice.
    """
    rows = len(next(iter(parts_of(shown).values())))
    # What stands at padding is nobody's: a model may place it by what else is in the batch (Qwen2-VL).
    real = None if shown.mask is None else shown.mask[rows - 1]
    if rows == 1:
        return agree(ask(take(batch, [0, 0], rows, owners)), 1, shown, 0, tolerance, scales_of(shown), real=real)
    alone = ask(take(batch, [rows - 1], rows, owners))
    return agree(alone, 0, shown, rows - 1, tolerance, scales_of(shown), real=real)


def padding_ignored(
    ask: Ask,
    batch: Mapping[str, Any],
    inputs: Mapping[str, Any],
    shown: Signals,
    tolerance: float,
    placeholders: Mapping[str, int] = NONE,
    owners: Mapping[str, Tensor] = NONE,
    apart: bool = False,
) -> Padding:
    """Ask for a shortened row three times: alone, padded on the right and padded on the left.

    The row is shortened in its middle, so that no padded one is longer than what the model has positions for, and the
    last token, which some models look for, stays, and so does what stands for an image. The teacher is asked three
    times whatever the batch is, so ranks that must ask together do.

    Args:
        ask: the teacher.
        batch: any batch.
        inputs: what the teacher reads of it.
        shown: what it showed for it.
        tolerance: as in ``answers_alone``.
        placeholders: the tokens that stand in a text for images and the like; see ``pairing``.
        owners: whose each entry is, of columns of the batch with any number a row.
        apart: whether what is no text is read apart from it, by a tower of its own.

    Returns:
        On which sides padding changes nothing; on neither where that cannot be tried.
    """
    own = PREFIX if any(name.startswith(PREFIX) for name in batch) else ""  # it reads tokens of its own
    inputs = {name: value for name, value in inputs.items() if own + name not in owners}
    laid, size = Columns.of(inputs), rows_in(inputs)
    # Another tensor (an image beside the text) may count positions, which a shortened text no longer has.
    others = {n for n, v in inputs.items() if v.ndim > 1 and not n.startswith(DECODER) and n != "labels"}
    others = {name for name in others if kind_of(name) not in placeholders}  # its places stay
    length = 0
    if laid.cuttable and (apart or others <= laid.padded):
        spans = spans_of(laid.mask)
        row = take(batch, [int((spans[:, 1] - spans[:, 0]).argmax())], size, owners)
        if "labels" not in inputs:  # a label for each token would still count those that are left out
            row = {name: value for name, value in row.items() if name not in ("labels", f"{own}labels")}
        start, stop = spans_of(row[own + laid.marks])[0].tolist()
        length = stop - start
    text = [] if length < 2 else _text_between(row.get(own + IDS), start, stop - 1, placeholders)
    if not (more := min(length // 2, len(text))):
        for _ in range(3):
            ask(take(batch, [0], size, owners))
        return NEITHER
    out = set(text[-more:])
    where = [position for position in range(start, stop) if position not in out]
    read = {name.removeprefix(own): value for name, value in row.items() if name.startswith(own)}
    names = {own + name for name in Columns.of(read).padded} - set(owners)
    short = {n: v[:, where] if n in names else v for n, v in row.items()}
    right = {n: _padded(v, more, False) if n in names else v for n, v in short.items()}
    left = {n: _padded(v, more, True) if n in names else v for n, v in short.items()}
    alone, scales = ask(short), scales_of(shown)
    behind = agree(ask(right), 0, alone, 0, tolerance, scales, slice(0, length - more))
    before = agree(ask(left), 0, alone, 0, tolerance, scales, slice(more, None))
    return Padding(right=behind, left=before)


def examine(
    ask: Ask,
    batch: Mapping[str, Any],
    inputs: Mapping[str, Any],
    tolerance: float,
    collective: bool = False,
    positions: bool = False,
    placeholders: Mapping[str, int] = NONE,
    apart: bool = False,
) -> tuple[str, Padding | None]:
    """Find out whether answers can be kept row by row.

    Args:
        ask: the teacher.
        batch: any batch.
        inputs: what the teacher reads of it.
        tolerance: as in ``answers_alone``.
        collective: whether all ranks ask together: each then asks five times, whatever it finds.
        positions: whether its heads have one distribution a position.
        placeholders: the tokens that stand in a text for images and the like; see ``pairing``.
        apart: as in ``padding_ignored``.

    Returns:
        Why they cannot, empty if they can; and on which sides padding changes nothing, None where this batch does not
        tell, because its answer is not finite.
    """
    reason = inseparable(inputs, placeholders)
    if reason:
        for _ in range(5 if collective else 0):
            ask(batch)
        return reason, NEITHER
    shown, owners = ask(batch), owners_in(batch, inputs, placeholders)
    if reason := unkeepable(shown, positions):
        for _ in range(4 if collective else 0):
            ask(batch)
        return reason, NEITHER
    if not finite(shown):
        if not collective:
            return "", None  # whoever uses the answer says so, and of which rows
        reason = "it gives values that are not finite"
    if not answers_alone(ask, batch, shown, tolerance, owners):
        reason = reason or "it answers a row otherwise alone than among others, or each time anew"
    if reason and not collective:
        return reason, NEITHER
    try:
        return reason, padding_ignored(ask, batch, inputs, shown, tolerance, placeholders, owners, apart)
    except (RuntimeError, ValueError, IndexError):  # a model that cannot read such a row; padding then stays content
        if collective:
            raise
        return reason, NEITHER


def inseparable(inputs: Mapping[str, Any], placeholders: Mapping[str, int] = NONE) -> str:
    """Say why a batch cannot be told apart into rows; empty where it can.

    Args:
        inputs: what the teacher reads of a batch.
        placeholders: the tokens that stand in a text for images and the like; see ``pairing``.

    Example:
        >>> inseparable({"pixel_values": torch.ones(9, 3), "input_ids": torch.ones(2, 4)})
        "the column 'pixel_values' has 9 entries for 2 rows"
    """
    try:
        rows_in(inputs, owners_of(inputs, placeholders))
    except ValueError as error:
        return str(error)
    return ""


def owners_in(
    batch: Mapping[str, Any], inputs: Mapping[str, Any], placeholders: Mapping[str, int]
) -> dict[str, Tensor]:
    """Say whose each entry is, of the batch's columns that the teacher reads with any number a row.

    Args:
        batch: the batch.
        inputs: what the teacher reads of it; its own columns have a prefix in the batch.
        placeholders: the tokens that stand in a text for images and the like; see ``pairing``.
    """
    owners, own = owners_of(inputs, placeholders), any(name.startswith(PREFIX) for name in batch)
    return {PREFIX + name if own and PREFIX + name in batch else name: one for name, one in owners.items()}


def _text_between(ids: Tensor | None, start: int, stop: int, placeholders: Mapping[str, int]) -> list[int]:
    """The positions of a row's text that may be left out: between images they may say where one ends."""
    if ids is None or ids.ndim != 2 or not placeholders:
        return [*range(start, stop)]
    other = torch.isin(ids[0], torch.tensor([*placeholders.values()], dtype=ids.dtype, device=ids.device))
    places = [position for position in range(start, stop) if other[position]]
    return [*range(places[-1] + 1 if places else start, stop)]


def finite(shown: Signals) -> bool:
    """Say whether every row that counts has numbers; what stands at padding is nobody's.

    Args:
        shown: the answer.
    """
    lost = (~each & head.rows.to(each.device) for head in shown.heads.values() for each in [head.logits.finite()])
    return not any(bool(rows.any()) for rows in lost)


def _padded(value: Tensor, more: int, left: bool) -> Tensor:
    zeros = value.new_zeros((len(value), more, *value.shape[2:]))
    return torch.cat((zeros, value) if left else (value, zeros), dim=1)


def scales_of(shown: Signals) -> dict[str, Tensor]:
    """Say how much each value varies over a batch, against which a difference is large or small.

    Args:
        shown: the answer.
    """
    there = {n: p[p > ABSENT / 2] if n.startswith(HEADS) else p for n, p in parts_of(shown).items()}
    return {name: part.float().std(correction=0).clamp(min=1e-6) for name, part in there.items()}


def agree(
    one: Signals,
    row: int,
    other: Signals,
    beside: int,
    tolerance: float,
    scales: Mapping[str, Tensor],
    where: slice | None = None,
    real: Tensor | None = None,
) -> bool:
    """Say whether a row of one answer is a row of another.

    Args:
        one: the first answer.
        row: of it.
        other: the second answer.
        beside: its row.
        tolerance: as in ``answers_alone``.
        scales: of the values; see ``scales_of``.
        where: where the second's positions are in the first, which has more; None: they have as many.
        real: which of equally many are no padding; None: all.
    """
    ours, theirs = parts_of(one), parts_of(other)
    for name, value in ours.items():
        a, b = value[row].float(), theirs[name][beside].float()
        if where is not None and a.ndim == b.ndim and a.ndim > 0 and a.shape[0] != b.shape[0]:
            a = a[where]
        if real is not None and a.ndim > 1 and a.shape == b.shape and len(a) == len(real):
            a, b = a[real.to(a.device)], b[real.to(b.device)]
        # The root of the mean square: the largest of many values, rounded to 8 bits, says little.
        if a.shape != b.shape or not bool((a - b).square().mean().sqrt() <= tolerance * scales[name]):
            return False
    return True
