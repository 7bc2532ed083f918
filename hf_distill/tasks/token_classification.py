"""Tasks with a distribution at every token: a class for each, and what every such task shares.

Knows: labels that go with the tokens, how their losses are summed. Does not know: objectives, teachers' whereabouts,
trainers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from torch import Tensor, nn
from transformers.models.auto.modeling_auto import MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES

from hf_distill.models.classes import names_in, own_loss_of
from hf_distill.models.facts import Facts
from hf_distill.models.outputs import core_of
from hf_distill.signals import Head, Signals
from hf_distill.tasks.class_order import check_names, check_order, in_order
from hf_distill.tasks.positions import EachPosition


class EachToken(EachPosition):
    """A distribution at every token that has a label; nothing is shifted.

    Without labels (``alpha=1``) every token that is no padding is a row.
    """

    packs: ClassVar[bool] = True

    def targets(self, batch: Mapping[str, Any]) -> Tensor | None:
        """The labels as they are, int64 [B, T]; see ``EachPosition.targets``."""
        labels = batch.get("labels")
        if labels is not None and labels.ndim != 2:
            raise ValueError(
                f"labels of shape {list(labels.shape)} were given to {type(self).__name__}, which takes one for each "
                "token [B, T]: give -100 to tokens without one, and let the collator pad them with -100."
            )
        return labels

    def rows(self, batch: Mapping[str, Any]) -> Tensor:
        """Tokens with a label; without labels those that are no padding. See ``Task.rows``."""
        if (known := self.labels(batch)) is not None:
            return known
        if (mask := self.mask(batch)) is not None:
            return mask
        return batch["input_ids"].new_ones(batch["input_ids"].shape[:2]).bool()

    def _logits(self, outputs: Any, batch: Mapping[str, Any], name: str, prompt: int | None = None) -> Tensor:
        logits, shape = super()._logits(outputs, batch, name, prompt), self.layout(batch).rows.shape
        if logits.ndim != 3 or logits.shape[:2] != shape:
            raise ValueError(
                f"{name} gave logits of shape {list(logits.shape)} where {type(self).__name__} reads tokens of shape "
                f"{list(shape)}: give labels and masks one entry for each token that the model has logits for."
            )
        return logits


class TokenClassification(EachToken):
    """One class for each token: names, parts of speech, whatever is tagged.

    The head is softmax logits [B, T, C]. A token without a label (-100: padding, special tokens, the later pieces of
    a word) is neither supervised nor taught; without labels (``alpha=1``) every token that is no padding is taught.

    Args:
        num_labels: how many classes there are.
        teacher_labels: for each class of the student, its position among the teacher's; None: the same order.
        own_loss: the model computes a loss of its own that this class does not know.

    Raises:
        ValueError: ``teacher_labels`` that are not a permutation.

    Example:
        >>> import torch
        >>> task = TokenClassification(num_labels=3)
        >>> batch = {"input_ids": torch.ones(2, 3), "labels": torch.tensor([[-100, 2, 0], [-100, 1, -100]])}
        >>> {unit: n.item() for unit, n in task.counts(batch).items()}
        {'rows': 3, 'tokens': 6, 'samples': 2, 'labels': 3}
        >>> task.hard(torch.zeros(2, 3, 3), batch)
        Sum(total=tensor(3.2958), count=tensor(3))
    """

    auto_class: ClassVar[str] = "AutoModelForTokenClassification"
    pipeline_tag: ClassVar[str] = "token-classification"
    hidden_first: ClassVar[bool] = True
    classes: ClassVar[frozenset[str]] = names_in(MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES)
    suffix: ClassVar[str] = "ForTokenClassification"

    def __init__(self, num_labels: int, teacher_labels: Sequence[int] | None = None, own_loss: bool = False) -> None:
        super().__init__(own_loss)
        self.num_labels, self.teacher_labels = num_labels, check_order(teacher_labels, num_labels)

    @classmethod
    def from_model(cls, model: nn.Module) -> TokenClassification | None:
        """Return the task for a token classification model, None for any other; see ``Task.from_model``."""
        own = own_loss_of(model, cls.classes, cls.suffix)
        return None if own is None else cls(core_of(model).config.num_labels, own_loss=own)

    def check(self, student: Facts, teacher: Facts) -> None:
        """Refuse other class counts and other class names; see ``Task.check``."""
        check_names(type(self).__name__, self.num_labels, self.teacher_labels, student, teacher)

    def align(self, student: Signals, teacher: Signals, batch: Mapping[str, Any]) -> Signals:
        """Refuse other tokens and classes, put the teacher's classes into the student's order; see ``Task.align``."""
        ours, theirs = student.heads["logits"], teacher.heads["logits"].logits
        if ours.logits.shape != theirs.shape:
            raise ValueError(
                f"the teacher gave logits of shape {list(theirs.shape)}, the student {list(ours.logits.shape)}: both "
                "must read the same tokens and have the same classes."
            )
        if self.teacher_labels is None:
            return teacher
        return replace(teacher, heads={"logits": Head(in_order(theirs, self.teacher_labels, axis=-1), ours.rows)})
