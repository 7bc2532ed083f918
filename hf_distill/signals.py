"""What one model shows for one batch: the words that every other file speaks.

Knows: distributions, values and which of their rows count, vectors, hidden states, a sum with its count.
Does not know: who made them (a student, a teacher, a cache), for which task, or which trainer asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

CATEGORICAL, BINARY, POINTER, NUMBER = "categorical", "binary", "pointer", "number"
"""What a head is: one class of several; several classes, each there or not; a place in the row itself, so that rows
have other classes; a number, which is no distribution."""

ABSENT = -1e4
"""The logit of a class that a row does not have, where rows have different ones: no probability, in any dtype."""


STUDENT_WROTE = "student_wrote"
"""Column of a batch, bool [B]: rows whose labels are what the student wrote itself. They say what the terms compare,
and nothing about what is right."""


class Sum(NamedTuple):
    """A total and the number of things it is a total of; nothing is divided before every rank and batch is added.

    Args:
        total: scalar, float32. The sum of what each counted thing costs.
        count: scalar, integer. How many things were counted; 0 is allowed, the total is then 0 with a graph.

    Example:
        >>> Sum(torch.tensor(6.0), torch.tensor(4)).mean()
        tensor(1.5000)
        >>> Sum(torch.tensor(0.0), torch.tensor(0)).mean()
        tensor(0.)
    """

    total: Tensor
    count: Tensor

    def mean(self) -> Tensor:
        """Return total / count, or 0 where nothing was counted."""
        return self.total / self.count.clamp(min=1)


@runtime_checkable
class Logits(Protocol):
    """A stack of N unnormalised distributions over V classes, held in whatever way costs least.

    ``DenseLogits`` holds the tensor. Other forms answer the same three questions, so no divergence ever asks which
    form it was given. ``TopKLogits``, the few ids of a stored teacher, has no honest chunk: it answers ``few``.
    """

    shape: torch.Size  # the leading shape, then V

    def select(self, rows: Tensor) -> Logits:
        """Keep the rows where ``rows`` (bool, the leading shape) is true: [n, V]. The others then cost nothing."""

    def chunk(self, start: int, stop: int) -> Tensor:
        """Return rows ``start:stop`` of the flattened leading shape as float32 [stop - start, V]."""

    def finite(self) -> Tensor:
        """Return for each row (bool, the leading shape) whether it holds neither infinity nor NaN."""


class DenseLogits:
    """Logits that already exist as a tensor.

    Args:
        tensor: [..., V], any floating dtype.

    Example:
        >>> logits = DenseLogits(torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, float("nan")]], dtype=torch.bfloat16))
        >>> logits.finite()
        tensor([ True,  True, False])
        >>> logits.select(torch.tensor([False, True, False])).chunk(0, 1)
        tensor([[3., 4.]])
    """

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor

    @property
    def shape(self) -> torch.Size:
        """The leading shape, then the number of classes V."""
        return self.tensor.shape

    def select(self, rows: Tensor) -> DenseLogits:
        """Keep the rows where ``rows`` (bool, the leading shape) is true: [n, V]."""
        return DenseLogits(self.tensor[rows.to(self.tensor.device)])

    def chunk(self, start: int, stop: int) -> Tensor:
        """Return rows ``start:stop`` of the flattened leading shape as float32 [stop - start, V]."""
        return self.tensor.flatten(0, -2)[start:stop].float()

    def finite(self) -> Tensor:
        """Return for each row (bool, the leading shape) whether it holds neither infinity nor NaN."""
        return self.tensor.isfinite().all(dim=-1)


class HeadSpec(NamedTuple):
    """What a task says of a head before any batch, so that a term can say whether it may read it.

    Args:
        name: as in ``Signals.heads``.
        kind: ``CATEGORICAL``, ``BINARY``, ``POINTER`` or ``NUMBER``.
        linear: it is the model's output embeddings, so what enters them may stand for its logits.
        per_position: one distribution for each position of ``Signals.mask``, and not one a sample.
        blank: one class says nothing, and the order of the others over positions is a transcript (CTC).

    Example:
        >>> HeadSpec("logits", per_position=True).kind
        'categorical'
    """

    name: str
    kind: str = CATEGORICAL
    linear: bool = False
    per_position: bool = False
    blank: bool = False


class Head(NamedTuple):
    """Distributions and which of them count: class logits, token logits, start positions, CTC frames, queries.

    Args:
        logits: [..., V].
        rows: bool, the leading shape of ``logits``; a row that does not count has no value and no gradient.
        labels: int64, the leading shape: the class of each row, negative where it has none; None: nobody knows.
        share: what a row counts. 1; or, where a batch does not say how many rows a model makes of a sample, as of the
            cells of a grid, the part of a sample that a row is, so that samples are counted.
        weights: of a teacher, float, the leading shape: how much what it says there is to be learned, as of queries of
            a detector that see nothing; None: all alike. They change totals, and never what is counted.
        blank: the class that says nothing, of frames (CTC); None: there is none.
        own: of a teacher whose positions were brought to the student's, what it showed by its own; None: the same.
        written: int64, the leading shape: the class that stands in the text that was read, also where the student
            wrote it and it is nobody's label; negative where none is asked for. None: nobody knows.
    """

    logits: Logits
    rows: Tensor
    labels: Tensor | None = None
    share: float = 1.0
    weights: Tensor | None = None
    blank: int | None = None
    own: Head | None = None
    written: Tensor | None = None

    def labelled(self, start: int, stop: int) -> Tensor | None:
        """Return the labels of ``start:stop`` of the rows that count, int64 [stop - start]; None: nobody knows."""
        return None if self.labels is None else self.labels[self.rows][start:stop]


Grid = tuple[int, int]
"""Rows and columns of positions that lie side by side."""


@dataclass(frozen=True)
class Stream:
    """What a model shows along one sequence of positions of its own: what an encoder reads, a decoder, an image.

    Args:
        hidden: hidden states [B, T, H], the embedding output first; empty unless a term needs ``"hidden"``.
        attention: attention maps [B, heads, T, T]; empty unless a term needs ``"attention"``.
        qkv: for each layer its queries, keys and values [B, T, width]; empty unless a term needs ``"qkv"``.
        mask: bool [B, T], the positions that are not padding; None where they are not known before a forward.
        grids: for each hidden state the grid that its last positions are, row by row, None where that is not known;
            positions before them (a class token, registers) are none of it. Empty: not known of any.
    """

    hidden: Sequence[Tensor] = ()
    attention: Sequence[Tensor] = ()
    qkv: Sequence[tuple[Tensor, Tensor, Tensor]] = ()
    mask: Tensor | None = None
    grids: tuple[Grid | None, ...] = ()


class Value(NamedTuple):
    """What is no distribution, and which of it counts: boxes, depth, noise, an image, a number for each of several.

    Args:
        tensor: [B, N, D]: N things of each sample, D numbers of each thing.
        rows: bool [B, N]; a thing that does not count has no value and no gradient.
        weights: of a teacher, float [B, N]: what each thing counts in its sample; None: all that count count alike.
        form: how the D numbers lie, (height, width) of an image or (samples,) of a wave; empty: nobody says.
    """

    tensor: Tensor
    rows: Tensor
    weights: Tensor | None = None
    form: tuple[int, ...] = ()


@dataclass(frozen=True)
class Signals:
    """What one model shows for one batch. What nobody asked for is empty.

    Hidden states, maps, queries, mask and grids are those of the main stream; see ``Stream``.

    Args:
        heads: name -> Head; the names are the task's ("logits"; "start" and "end" for question answering).
        hidden: hidden states [B, T, H], the embedding output first; empty unless a term needs ``"hidden"``.
        attention: attention maps [B, heads, T, T]; empty unless a term needs ``"attention"``.
        taps: module path -> its output, for terms that need ``"tap:<path>"``.
        qkv: for each layer its queries, keys and values [B, T, width]; empty unless a term needs ``"qkv"``.
        mask: bool [B, T], the positions that are not padding; None where the model has none.
        named: name -> what one of several teachers shows by itself; empty for any other model.
        streams: name -> what is shown along another sequence of positions: ``encoder``, ``decoder``, ``vision``,
            ``audio``, ``text``.
        main: the name of the main stream.
        grids: as in ``Stream``, of the main one.
        values: name -> Value; the names are the task's (``Task.values``), as those of ``vectors`` are.
        vectors: name -> one vector for each sample [B, D]: of its image, its text, its sentence.
        encoded: what its encoder returned, as an encoder-decoder takes it for ``encoder_outputs``; None unless
            ``"encoded"`` was asked of a model that is run. No memory keeps it.
    """

    heads: dict[str, Head]
    hidden: tuple[Tensor, ...] = ()
    attention: tuple[Tensor, ...] = ()
    taps: dict[str, Any] = field(default_factory=dict)
    qkv: tuple[tuple[Tensor, Tensor, Tensor], ...] = ()
    mask: Tensor | None = None
    named: dict[str, Signals] = field(default_factory=dict)
    streams: dict[str, Stream] = field(default_factory=dict)
    main: str = "text"
    grids: tuple[Grid | None, ...] = ()
    values: dict[str, Value] = field(default_factory=dict)
    vectors: dict[str, Tensor] = field(default_factory=dict)
    encoded: Any = None

    def stream(self, name: str | None = None) -> Stream:
        """Return what is shown along one sequence of positions.

        Args:
            name: the stream's; None: the main one.

        Raises:
            ValueError: there is none of that name.

        Example:
            >>> shown = Signals({}, streams={"encoder": Stream((torch.zeros(1, 5, 8),))}, main="decoder")
            >>> shown.stream("encoder").hidden[0].shape, shown.stream().hidden
            (torch.Size([1, 5, 8]), ())
        """
        if name in (None, self.main):
            return Stream(self.hidden, self.attention, self.qkv, self.mask, self.grids)
        if name not in self.streams:
            there = ", ".join([self.main, *self.streams])
            raise ValueError(f"the stream {name!r} was asked for, the model shows {there}: name one of those.")
        return self.streams[name]

    def lost(self, name: str) -> Iterator[tuple[str, str, Tensor]]:
        """Go through what was given and find infinity and NaN among what counts, so that a fault is found where it is.

        Args:
            name: who shows these.

        Returns:
            (who gave it, what it is, bool [B, ...]: what of it cannot be used); of several teachers each one's own,
            not what was made of them.

        Example:
            >>> own = Signals({}, vectors={"text": torch.tensor([[1.0, 2.0], [float("nan"), 0.0]])})
            >>> [(who, what, rows.tolist()) for who, what, rows in Signals({}, named={"big": own}).lost("teachers")]
            [('big', "vectors 'text'", [False, True])]
        """
        for one, shown in self.named.items():
            yield from shown.lost(one)
        if self.named:
            return
        for head in self.heads.values():
            finite = head.logits.finite()
            yield name, "logits", ~finite & head.rows.to(finite.device)
        for key, value in self.values.items():
            yield name, f"values {key!r}", ~value.tensor.isfinite().all(-1) & value.rows.to(value.tensor.device)
        for key, vector in self.vectors.items():
            yield name, f"vectors {key!r}", ~vector.isfinite().all(-1)
