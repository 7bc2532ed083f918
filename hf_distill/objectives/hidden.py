"""Terms that compare hidden states, layer by layer and token by token.

Knows: hidden states, which positions count, widths and depths. Does not know: tasks, heads, how a model is wrapped.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hf_distill.objectives.term import Term
from hf_distill.signals import Facts, Signals, Sum


class HiddenMSE(Term):
    """Mean squared difference of hidden states; where the widths differ the student's are projected first.

    For the pairs of layers (s, t), with a trained matrix W_st where the two widths differ and none where they do not:
    the mean over pairs of ``|| W_st h_s - h_t ||**2 / width of the teacher``, added over tokens. Layer 0 is the
    embedding output. The projections are trained with the student and are in no published student.

    Args:
        layers: student layer -> teacher layer, or one layer of the student to several of the teacher. None: every
            layer of the student to the one at the same relative depth, the embeddings to the embeddings.

    Raises:
        ValueError: a layer that is no number of at least 0.

    Reference:
        Romero et al.: FitNets, arXiv:1412.6550, equation 3; Jiao et al.: TinyBERT, arXiv:1909.10351, equations 8, 9.

    Example:
        >>> term = HiddenMSE(layers={1: 2})
        >>> term.build(Facts(hidden_size=4, num_layers=1), Facts(hidden_size=6, num_layers=2))
        >>> term.projections["1_2"].weight.shape
        torch.Size([6, 4])
        >>> shown = lambda width, layers: Signals({}, hidden=tuple(torch.ones(2, 3, width) for _ in range(layers)))
        >>> term(shown(4, 2), shown(6, 3), {}).count
        tensor(6)
    """

    needs: ClassVar[frozenset[str]] = frozenset({"hidden"})
    unit: ClassVar[str] = "tokens"
    citation: ClassVar[str] = "Romero et al.: FitNets: Hints for Thin Deep Nets, arXiv:1412.6550"

    def __init__(self, layers: Mapping[int | str, int | list[int]] | None = None) -> None:
        super().__init__()
        self.layers = None if layers is None else _read(layers)
        self.pairs: list[tuple[int, int]] = []
        self.projections = nn.ModuleDict()

    def build(self, student: Facts, teacher: Facts) -> None:
        """Pair the layers and make the projections; see ``Term.build``."""
        for owner, facts in (("student", student), ("teacher", teacher)):
            if facts.hidden_size is None or facts.num_layers is None:
                raise ValueError(
                    f"hidden_mse compares hidden states, the {owner} {facts.name} has no config that gives its "
                    "hidden_size and num_hidden_layers: use a transformers model, or a term that compares logits."
                )
        pairs = self.layers if self.layers is not None else uniform_pairs(student.num_layers, teacher.num_layers)
        for owner, facts, asked in zip(
            ("student", "teacher"), (student, teacher), zip(*pairs, strict=True), strict=True
        ):
            if max(asked) > facts.num_layers:
                raise ValueError(
                    f"layer {max(asked)} of the {owner} {facts.name} was asked for, it has the layers 0 (embeddings) "
                    f"to {facts.num_layers}: name one of those."
                )
        self.pairs, self.projections = list(pairs), nn.ModuleDict()
        if student.hidden_size != teacher.hidden_size:
            for ours, theirs in self.pairs:
                projection = nn.Linear(student.hidden_size, teacher.hidden_size, bias=False)
                self.projections[f"{ours}_{theirs}"] = projection

    def forward(self, student: Signals, teacher: Signals, batch: Mapping[str, Any]) -> Sum:
        """Add over the positions that are not padding; see ``Term.forward``."""
        counted, total = student.mask, 0.0
        for ours, theirs in self.pairs:
            shown = _layer(student, ours, "student")
            wanted = _layer(teacher, theirs, "teacher").to(shown.device)
            if shown.shape[:-1] != wanted.shape[:-1]:
                raise ValueError(
                    f"the student shows hidden states for {list(shown.shape[:-1])} positions, the teacher for "
                    f"{list(wanted.shape[:-1])}: hidden_mse needs one tokenizer for both; use a term on logits."
                )
            if counted is None:
                counted = torch.ones(shown.shape[:-1], dtype=torch.bool, device=shown.device)
            # Padding becomes zero on both sides, before the projection: not-a-number times a zero gradient is not
            # zero. Unlike a selection this waits for no device.
            padding = ~counted.to(shown.device).unsqueeze(-1)
            shown, wanted = shown.masked_fill(padding, 0), wanted.float().masked_fill(padding, 0)
            if f"{ours}_{theirs}" in self.projections:
                shown = self.projections[f"{ours}_{theirs}"](shown)
            total = total + F.mse_loss(shown.float(), wanted, reduction="sum") / wanted.shape[-1]
        return Sum(total / len(self.pairs), counted.sum())

    def extra_repr(self) -> str:
        """Show the pairs in ``print(term)``."""
        return f"pairs={self.pairs or self.layers}"


def uniform_pairs(student: int, teacher: int) -> list[tuple[int, int]]:
    """Pair every layer of the student with the teacher's at the same relative depth, embeddings with embeddings.

    Args:
        student: its number of layers, without the embeddings.
        teacher: its number of layers.

    Returns:
        (student layer, teacher layer), from the embeddings up.

    Example:
        >>> uniform_pairs(3, 6)
        [(0, 0), (1, 2), (2, 4), (3, 6)]
    """
    return [(layer, round(layer * teacher / max(1, student))) for layer in range(student + 1)]


def _read(layers: Mapping[int | str, int | list[int]]) -> list[tuple[int, int]]:
    """Read what a user wrote; in JSON the keys are strings."""
    pairs = []
    for ours, several in layers.items():
        for theirs in several if isinstance(several, (list, tuple)) else [several]:
            if not str(ours).isdecimal() or not str(theirs).isdecimal():
                raise ValueError(
                    f"layers={dict(layers)} was given to hidden_mse: give student layer -> teacher layer, numbers "
                    "from 0 (the embeddings) up."
                )
            pairs.append((int(ours), int(theirs)))
    if not pairs:
        raise ValueError("layers={} was given to hidden_mse: name a pair, or leave layers out to pair them by depth.")
    return pairs


def _layer(signals: Signals, layer: int, owner: str) -> Tensor:
    if layer >= len(signals.hidden):
        raise ValueError(
            f"layer {layer} of the {owner} was asked for, it showed {len(signals.hidden)} hidden states: use a model "
            "that returns them all (output_hidden_states=True), or name another layer."
        )
    return signals.hidden[layer]
