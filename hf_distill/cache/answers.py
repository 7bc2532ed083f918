"""What a teacher showed for a batch, as rows that can be kept; and kept rows as what it showed.

Knows: Signals, which of their values have one entry a position. Does not know: models, keys' meaning, folders.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hf_distill.cache.block import Block, gather
from hf_distill.cache.encoding import Encoding
from hf_distill.signals import ABSENT, DenseLogits, Head, Signals, Value

HEADS, HIDDEN, TAPS = "heads/", "hidden/", "taps/"
VALUES, ROWS, VECTORS = "values/", "rows/", "vectors/"
"""A value is kept beside which of its rows count; how many these are is a part of its form."""
KEPT = frozenset({"heads", "hidden", "values", "vectors"})
"""What can be kept, beside ``"tap:..."``; attention maps have two axes of positions and cost more than asking."""
EXACT = Encoding()


def parts_of(signals: Signals) -> dict[str, Tensor]:
    """Name every value that a teacher showed.

    Args:
        signals: its answer.

    Returns:
        name -> [B, ...].

    Raises:
        TypeError: logits in a form that is kept elsewhere already.

    Example:
        >>> shown = Signals({"logits": Head(DenseLogits(torch.ones(2, 3)), torch.ones(2))}, (torch.ones(2, 4, 8),))
        >>> {name: list(value.shape) for name, value in parts_of(shown).items()}
        {'heads/logits': [2, 3], 'hidden/0': [2, 4, 8]}
    """
    if strangers := [name for name, head in signals.heads.items() if not isinstance(head.logits, DenseLogits)]:
        raise TypeError(f"its logits {strangers[0]!r} are {type(signals.heads[strangers[0]].logits).__name__}")
    return {
        **{HEADS + name: head.logits.tensor for name, head in signals.heads.items()},
        **{f"{HIDDEN}{number}": state for number, state in enumerate(signals.hidden)},
        **{TAPS + path: value for path, value in signals.taps.items()},
        **{VALUES + name: value.tensor for name, value in signals.values.items()},
        **{ROWS + name: value.rows.to(torch.uint8) for name, value in signals.values.items()},
        **{VECTORS + name: vector for name, vector in signals.vectors.items()},
    }


def finite_rows(signals: Signals, spans: np.ndarray | None = None) -> list[int]:
    """Number the rows of an answer that hold neither infinity nor NaN.

    Args:
        signals: the answer.
        spans: int64 [n, 3], where several texts of packed rows are, of which each is looked at; None: whole rows.

    Example:
        >>> logits = DenseLogits(torch.tensor([[1.0], [float("nan")]]))
        >>> finite_rows(Signals({"logits": Head(logits, torch.ones(2))}))
        [0]
    """
    finite = [head.logits.finite() for head in signals.heads.values()]
    finite += [value.tensor.isfinite().all(-1) | ~value.rows for value in signals.values.values()]
    finite += [vector.isfinite() for vector in signals.vectors.values()]
    finite = finite or [state.isfinite() for state in signals.hidden]  # of a model without a head
    if spans is not None:
        each = torch.stack([(rows if rows.ndim == 2 else rows.flatten(2).all(2)).cpu() for rows in finite]).all(0)
        return [number for number, (row, start, stop) in enumerate(spans.tolist()) if each[row, start:stop].all()]
    good = torch.stack([(rows if rows.ndim == 1 else rows.flatten(1).all(1)).cpu() for rows in finite]).all(0)
    return good.nonzero().flatten().tolist()


def one_a_row(spans: np.ndarray) -> np.ndarray:
    """Say in which row each is, where each has a row of its own.

    Args:
        spans: int64 [B, 2], where each row's positions are.

    Returns:
        int64 [B, 3], the number of the row before them.

    Example:
        >>> one_a_row(np.array([[0, 3], [1, 3]])).tolist()
        [[0, 0, 3], [1, 1, 3]]
    """
    return np.column_stack((np.arange(len(spans)), spans))


def unkeepable(signals: Signals, positions: bool = False) -> str:
    """Say why an answer cannot be taken apart into rows; empty where it can.

    Args:
        signals: the answer.
        positions: whether the heads have one distribution a position.

    Example:
        >>> unkeepable(Signals({}, (torch.ones(2, 5, 8),), mask=torch.ones(2, 4)))
        'hidden/0 has 5 positions where the answer counts 4'
    """
    try:
        parts = parts_of(signals)
    except TypeError as error:
        return str(error)
    rows = min(map(len, parts.values()), default=0)
    if strangers := [name for name, part in parts.items() if len(part) != rows]:  # as where a row has several texts
        return f"{strangers[0]} has {len(parts[strangers[0]])} rows where the batch has {rows}"
    for name, part in parts.items():  # as where the mask is the student's, and the teacher has more frames a second
        along = name.startswith(HIDDEN) or (positions and name.startswith(HEADS))
        if along and signals.mask is not None and part.shape[1] != signals.mask.shape[1]:
            return f"{name} has {part.shape[1]} positions where the answer counts {signals.mask.shape[1]}"
    return ""


class Answers:
    """How one teacher's answers are kept; the first of them says which values have one entry a position.

    Args:
        encoding: how values are held.
        positions: whether the heads have one distribution a position, as language models do, or [B, T] one logit a
            position, as those that point into a text do: padding is then no class of theirs.
        shapes: name -> (positional, number of classes or 0) of each value; None learns them from the first answer. Of
            what is in ``Signals.values`` the whole shape [N, D] stands in place of a number.
        frames: whether a row has as many positions as its own answer, whatever the batch says; see ``Task.frames``.

    Example:
        >>> answers, rows = Answers(Encoding(), positions=False), torch.ones(2, dtype=torch.bool)
        >>> shown = Signals({"logits": Head(DenseLogits(torch.tensor([[1.0, 2.0], [3.0, 4.0]])), rows)})
        >>> block = answers.block(shown, [b"a", b"b"], None)
        >>> answers.signals([(block, 1), (block, 0)], None, rows, None).heads["logits"].logits.tensor.tolist()
        [[3.0, 4.0], [1.0, 2.0]]
    """

    def __init__(
        self, encoding: Encoding, positions: bool, shapes: dict[str, Any] | None = None, frames: bool = False
    ) -> None:
        self.encoding, self.positions, self.frames, self.shapes = encoding, positions, frames, dict(shapes or {})
        self.forms: dict[str, list[int]] = {}  # of what has no entry a position

    def other_form(self, signals: Signals) -> str:
        """Say whether an answer has another form than those before, as to images of another size; empty where not.

        Args:
            signals: the answer.

        Example:
            >>> answers = Answers(Encoding(), positions=False)
            >>> for size in (4, 4, 9):
            ...     print(answers.other_form(Signals({}, (torch.ones(1, size, 8),))) or "as before")
            as before
            as before
            hidden/0 has the form [9, 8], and had [4, 8] before
        """
        for name, part in parts_of(signals).items():
            form, kept = list(part.shape[1:]), self.shapes.get(name)
            if kept is not None and isinstance(kept[1], list):  # a folder says it of values
                self.forms[name] = kept[1]
            if not self._positional(name, part, signals) and self.forms.setdefault(name, form) != form:
                return f"{name} has the form {form}, and had {self.forms[name]} before"
        return ""

    def block(self, signals: Signals, keys: Sequence[bytes], spans: np.ndarray | None) -> Block:
        """Take an answer apart into rows, without their padding.

        Args:
            signals: the answer.
            keys: of its rows, or of the texts in them.
            spans: int64 [n, 3], where each one's positions are: in which row, from which to before which; None:
                everywhere.

        Returns:
            The rows, in the CPU's memory.

        Raises:
            ValueError: the values have another form than those before.
        """
        parts = parts_of(signals)
        packed = spans is not None and (spans[:, 0] != np.arange(len(spans))).any()
        if strangers := [name for name, part in parts.items() if len(part) != len(keys) and not packed]:
            raise ValueError(f"its answer {strangers[0]} has {len(parts[strangers[0]])} rows for {len(keys)} keys")
        found = {name: self._shape(name, part, signals) for name, part in parts.items()}
        self.shapes = self.shapes or found
        if found != self.shapes:
            raise ValueError(f"its answers have changed their form from {self.shapes} to {found}")
        held, positional, offsets = {}, set(), None
        for name, part in parts.items():
            bounds = np.arange(len(keys) + 1)
            if found[name][0]:
                where = one_a_row(np.tile((0, part.shape[1]), (len(keys), 1))) if spans is None else spans
                part = torch.cat([part[row, start:stop] for row, start, stop in where.tolist()])
                part = part if found[name][1] else part.unsqueeze(-1)
                bounds = offsets = np.concatenate(([0], np.cumsum(where[:, 2] - where[:, 1])))
            else:
                part = part.clone()  # what is kept is nobody else's: somebody may write into the answer
            values = self._held(name).encode(part, name.startswith(HEADS), keys, bounds)
            positional |= {name + suffix for suffix in values} if found[name][0] else set()
            held.update({name + suffix: value for suffix, value in values.items()})
        return Block.of(held, positional, offsets)

    def signals(
        self, rows: Sequence[tuple[Block, int]], spans: np.ndarray | None, counted: Tensor, mask: Tensor | None
    ) -> Signals:
        """Put rows together to the answer for one batch.

        Args:
            rows: for each row of the batch, or each text in them, the block that has it and its number there.
            spans: int64 [n, 3], where each one's positions are in this batch; None: at the beginning of its row.
            counted: bool, the leading shape of the heads: which of their rows count.
            mask: bool [B, T], or None; see ``Signals``.

        Returns:
            What the teacher showed, on the device of ``counted``; zero where there is padding.
        """
        if spans is None:  # from 0 on, as many as each row has
            lengths = np.array([block.length(index) for block, index in rows])
            spans, width = one_a_row(np.stack((np.zeros_like(lengths), lengths), axis=1)), int(lengths.max())
            if self.frames and width:  # else no frame was known to be padding, as of spectrograms cut into patches
                mask = (torch.arange(width) < torch.from_numpy(lengths).unsqueeze(-1)).to(counted.device)
                counted = mask if self.positions else counted
        else:
            width = counted.shape[1] if mask is None else mask.shape[1]
        size = (len(rows) if mask is None else len(mask), width)
        held = {name: value.to(counted.device) for name, value in gather(rows, spans, size).items()}
        heads, hidden, taps, values, vectors = {}, [], {}, {}, {}
        for name, (_, classes) in self.shapes.items():
            own = {n.removeprefix(name): value for n, value in held.items() if n == name or n.startswith(f"{name}/")}
            value = self._held(name).decode(own, name.startswith(HEADS), classes)
            if not classes:
                place = torch.arange(width, device=counted.device)
                start, stop = torch.as_tensor(spans[:, 1:], device=counted.device).T.unsqueeze(-1)
                value = DenseLogits(value.tensor.squeeze(-1).masked_fill((place < start) | (place >= stop), ABSENT))
            if name.startswith(HEADS):
                heads[name.removeprefix(HEADS)] = Head(value, _as_rows(counted, value))
            elif name.startswith(HIDDEN):
                hidden.append(value)
            elif name.startswith((VALUES, ROWS)):
                values[name] = value
            elif name.startswith(VECTORS):
                vectors[name.removeprefix(VECTORS)] = value
            else:
                taps[name.removeprefix(TAPS)] = value
        names = [name.removeprefix(VALUES) for name in values if name.startswith(VALUES)]
        found = {name: Value(values[VALUES + name], values[ROWS + name].bool()) for name in names}
        return Signals(heads, tuple(hidden), taps=taps, mask=mask, values=found, vectors=vectors)

    def _held(self, name: str) -> Encoding:
        """How a value is held: whether something counts has no fewer bits."""
        return EXACT if name.startswith(ROWS) else self.encoding

    def _shape(self, name: str, part: Tensor, signals: Signals) -> list[Any]:
        """Whether it has one entry a position, and how many classes; 0: the positions are the classes."""
        points = self.positions and name.startswith(HEADS) and part.ndim == 2
        if points and self.encoding.top:
            raise ValueError(
                f"top={self.encoding.top} keeps a few ids of each distribution, those of {name} are positions of a "
                "text, of which all are needed: use top=0"
            )
        if name.startswith((VALUES, ROWS)):
            return [False, list(part.shape[1:])]
        return [self._positional(name, part, signals), 0 if points else part.shape[-1]]

    def _positional(self, name: str, part: Tensor, signals: Signals) -> bool:
        if name.startswith(HEADS):
            return self.positions
        if name.startswith((VECTORS, VALUES, ROWS)):
            return False
        # Without a mask nothing is padded, as of images: each layer has as many positions as it likes.
        return part.ndim > 2 and signals.mask is not None and part.shape[1] == signals.mask.shape[1]


def _as_rows(counted: Tensor, value: DenseLogits) -> Tensor:
    """Which rows of a head count, where a sample has a whole grid of them."""
    leading = value.shape[:-1]
    return counted if counted.shape == leading else counted.view(-1, *[1] * (len(leading) - 1)).expand(leading)
