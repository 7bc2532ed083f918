"""Two tokenizers, one text: both models are compared where they have read the same part of it.

Knows: heads, token strings, character offsets. Does not know: tokenizers, objectives, teachers, trainers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from hf_distill.models.facts import Facts
from hf_distill.signals import Head, Signals
from hf_distill.tasks.alignment.merged import SpanLogits
from hf_distill.tasks.alignment.segments import Side, Tokens, spans
from hf_distill.tasks.alignment.spelling import spelled
from hf_distill.tasks.alignment.tokens import KNOW, PREFIX, Alignment, own_columns, whole_heads
from hf_distill.tasks.alignment.vocabulary import Shared, Vocabulary, places
from hf_distill.tasks.layout import without_layout

OFFSETS = "offset_mapping"
"""The batch column [B, T, 2] of where each predicted token is in the text, and ``teacher_offset_mapping``."""


class _Vocabularies(NamedTuple):
    """What both models can say, in the columns of two heads of known sizes."""

    shared: Shared
    own: tuple[Tensor, Tensor]
    rest: tuple[Tensor | None, Tensor | None]
    place: tuple[Tensor, Tensor]


class SpanAlignment(Alignment):
    """The same text, tokenised twice: what both models expect next is compared wherever both have read equally far.

    The text is cut behind every character behind which a token of both models ends. At the beginning of each part, a
    *span*, both models have read the same text, and each has a distribution over its next token there. These two are
    compared, once a span, in classes that both can speak of (``SpanLogits`` has the formulas):

    1. every token with the same text in both vocabularies: the probability that it is next;
    2. the span itself, if no such token is all of it: the product of the probabilities of its tokens, which is how
       many a model needs for it. If such a token is all of it, the span belongs to that token's class. The span's
       probability is taken away from its first token's, so that no event is counted twice;
    3. everything else, together, if each model has tokens that the other has not; otherwise both are normalised over
       the classes above, as in ``TokenAlignment``.

    A temperature softens these classes, not the tokens that were merged. With one tokenizer for both models, every
    token is a span and a class, and this is the ordinary comparison. Any objective that compares logits can be used.

    Offsets come from the batch, not from token strings, which do not tell what a tokenizer changed or left out:
    ``offset_mapping`` and ``teacher_offset_mapping`` [B, T, 2], as a fast tokenizer gives them for the same text, of
    the tokens that are predicted (``input_ids``, in an encoder-decoder ``labels``). Tokens for no text, (0, 0), are in
    no span, except the first behind the text, its end. Spans of which a token does not count, for a label of -100 or
    ``teacher_labels`` of -100, are left out. ``hf_distill.TwoTokenizers`` makes and pads all these columns.

    Reference:
        Minixhofer, Ponti, Vulić: Universal Cross-Tokenizer Distillation via Approximate Likelihood Matching,
        arXiv:2503.20083, compares likelihoods of chunks; Boizard et al., arXiv:2402.12030, whole distributions.
    """

    columns: ClassVar[frozenset[str]] = frozenset({OFFSETS, f"{PREFIX}{OFFSETS}", f"{PREFIX}labels"})
    same_positions: ClassVar[bool] = False

    def meet(
        self,
        student: Facts,
        ours: Vocabulary | None,
        teacher: Facts,
        theirs: Vocabulary | None,
        own: bool = False,
        name: str | None = None,
    ) -> None:
        """Refuse a tokenizer that is not known; see ``Alignment.meet``."""
        if ours is None or theirs is None:
            who = "the student" if ours is None else f"the teacher {teacher.name}"
            raise ValueError(
                f'teacher_alignment="span" compares tokens by their text, the tokenizer of {who} is not known: {KNOW}.'
            )
        if ours != theirs:
            ours, theirs = spelled(ours), spelled(theirs)
        super().meet(student, ours, teacher, theirs, own, name)

    def count(self, task: Any, batch: Mapping[str, Any]) -> Tensor:
        """Count the spans; see ``Alignment.count``."""
        lengths = self._sides(task, batch)[0].lengths
        return lengths.new_tensor(len(lengths))

    def pair(
        self,
        task: Any,
        student: Signals,
        teacher: Signals,
        batch: Mapping[str, Any],
        name: str | None = None,
    ) -> tuple[Signals, Signals]:
        """Make one head of the spans that a shared token stands for, one of the others; see ``Alignment.pair``."""
        heads, sides = whole_heads(student, teacher, "span"), self._sides(task, batch)
        sizes = (heads[0].logits.shape[-1], heads[1].logits.shape[-1])
        known = self._vocabularies(name, sizes, sides[0].tokens.device)
        place = self._place(sides, known.place)
        made: tuple[dict[str, Head], dict[str, Head]] = ({}, {})
        for key, chosen in (("logits", place >= 0), ("spans", place < 0)):
            where, classes = place[chosen], torch.full_like(place[chosen], len(known.shared.ours))
            counted = torch.ones_like(where, dtype=torch.bool)
            for one, head, side, own, shared, rest in zip(
                made, heads, sides, known.own, known.shared, known.rest, strict=True
            ):
                part = side.chosen(chosen)
                each = (part.tokens, part.lengths, own, shared, rest, where if key == "logits" else None)
                logits = SpanLogits(head.logits.select(part.rows), *each)
                one[key] = Head(logits, counted, where if key == "logits" else classes)
        return replace(student, heads=made[0]), replace(teacher, heads=made[1])

    def _place(self, sides: tuple[Side, Side], place: tuple[Tensor, Tensor]) -> Tensor:
        """Return for each span the shared token that stands for it in either model, int64 [N]; -1: none does."""
        ours, theirs = (
            torch.where(side.lengths == 1, where[side.firsts], -1) for side, where in zip(sides, place, strict=True)
        )
        return torch.where(ours >= 0, ours, theirs)

    def _sides(self, task: Any, batch: Mapping[str, Any]) -> tuple[Side, Side]:
        ours, theirs = task.text(batch), task.text(task.teacher_batch(batch))
        if ours is None or theirs is None or ours.offsets is None or theirs.offsets is None:
            raise ValueError(
                f'teacher_alignment="span" reads where tokens are in the text from {OFFSETS} and {PREFIX}{OFFSETS}, '
                f"the batch has {sorted(without_layout(batch))}: "
                "tokenise and collate with hf_distill.TwoTokenizers, or keep what "
                "return_offsets_mapping=True gives, for input_ids, in an encoder-decoder for labels and "
                f"{PREFIX}labels."
            )
        return spans(_checked(ours), _checked(theirs))

    def _vocabularies(self, name: str | None, sizes: tuple[int, int], device: torch.device) -> _Vocabularies:
        key = (name, sizes, device)
        if key not in self._made:
            known = self.known[name]
            shared = Shared.of(*known, *sizes)
            own = [own_columns(one, size) for one, size in zip(known, sizes, strict=True)]
            place = [places(one, size) for one, size in zip(shared, sizes, strict=True)]
            rest = [columns[where[columns] < 0] for columns, where in zip(own, place, strict=True)]
            if not all(map(len, rest)):
                rest = [None, None]
            self._made[key] = _Vocabularies(
                *(tuple(t if t is None else t.to(device) for t in one) for one in (shared, own, rest, place))
            )
            self._made[key] = self._made[key]._replace(shared=Shared(*self._made[key].shared))
        return self._made[key]


def _checked(tokens: Tokens) -> Tokens:
    if tokens.offsets.shape != (*tokens.ids.shape, 2):
        raise ValueError(
            f"{OFFSETS} has the shape {list(tokens.offsets.shape)} for tokens of shape {list(tokens.ids.shape)}: give "
            "[B, T, 2], padded with (0, 0) as the tokens are."
        )
    return tokens
