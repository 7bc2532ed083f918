"""Multiple choice: one of several texts.

Knows: questions of several texts each, and that models read these texts as rows of their own. Does not know:
objectives, teachers' whereabouts, trainers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.auto.modeling_auto import MODEL_FOR_MULTIPLE_CHOICE_MAPPING_NAMES

from hf_distill.models.classes import names_in, own_loss_of
from hf_distill.models.outputs import core_of, logits_in
from hf_distill.signals import DenseLogits, Head, Signals, Sum
from hf_distill.tasks.task import Task


class MultipleChoice(Task):
    """The right one of several texts; a row of the batch is a question, its inputs are [B, choices, T].

    The head is softmax logits [B, choices]. Models read every text as a row of its own, and so do the terms on hidden
    states and attention maps: these are [B * choices, T, H], a text is a sample, and their means are over texts. A
    question without a label (-100) is skipped by the hard loss and still taught.

    Args:
        own_loss: the model computes a loss of its own that this class does not know.

    Example:
        >>> import torch
        >>> batch = {"input_ids": torch.ones(2, 4, 5), "labels": torch.tensor([3, -100])}
        >>> {unit: n.item() for unit, n in MultipleChoice().counts(batch).items()}
        {'rows': 2, 'tokens': 40, 'samples': 8, 'labels': 1}
        >>> MultipleChoice().hard(torch.zeros(2, 4), batch)
        Sum(total=tensor(1.3863), count=tensor(1))
    """

    auto_class: ClassVar[str] = "AutoModelForMultipleChoice"
    pipeline_tag: ClassVar[str] = "multiple-choice"
    of_text: ClassVar[bool] = True

    def __init__(self, own_loss: bool = False) -> None:
        self.own_loss = own_loss

    @classmethod
    def from_model(cls, model: nn.Module) -> MultipleChoice | None:
        """Return the task for a multiple choice model, None for any other; see ``Task.from_model``."""
        own = own_loss_of(model, names_in(MODEL_FOR_MULTIPLE_CHOICE_MAPPING_NAMES), "ForMultipleChoice")
        return None if own is None else cls(own_loss=own)

    def rows(self, batch: Mapping[str, Any]) -> Tensor:
        """Every question counts, labelled or not; bool [B]. See ``Task.rows``."""
        ids = batch.get("input_ids", batch.get("inputs_embeds"))
        if ids is None or ids.ndim < 3:
            shown = sorted(batch) if ids is None else f"inputs of shape {list(ids.shape)}"
            raise ValueError(
                f"MultipleChoice reads inputs [B, choices, T], the batch has {shown}: give each question its choices "
                "side by side, as DataCollatorForMultipleChoice does."
            )
        return ids.new_ones(len(ids)).bool()

    def labels(self, batch: Mapping[str, Any]) -> Tensor | None:
        """Labels that are not -100; see ``Task.labels``."""
        labels = batch.get("labels")
        return None if labels is None else labels.view(-1) != -100

    def mask(self, batch: Mapping[str, Any]) -> Tensor | None:
        """Say which positions of each text are not padding, bool [B * choices, T]; see ``Task.mask``."""
        mask = batch.get("attention_mask")
        if mask is None:
            ids = batch.get("input_ids", batch.get("inputs_embeds"))
            mask = ids.new_ones(ids.shape[:3])
        return mask.flatten(0, 1).bool()

    def counts(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Samples are texts, one vector of hidden states each; see ``Task.counts``."""
        counts, ids = super().counts(batch), batch.get("input_ids", batch.get("inputs_embeds"))
        return {**counts, "samples": counts["samples"] * ids.shape[1]}

    def hard(self, outputs: Any, batch: Mapping[str, Any], shown: Signals | None = None) -> Sum | None:
        """Sum the cross-entropy over the questions with a label; see ``Task.hard``."""
        if self.own_loss:
            return None
        logits = logits_in(outputs, "the student").float()
        return Sum(F.cross_entropy(logits, batch["labels"].view(-1), reduction="sum"), self.labels(batch).sum())

    def signals(self, model: nn.Module, batch: Mapping[str, Any], outputs: Any, captured: Any = None) -> Signals:
        """Read logits, and each text's hidden states and attention maps if they are there; see ``Task.signals``."""
        logits = logits_in(outputs, "the teacher" if model is None else type(core_of(model)).__name__)
        labels, shown = batch.get("labels"), outputs if isinstance(outputs, Mapping) else {}
        return Signals(
            heads={
                "logits": Head(
                    DenseLogits(logits), self.layout(batch).rows, None if labels is None else labels.view(-1)
                )
            },
            hidden=tuple(shown.get("hidden_states") or ()),
            attention=tuple(shown.get("attentions") or ()),
            mask=self.layout(batch).mask,
        )

    def align(self, student: Signals, teacher: Signals, batch: Mapping[str, Any]) -> Signals:
        """Refuse other questions and choices; see ``Task.align``."""
        ours, theirs = student.heads["logits"].logits, teacher.heads["logits"].logits
        if ours.shape != theirs.shape:
            raise ValueError(
                f"the teacher gave logits of shape {list(theirs.shape)}, the student {list(ours.shape)}: both must "
                "read the same questions and choices."
            )
        return teacher
