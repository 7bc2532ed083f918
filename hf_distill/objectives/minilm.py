"""Terms that compare how queries, keys and values stand to each other: any width, any number of heads, any attention.

Knows: queries, keys and values of one layer, which positions count. Does not know: how a model computes attention, so
it runs under SDPA and flash attention too; tasks, heads of distributions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from hf_distill.models.facts import Facts
from hf_distill.objectives.functional import kl_of_log_probs
from hf_distill.objectives.layers import Layers, paired, read_layers
from hf_distill.objectives.term import Term
from hf_distill.objectives.token_weights import sum_over
from hf_distill.signals import Signals, Sum

KINDS = {"q": 0, "k": 1, "v": 2}
RELATIONS = tuple(a + b for a in KINDS for b in KINDS)


class MiniLM(Term):
    """MiniLM v2: KL between the self-relations of queries, of keys and of values, cut into as many relation heads.

    For one layer's queries, keys or values X, cut along their width into r relation heads of size d:
    ``R = softmax(X_a X_b' / sqrt(d))`` over the real tokens of a row. What is added over tokens is the mean over the
    relation heads of ``KL(R_teacher || R_student)``, summed over the relations. Neither width nor head count has to
    agree: only ``relation_heads`` must divide both widths. Queries and keys are taken before rotary positions, and of
    the task's main stream: there is no option ``stream``.

    Args:
        layers: ``None`` pairs the two last layers, as v1 did (v2 found a layer below the last to be better in deep
            teachers: ``{6: 10}``); else as in ``layers.AUTOMATIC``, counted from 1.
        relations: which to compare, two letters of q, k, v each: ``("qq", "kk", "vv")`` in v2.
        relation_heads: how many heads to cut into; None: as many as the teacher's attention heads if they divide both
            widths, else the most that do.

    Raises:
        ValueError: a relation that is none, a number of heads that divides not both widths, or layers that are not
            there.

    Reference:
        Wang et al.: MiniLMv2, arXiv:2012.15828, equations 6 to 9.

    Example:
        >>> term = MiniLM(relation_heads=2)
        >>> term.build(Facts(hidden_size=4, num_layers=1), Facts(hidden_size=8, num_layers=3))
        >>> term.pairs
        [(1, 3)]
        >>> real = torch.ones(1, 2, dtype=torch.bool)
        >>> ours, theirs = (Signals({}, qkv=((torch.ones(1, 2, width),) * 3,) * 3, mask=real) for width in (4, 8))
        >>> term(ours, theirs, {})
        Sum(total=tensor(0.), count=tensor(2))
    """

    needs: ClassVar[frozenset[str]] = frozenset({"qkv"})
    unit: ClassVar[str] = "tokens"
    citation: ClassVar[str] = (
        "Wang et al.: MiniLMv2: Multi-Head Self-Attention Relation Distillation, arXiv:2012.15828"
    )
    name: ClassVar[str] = "minilm"

    def __init__(
        self,
        layers: Layers | None = None,
        relations: tuple[str, ...] | list[str] = ("qq", "kk", "vv"),
        relation_heads: int | None = None,
    ) -> None:
        super().__init__()
        self.layers = read_layers(layers, self.name)
        if not relations or not set(relations) <= set(RELATIONS):
            raise ValueError(
                f"relations={list(relations)} was given to {self.name}: name some of {', '.join(RELATIONS)}."
            )
        if relation_heads is not None and relation_heads < 1:
            raise ValueError(f"relation_heads={relation_heads} was given to {self.name}: give at least 1.")
        self.relations, self.asked_heads, self.relation_heads = tuple(relations), relation_heads, relation_heads
        self.pairs: list[tuple[int, int]] = []

    def build(self, student: Facts, teacher: Facts) -> None:
        """Pair the layers, and settle the number of relation heads; see ``Term.build``."""
        self.pairs = paired(self.layers, student, teacher, self.name, first=1)
        widths = [facts.hidden_size for facts in (student, teacher)]
        if self.asked_heads is None and None not in widths:
            common = math.gcd(*widths)
            wanted = teacher.num_heads or 1
            self.relation_heads = max(n for n in range(1, min(wanted, common) + 1) if common % n == 0)
        for facts in (student, teacher):
            self._check_width(facts.hidden_size, facts.name)

    def _check_width(self, width: int | None, name: str) -> None:
        if width is not None and self.relation_heads is not None and width % self.relation_heads:
            raise ValueError(
                f"relation_heads={self.relation_heads} was given to {self.name}, which does not divide the width "
                f"{width} of {name}: give a common divisor of both models' widths, or leave it out."
            )

    def forward(self, student: Signals, teacher: Signals, batch: Mapping[str, Any]) -> Sum:
        """Add over the tokens that are not padding; see ``Term.forward``."""
        total, counted = 0.0, student.mask
        for ours, theirs in self.pairs:
            shown, wanted = _layer(student, ours, "student"), _layer(teacher, theirs, "teacher")
            if shown[0].shape[:2] != wanted[0].shape[:2]:
                raise ValueError(
                    f"the student shows queries for {list(shown[0].shape[:2])} positions, the teacher for "
                    f"{list(wanted[0].shape[:2])}: {self.name} needs one tokenizer for both; use a term on logits."
                )
            if counted is None:
                counted = torch.ones(shown[0].shape[:2], dtype=torch.bool, device=shown[0].device)
            counted = counted.to(shown[0].device)
            for relation in self.relations:
                log_s, log_t = (
                    self._relation(side, relation, counted, name)
                    for side, name in ((shown, "the student"), (wanted, "the teacher"))
                )
                total = total + kl_of_log_probs(log_t, log_s).masked_fill(~counted[:, None], 0).mean(dim=1).sum()
        return sum_over(counted, total / len(self.pairs), student.mask)

    def _relation(self, layer: tuple[Tensor, Tensor, Tensor], relation: str, counted: Tensor, name: str) -> Tensor:
        """Return log softmax(A B' / sqrt(d)) as float32 [B, relation heads, T, T]; keys that are padding get none."""
        padding = ~counted.unsqueeze(-1)
        sides = []
        for kind in relation:
            side = layer[KINDS[kind]].to(counted.device, torch.float32).masked_fill(padding, 0)
            self._check_width(side.shape[-1], f"{name}'s {kind}")
            sides.append(side.unflatten(-1, (self.relation_heads or 1, -1)).transpose(1, 2))
        if sides[0].shape[-1] != sides[1].shape[-1]:
            raise ValueError(
                f"{relation} was asked of {self.name}, {name} has fewer heads for keys and values than for queries: "
                "compare qq, kk and vv."
            )
        with torch.autocast(counted.device.type, enabled=False):
            scores = sides[0] @ sides[1].transpose(-1, -2) / math.sqrt(sides[0].shape[-1])
        # A finite number, not minus infinity: a row of nothing but padding must stay a number too.
        return scores.masked_fill(~counted[:, None, None, :], -1e9).log_softmax(dim=-1)

    def extra_repr(self) -> str:
        """Show what is compared in ``print(term)``."""
        return f"pairs={self.pairs or self.layers}, relations={self.relations}, relation_heads={self.relation_heads}"


class MiniLMv1(MiniLM):
    """MiniLM v1: KL between attention (queries with keys) and between the relations of values, of the last layers.

    Both are computed from queries, keys and values, head by head, so it runs under SDPA; both models must have as many
    attention heads. Masks are not applied beyond padding, positions beyond those in queries and keys neither.

    Args:
        layers: ``None`` pairs the two last layers; else as in ``layers.AUTOMATIC``, counted from 1.

    Raises:
        ValueError: other numbers of attention heads, or layers that are not there.

    Reference:
        Wang et al.: MiniLM, arXiv:2002.10957, equations 5 to 8.

    Example:
        >>> term = MiniLMv1()
        >>> facts = Facts(hidden_size=4, num_layers=2, num_heads=2)
        >>> term.build(facts, facts)
        >>> term.relations, term.relation_heads
        (('qk', 'vv'), 2)
    """

    citation: ClassVar[str] = "Wang et al.: MiniLM: Deep Self-Attention Distillation, arXiv:2002.10957"
    name: ClassVar[str] = "minilm_v1"

    def __init__(self, layers: Layers | None = None) -> None:
        super().__init__(layers, relations=("qk", "vv"))

    def build(self, student: Facts, teacher: Facts) -> None:
        """Refuse other head counts, and take theirs; see ``Term.build``."""
        if student.num_heads is None or student.num_heads != teacher.num_heads:
            raise ValueError(
                f"minilm_v1 compares attention head by head, the student {student.name} has {student.num_heads} heads "
                f"and the teacher {teacher.name} {teacher.num_heads}: use minilm, which takes any head count."
            )
        self.asked_heads = self.relation_heads = student.num_heads
        super().build(student, teacher)


def _layer(signals: Signals, layer: int, owner: str) -> tuple[Tensor, Tensor, Tensor]:
    if layer > len(signals.qkv):
        raise ValueError(
            f"queries, keys and values of layer {layer} of the {owner} were asked for, {len(signals.qkv)} were heard: "
            "name another layer, or use a term on hidden states."
        )
    return signals.qkv[layer - 1]
