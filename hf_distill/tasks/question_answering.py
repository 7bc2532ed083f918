"""Question answering by a span of the text: where the answer begins and where it ends.

Knows: two heads whose classes are the positions of the text, and how their losses are summed. Does not know:
objectives, teachers' whereabouts, trainers.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.auto.modeling_auto import MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES

from hf_distill.models.classes import names_in, own_loss_of
from hf_distill.models.outputs import core_of
from hf_distill.signals import ABSENT, POINTER, DenseLogits, Head, HeadSpec, Signals, Sum
from hf_distill.tasks.task import Task

HEADS = {"start": "start_positions", "end": "end_positions"}
"""head -> the column that holds its labels."""


class QuestionAnswering(Task):
    """Where an answer begins and where it ends: two distributions over the positions of a text.

    The heads are ``start`` and ``end``, softmax logits [B, T] each. Padding is no class: its logits are -10,000,
    without a gradient, in both models and in the hard loss too, so that a row costs the same however wide it is
    padded. (transformers' own loss gives padding a share of the probability; the two are equal where there is none.)

    The hard loss is the cross-entropy of every position that there is, added over samples and heads, and divided by
    how many these are: (start + end) / 2, as transformers has it, where every sample has both. A position outside of
    the text is ignored, as transformers does, and so is a negative one (-100: no label), which transformers takes for
    the first token. Such a sample is still taught.

    Args:
        own_loss: the model computes a loss of its own that this class does not know.

    Example:
        >>> batch = {"input_ids": torch.ones(2, 4), "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])}
        >>> batch |= {"start_positions": torch.tensor([1, -100]), "end_positions": torch.tensor([3, 1])}
        >>> {unit: n.item() for unit, n in QuestionAnswering().counts(batch).items()}
        {'rows': 4, 'tokens': 6, 'samples': 2, 'labels': 3}
        >>> QuestionAnswering().hard((torch.zeros(2, 4), torch.zeros(2, 4)), batch)  # 2 log 4 + log 2
        Sum(total=tensor(3.4657), count=tensor(3))
    """

    auto_class: ClassVar[str] = "AutoModelForQuestionAnswering"
    pipeline_tag: ClassVar[str] = "question-answering"
    hidden_first: ClassVar[bool] = True
    of_text: ClassVar[bool] = True
    label_names: ClassVar[tuple[str, ...]] = tuple(HEADS.values())

    def __init__(self, own_loss: bool = False) -> None:
        self.own_loss = own_loss

    @property
    def heads(self) -> tuple[HeadSpec, ...]:
        """Where an answer begins and where it ends: places in the row itself."""
        return tuple(HeadSpec(name, POINTER, per_position=True) for name in HEADS)

    @classmethod
    def from_model(cls, model: nn.Module) -> QuestionAnswering | None:
        """Return the task for an extractive question answering model, None for any other; see ``Task.from_model``."""
        # The name alone says too little: models that answer about images choose among words, also in the mapping.
        if not set(HEADS.values()) <= set(inspect.signature(core_of(model).forward).parameters):
            return None
        own = own_loss_of(model, names_in(MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES), "ForQuestionAnswering")
        return None if own is None else cls(own_loss=own)

    def rows(self, batch: Mapping[str, Any]) -> Tensor:
        """Every sample with a text counts in both heads, labelled or not; bool [B]. See ``Task.rows``."""
        return self._text(batch).any(dim=-1)

    def labels(self, batch: Mapping[str, Any]) -> Tensor | None:
        """Positions inside of the text, bool [B, 2], start and end; see ``Task.labels``."""
        if any(batch.get(name) is None for name in self.label_names):
            return None
        return self._positions(batch) >= 0

    def counts(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Rows are those of both heads; see ``Task.counts``."""
        counts = super().counts(batch)
        return {**counts, "rows": counts["rows"] * len(HEADS)}

    def hard(self, outputs: Any, batch: Mapping[str, Any], shown: Signals | None = None) -> Sum | None:
        """Sum the cross-entropy over samples and heads; see ``Task.hard``."""
        if self.own_loss:
            return None
        logits, positions = torch.stack(self._both(outputs, batch, "the student"), dim=1), self._positions(batch)
        loss = F.cross_entropy(logits.flatten(0, 1).float(), positions.flatten(), reduction="sum", ignore_index=-100)
        return Sum(loss, (positions >= 0).sum())

    def signals(self, model: nn.Module, batch: Mapping[str, Any], outputs: Any, captured: Any = None) -> Signals:
        """Read both heads, and hidden states and attention maps if they are there; see ``Task.signals``."""
        name = "the teacher" if model is None else type(core_of(model)).__name__  # a function has no model
        both, layout = self._both(outputs, batch, name), self.layout(batch)
        known = None if layout.labels is None else self._positions(batch)
        shown = outputs if isinstance(outputs, Mapping) else {}
        prefix = "" if "hidden_states" in shown or "attentions" in shown else "decoder_"
        return Signals(
            heads={
                head: Head(DenseLogits(logits), layout.rows, None if known is None else known[:, number])
                for number, (head, logits) in enumerate(zip(HEADS, both, strict=True))
            },
            hidden=tuple(shown.get(f"{prefix}hidden_states") or ()),
            attention=tuple(shown.get(f"{prefix}attentions") or ()),
            mask=layout.mask,
        )

    def align(self, student: Signals, teacher: Signals, batch: Mapping[str, Any]) -> Signals:
        """Refuse other positions; see ``Task.align``."""
        for name, head in student.heads.items():
            ours, theirs = head.logits.shape, teacher.heads[name].logits.shape
            if ours != theirs:
                raise ValueError(
                    f"the teacher gave {name} logits of shape {list(theirs)}, the student {list(ours)}: both must "
                    "read the same positions."
                )
        return teacher

    def _text(self, batch: Mapping[str, Any]) -> Tensor:
        """Which positions are classes, bool [B, T]."""
        if (mask := self.mask(batch)) is not None:
            return mask
        return batch["input_ids"].new_ones(batch["input_ids"].shape[:2]).bool()

    def _positions(self, batch: Mapping[str, Any]) -> Tensor:
        """The labels, int64 [B, 2], -100 where they are none of the text's positions."""
        text = self._text(batch)
        given = torch.stack([batch[name].view(-1) for name in self.label_names], dim=1).long()
        inside = (given >= 0) & (given < text.shape[1])
        there = text.gather(1, given.clamp(0, max(0, text.shape[1] - 1)))
        return given.masked_fill(~(inside & there), -100)

    def _both(self, outputs: Any, batch: Mapping[str, Any], name: str) -> tuple[Tensor, Tensor]:
        """The logits of start and end, each [B, T]; padding is no class."""
        if isinstance(outputs, Mapping):
            found = [outputs.get(f"{head}_logits") for head in HEADS]
        else:
            found = [part for part in outputs if isinstance(part, Tensor) and part.ndim == 2][: len(HEADS)]
        if len(found) < len(HEADS) or any(part is None for part in found):
            shown = ", ".join(outputs) if isinstance(outputs, Mapping) else f"a {type(outputs).__name__}"
            raise ValueError(
                f"start_logits and end_logits were asked of {name}, it returned {shown}: use a model with a head for "
                "this task (AutoModelForQuestionAnswering); a function returns both, each [B, T]."
            )
        text = self._text(batch)
        if any(part.shape != text.shape for part in found):
            raise ValueError(
                f"{name} gave start and end logits of shape {[list(part.shape) for part in found]}, the text has "
                f"{list(text.shape)} positions: use a model with one logit for each token."
            )
        return tuple(part.masked_fill(~text.to(part.device), ABSENT) for part in found)
