"""Rows of a batch: taken out for one teacher, and the answers of several put together again.

Knows: tensors, arrays and lists whose first size is the batch's. Does not know: models, tasks, who chose the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hf_distill.signals import DenseLogits, Head, Logits, Signals, Stream, Value
from hf_distill.tasks.batches import take
from hf_distill.tasks.pairing import owners_of, placeholders_of
from hf_distill.teachers.teacher import Teacher


def by_row(
    teachers: Mapping[str, Teacher], choice: np.ndarray, batch: Mapping[str, Any], needs: frozenset[str]
) -> Signals:
    """Ask each teacher for its own rows only, and put the answers into the order of the batch.

    Args:
        teachers: in the order that ``choice`` counts; one without a row is not asked.
        choice: integer [B], the index of each row's teacher.
        batch: the batch of B rows.
        needs: what to show.

    Returns:
        What they show, as if one had answered; logits in float32.

    Raises:
        ValueError: two teachers' answers differ in more than the number of rows.
    """
    shown, rows = {}, {}
    for index, (name, teacher) in enumerate(teachers.items()):
        if (own := np.flatnonzero(choice == index)).size:
            whose = owners_of(batch, placeholders_of(teacher.model))
            rows[name], shown[name] = own, teacher(take(batch, own, len(choice), whose), needs)

    def all_rows(what: str, read: Callable[[Signals], Iterable[Tensor]]) -> tuple[Tensor, ...]:
        return together({name: tuple(read(one)) for name, one in shown.items()}, rows, what)

    first = next(iter(shown.values()))
    keys = list(first.heads)
    logits = all_rows("logits", lambda one: (_whole(one.heads[key].logits) for key in keys))
    counted = all_rows("what counts", lambda one: (one.heads[key].rows for key in keys))

    def stream(name: str | None) -> Stream:
        """One stream of all rows; grids that are not the same for all of them are not known."""

        def rows_of(what: str, read: Callable[[Stream], Iterable[Tensor]]) -> tuple[Tensor, ...]:
            return all_rows(what, lambda one: read(one.stream(name)))

        mask = rows_of("masks", lambda one: () if one.mask is None else (one.mask,))
        grids = {one.stream(name).grids for one in shown.values()}
        return Stream(
            hidden=rows_of("hidden states", lambda one: one.hidden),
            attention=rows_of("attention maps", lambda one: one.attention),
            qkv=tuple(rows_of("queries", lambda one, at=at: one.qkv[at]) for at in range(len(first.stream(name).qkv))),
            mask=mask[0] if mask else None,
            grids=grids.pop() if len(grids) == 1 else (),
        )

    values = {k: all_rows(f"values {k}", lambda one, k=k: tuple(one.values[k][:2])) for k in first.values}
    vectors = {k: all_rows(f"vectors {k}", lambda one, k=k: (one.vectors[k],))[0] for k in first.vectors}
    return Signals(
        {k: Head(DenseLogits(whole), c) for k, whole, c in zip(keys, logits, counted, strict=True)},
        **vars(stream(None)),
        taps={path: all_rows("taps", lambda one, path=path: (one.taps[path],))[0] for path in first.taps},
        streams={name: stream(name) for name in first.streams if all(name in one.streams for one in shown.values())},
        main=first.main,
        values={key: Value(*both) for key, both in values.items()},
        vectors=vectors,
    )


def check_choice(choice: np.ndarray, names: Sequence[str], column: str) -> None:
    """Refuse an index that is no teacher's.

    Args:
        choice: integer [B], the index of each row's teacher.
        names: of the teachers.
        column: where the choice was found.

    Raises:
        ValueError: in one sentence.

    Example:
        >>> check_choice(np.array([0, 1]), ["a", "b"], "source")
    """
    whole = choice.dtype.kind in "iu" and choice.ndim == 1
    wrong = np.flatnonzero((choice < 0) | (choice >= len(names))) if whole else [0]
    if len(wrong):
        found = choice[wrong[0]] if whole else f"{choice.dtype} of shape {list(choice.shape)}"
        known = ", ".join(f"{index} ({name})" for index, name in enumerate(names))
        raise ValueError(
            f"row {wrong[0]} holds {found} in its column {column!r}, the teachers are {known}: give each row the "
            "index of its teacher, one integer."
        )


def together(parts: Mapping[str, tuple[Tensor, ...]], rows: Mapping[str, np.ndarray], what: str) -> tuple[Tensor, ...]:
    """Put answers for some rows each into one answer for all rows.

    Args:
        parts: teacher -> its tensors, each [its rows, ...].
        rows: teacher -> int64 [its rows], which rows of the whole these are; every row is one teacher's.
        what: how to name the tensors in an error.

    Returns:
        As many tensors, each [all rows, ...].

    Raises:
        ValueError: two teachers' tensors differ in more than the number of rows.

    Example:
        >>> parts = {"a": (torch.tensor([1.0, 3.0]),), "b": (torch.tensor([2.0]),)}
        >>> together(parts, {"a": np.array([0, 2]), "b": np.array([1])}, "scores")
        (tensor([1., 2., 3.]),)
    """
    same_shapes({name: [list(tensor.shape[1:]) for tensor in one] for name, one in parts.items()}, f"rows of {what}")
    order = torch.from_numpy(np.argsort(np.concatenate([rows[name] for name in parts])))
    return tuple(torch.cat(each)[order.to(each[0].device)] for each in zip(*parts.values(), strict=True))


def same_shapes(shapes: Mapping[str, Any], what: str) -> None:
    """Refuse teachers whose answers have different shapes.

    Args:
        shapes: teacher -> its shape, or several.
        what: how to name what has the shape.

    Raises:
        ValueError: in one sentence.

    Example:
        >>> same_shapes({"a": [8, 3], "b": [8, 4]}, "logits")
        Traceback (most recent call last):
        ...
        ValueError: the teacher a gave logits of shape [8, 3], the teacher b [8, 4]: use teachers that answer alike.
    """
    (first, shape), *others = shapes.items()
    for name, other in others:
        if other != shape:
            raise ValueError(
                f"the teacher {first} gave {what} of shape {shape}, the teacher {name} {other}: use teachers that "
                "answer alike."
            )


def _whole(logits: Logits) -> Tensor:
    """All of it, float32 [..., V]."""
    return logits.chunk(0, logits.shape[:-1].numel()).view(logits.shape)
