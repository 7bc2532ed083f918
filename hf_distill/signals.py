"""What one model shows for one batch: the words that every other file speaks.

Knows: distributions and which of their rows count, hidden states, a sum with its count, a model's measurements.
Does not know: who made them (a student, a teacher, a cache), for which task, or which trainer asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from hf_distill.snapshots import commit_of

ABSENT = -1e4
"""The logit of a class that a row does not have, where rows have different ones: no probability, in any dtype."""


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


class Head(NamedTuple):
    """Distributions and which of them count: class logits, token logits, start positions, CTC frames, queries.

    Args:
        logits: [..., V].
        rows: bool, the leading shape of ``logits``; a row that does not count has no value and no gradient.
        labels: int64, the leading shape: the class of each row, negative where it has none; None: nobody knows.
    """

    logits: Logits
    rows: Tensor
    labels: Tensor | None = None

    def labelled(self, start: int, stop: int) -> Tensor | None:
        """Return the labels of ``start:stop`` of the rows that count, int64 [stop - start]; None: nobody knows."""
        return None if self.labels is None else self.labels[self.rows][start:stop]


@dataclass(frozen=True)
class Signals:
    """What one model shows for one batch. What nobody asked for is empty.

    Args:
        heads: name -> Head; the names are the task's ("logits"; "start" and "end" for question answering).
        hidden: hidden states [B, T, H], the embedding output first; empty unless a term needs ``"hidden"``.
        attention: attention maps [B, heads, T, T]; empty unless a term needs ``"attention"``.
        taps: module path -> its output, for terms that need ``"tap:<path>"``.
        qkv: for each layer its queries, keys and values [B, T, width]; empty unless a term needs ``"qkv"``.
        mask: bool [B, T], the positions that are not padding; None where the model has none.
        named: name -> what one of several teachers shows by itself; empty for any other model.
    """

    heads: dict[str, Head]
    hidden: tuple[Tensor, ...] = ()
    attention: tuple[Tensor, ...] = ()
    taps: dict[str, Any] = field(default_factory=dict)
    qkv: tuple[tuple[Tensor, Tensor, Tensor], ...] = ()
    mask: Tensor | None = None
    named: dict[str, Signals] = field(default_factory=dict)

    def answers(self, name: str) -> Iterator[tuple[str, Head]]:
        """Go through the heads as they were given, so that a fault is found where it was made.

        Args:
            name: who shows these.

        Returns:
            (who gave it, head); of several teachers each one's own, not what was made of them.

        Example:
            >>> own = Signals({"logits": Head(DenseLogits(torch.zeros(1, 2)), torch.tensor([True]))})
            >>> [who for who, head in Signals({}, named={"big": own, "small": own}).answers("two teachers")]
            ['big', 'small']
        """
        for one, shown in self.named.items():
            yield from shown.answers(one)
        if not self.named:
            yield from ((name, head) for head in self.heads.values())


@dataclass(frozen=True)
class Facts:
    """What can be said of a model before it runs. None means: not known, nothing can be checked against it.

    Args:
        name: how to name the model in a message or a card.
        revision: the Hub commit it was loaded from.
        hidden_size: width of its hidden states.
        num_layers: number of its layers, without the embeddings.
        num_heads: number of attention heads.
        vocab_size: number of token embeddings.
        problem_type: as in ``config.problem_type``.
        labels: class names in the order of the logits.
        kept: which of its first teacher's hidden dimensions it has, if its width was cut (``config.distillation``).
    """

    name: str = "a model"
    revision: str | None = None
    hidden_size: int | None = None
    num_layers: int | None = None
    num_heads: int | None = None
    vocab_size: int | None = None
    problem_type: str | None = None
    labels: tuple[str, ...] | None = None
    kept: tuple[int, ...] | None = None

    @classmethod
    def of(cls, model: Any) -> Facts:
        """Read the facts from a model's ``config``; a module without one has only a name.

        Args:
            model: a ``PreTrainedModel``, a PEFT model, or any module.

        Example:
            >>> Facts.of(torch.nn.Linear(2, 2)).name
            'Linear'
        """
        config = getattr(model, "config", None)
        if config is None or not hasattr(config, "to_dict"):
            return cls(name=type(model).__name__)
        text = config.get_text_config() if hasattr(config, "get_text_config") else config
        id2label = getattr(config, "id2label", None)
        name = getattr(config, "_name_or_path", "") or ""
        return cls(
            name=name or type(model).__name__,
            revision=getattr(config, "_commit_hash", None) or commit_of(name),
            hidden_size=getattr(text, "hidden_size", None),
            num_layers=getattr(text, "num_hidden_layers", None),
            num_heads=getattr(text, "num_attention_heads", None),
            vocab_size=getattr(text, "vocab_size", None),
            problem_type=getattr(config, "problem_type", None),
            labels=tuple(str(id2label[i]) for i in sorted(id2label)) if id2label else None,
            kept=_kept(getattr(config, "distillation", None) or ()),
        )

    def places(self, other: Facts) -> tuple[int, ...] | None:
        """Say where another model has the hidden dimensions that this one kept; None: nowhere that is known.

        Args:
            other: the model that this one's width was cut from, or one that was cut from it before.

        Example:
            >>> wide, first = Facts(hidden_size=6), Facts(hidden_size=3, kept=(0, 2, 5))
            >>> second = Facts(hidden_size=2, kept=(2, 5))
            >>> first.places(wide), second.places(wide), second.places(first), wide.places(first)
            ((0, 2, 5), (2, 5), (1, 2), None)
        """
        theirs = other.kept if other.kept is not None else range(other.hidden_size or 0)
        if self.kept is None or len(self.kept) != self.hidden_size or not set(self.kept) <= set(theirs):
            return None
        return tuple(theirs.index(dimension) for dimension in self.kept)


def _kept(steps: Iterable[Mapping[str, Any]]) -> tuple[int, ...] | None:
    kept = None
    for step in steps:
        if (some := step.get("kept")) is not None:
            kept = tuple(some) if kept is None else tuple(kept[dimension] for dimension in some)
    return kept
