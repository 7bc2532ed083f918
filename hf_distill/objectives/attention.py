"""Terms that compare attention maps: where each token looks.

Knows: maps, which positions count, how heads of one model stand to heads of another. Does not know: tasks, how a model
is made to show its maps.

A student in training shows its maps after dropout: some keys are zero, the others scaled up. What was dropped is left
out of both maps, and both are normalised again, so a dropped key is no difference and equal models differ by zero.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from hf_distill.models.facts import Facts
from hf_distill.objectives.functional import kl_of_log_probs
from hf_distill.objectives.layers import Layers, paired, read_layers
from hf_distill.objectives.streams import StreamTerm
from hf_distill.objectives.token_weights import sum_over
from hf_distill.signals import Signals, Stream, Sum

HEADS = ("auto", "mean")
"""How heads are paired: one to one or group by group where the counts allow it, or always the mean of all heads."""


class AttentionTerm(StreamTerm):
    """What the terms below share: pairs of layers and heads, and no padding, neither as query nor as key.

    A subclass implements ``compare``: two maps in, a value per head and query out. The mean is taken over the pairs of
    layers and over the heads.

    Args:
        layers: ``"uniform"`` (by relative depth), ``"lineage"``, ``"last"``, ``"skip"``, or student layer -> teacher
            layer, or to several, counted from 1 (the embeddings, 0, have no maps). See ``layers.AUTOMATIC``.
        heads: ``"auto"`` compares head with head where both models have as many, each head of the student with the
            mean of its group where the teacher has a multiple, and the means of all heads otherwise; ``"mean"``
            always does the last.
        stream: the sequence of positions that look at each other, such as ``"encoder"`` of an encoder-decoder; None:
            the task's main one. See ``StreamTerm``.

    Raises:
        ValueError: layers that cannot be read, or another word for heads.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"attention"})
    unit: ClassVar[str] = "tokens"
    name: ClassVar[str]

    def __init__(self, layers: Layers | None = None, heads: str = "auto", stream: str | None = None) -> None:
        super().__init__(stream)
        self.layers = read_layers("uniform" if layers is None else layers, self.name)
        if heads not in HEADS:
            raise ValueError(f"heads={heads!r} was given to {self.name}: use {' or '.join(HEADS)}.")
        self.heads, self.pairs = heads, []

    def build(self, student: Facts, teacher: Facts) -> None:
        """Pair the layers; see ``Term.build``."""
        both = student.stream(self.other), teacher.stream(self.other)
        self.pairs = paired(self.layers, *both, self.name, first=1)

    @abstractmethod
    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compare maps whose rows are distributions over the keys that were left, or zero where none was.

        Args:
            student: float32 [B, heads, T, T].
            teacher: float32 [B, heads, T, T], zero where the student's is.

        Returns:
            [B, heads, T], what each query costs; 0 where its row is zero.
        """

    def forward(self, student: Signals, teacher: Signals, batch: Mapping[str, Any]) -> Sum:
        """Add over the queries that are not padding; see ``Term.forward``."""
        student, teacher = student.stream(self.other), teacher.stream(self.other)
        total, counted = 0.0, student.mask
        for ours, theirs in self.pairs:
            shown = _map(student, ours, "student").float()
            wanted = _map(teacher, theirs, "teacher").to(shown.device, torch.float32)
            if shown.shape[2:] != wanted.shape[2:] or shown.shape[-1] != shown.shape[-2]:
                raise ValueError(
                    f"the student shows attention maps of {list(shown.shape[2:])} tokens, the teacher of "
                    f"{list(wanted.shape[2:])}: {self.name} needs square maps over one tokenizer's tokens; use a term "
                    "on logits."
                )
            if counted is None:
                counted = torch.ones(shown.shape[0], shown.shape[-1], dtype=torch.bool, device=shown.device)
            counted = counted.to(shown.device)
            shown, wanted = _same_heads(shown, wanted, self.heads)
            real = counted[:, None, :, None] & counted[:, None, None, :]
            left = real & (shown > 0)
            shown, wanted = (_normalised(one.masked_fill(~left, 0)) for one in (shown, wanted))
            total = total + self.compare(shown, wanted).masked_fill(~counted[:, None], 0).mean(dim=1).sum()
        return sum_over(counted, total / len(self.pairs), student.mask)

    def extra_repr(self) -> str:
        """Show the pairs in ``print(term)``."""
        return f"pairs={self.pairs or self.layers}, heads={self.heads}{super().extra_repr()}"


class AttentionMSE(AttentionTerm):
    """Squared difference of attention maps, added over a query's keys.

    The mean over the pairs of layers and the heads of ``|| a_s - a_t ||**2``, added over tokens (queries).

    Args:
        layers: which layers learn from which, ``"uniform"`` by default; see ``AttentionTerm``.
        heads: ``"auto"`` or ``"mean"``; see ``AttentionTerm``.
        stream: which sequence of positions; see ``AttentionTerm``.

    Raises:
        ValueError: layers that cannot be read, or another word for heads.

    Reference:
        Jiao et al.: TinyBERT, arXiv:1909.10351, equation 7 (there over scores before the softmax, which models do not
        show).

    Example:
        >>> term, eye = AttentionMSE(), torch.eye(2).expand(1, 1, 2, 2)
        >>> term.build(Facts(num_layers=1), Facts(num_layers=1))
        >>> ours, theirs = (Signals({}, attention=(a,), mask=torch.ones(1, 2).bool()) for a in (eye / 2 + 0.25, eye))
        >>> term(ours, theirs, {})
        Sum(total=tensor(0.2500), count=tensor(2))
    """

    citation: ClassVar[str] = "Jiao et al.: TinyBERT, arXiv:1909.10351"
    name: ClassVar[str] = "attention_mse"

    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the squared difference; see ``AttentionTerm.compare``."""
        return (student - teacher).square().sum(dim=-1)


class AttentionKL(AttentionTerm):
    """KL(teacher's attention || student's), for each query.

    The mean over the pairs of layers and the heads, added over tokens (queries).

    Args:
        layers: which layers learn from which, ``"uniform"`` by default; see ``AttentionTerm``.
        heads: ``"auto"`` or ``"mean"``; see ``AttentionTerm``.
        stream: which sequence of positions; see ``AttentionTerm``.

    Raises:
        ValueError: layers that cannot be read, or another word for heads.

    Reference:
        Wang et al.: MiniLM, arXiv:2002.10957, equation 5.

    Example:
        >>> term, eye = AttentionKL(), torch.eye(2).expand(1, 1, 2, 2)
        >>> term.build(Facts(num_layers=1), Facts(num_layers=1))
        >>> ours, theirs = (Signals({}, attention=(a,), mask=torch.ones(1, 2).bool()) for a in (eye / 2 + 0.25, eye))
        >>> term(ours, theirs, {})
        Sum(total=tensor(0.5754), count=tensor(2))
    """

    citation: ClassVar[str] = "Wang et al.: MiniLM: Deep Self-Attention Distillation, arXiv:2002.10957"
    name: ClassVar[str] = "attention_kl"

    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the divergence; see ``AttentionTerm.compare``."""
        least = torch.finfo(torch.float32).tiny  # a key that the teacher gives nothing costs what the student gives it
        return kl_of_log_probs(*(one.clamp(min=least).log() for one in (teacher, student)))


def _same_heads(student: Tensor, teacher: Tensor, heads: str) -> tuple[Tensor, Tensor]:
    """Bring two maps [B, heads, T, T] to equal numbers of heads."""
    ours, theirs = student.shape[1], teacher.shape[1]
    if heads == "mean" or theirs % ours:
        return student.mean(dim=1, keepdim=True), teacher.mean(dim=1, keepdim=True)
    return student, teacher.unflatten(1, (ours, theirs // ours)).mean(dim=2)


def _normalised(maps: Tensor) -> Tensor:
    return maps / maps.sum(dim=-1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)


def _map(signals: Stream, layer: int, owner: str) -> Tensor:
    if layer > len(signals.attention):
        raise ValueError(
            f"the attention maps of layer {layer} of the {owner} were asked for, it showed {len(signals.attention)}: "
            "use a model that returns them under eager attention, or a term that needs none (minilm)."
        )
    return signals.attention[layer - 1]
