"""Tasks on text: a class, several classes or a number for each sample.

Knows: the three problem types of transformers' sequence classification heads, and how their losses are summed.
Does not know: objectives, teachers' whereabouts, trainers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES

from hf_distill.models.classes import names_in, own_loss_of
from hf_distill.models.facts import Facts
from hf_distill.models.outputs import core_of, logits_in
from hf_distill.signals import BINARY, CATEGORICAL, NUMBER, DenseLogits, Head, HeadSpec, Signals, Sum
from hf_distill.tasks.class_order import check_names, check_order, in_order
from hf_distill.tasks.samples import rows_of
from hf_distill.tasks.task import Task

CLASSES = names_in(MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES)
SINGLE, MULTI, REGRESSION = "single_label_classification", "multi_label_classification", "regression"


class SequenceClassification(Task):
    """One class, several independent classes, or a number for each sample.

    The head is softmax logits [B, C]; for several classes, C independent Bernoulli distributions as logits
    [B, C, 2] (0 and the logit, whose softmax is 1 - sigmoid and sigmoid); for regression, the predictions [B, C],
    which are no distributions: the default objective is then ``logit_mse``. A sample without a label (-100, for
    regression NaN) is skipped by the hard loss and still taught by the teacher.

    Args:
        num_labels: how many outputs the head has.
        problem_type: as in ``config.problem_type``; None decides as transformers does, from the labels' dtype.
        teacher_labels: for each class of the student, its position among the teacher's; None: the same order.
        own_loss: the model computes a loss of its own that this class does not know.

    Raises:
        ValueError: an unknown problem type, or ``teacher_labels`` that are not a permutation.

    Example:
        >>> task = SequenceClassification(num_labels=2)
        >>> batch = {"labels": torch.tensor([0, -100, 1]), "input_ids": torch.ones(3, 5)}
        >>> {unit: n.item() for unit, n in task.counts(batch).items()}
        {'rows': 3, 'tokens': 15, 'samples': 3, 'labels': 2}
        >>> task.hard(torch.zeros(3, 2), batch)
        Sum(total=tensor(1.3863), count=tensor(2))
    """

    auto_class: ClassVar[str] = "AutoModelForSequenceClassification"
    pipeline_tag: ClassVar[str] = "text-classification"

    def __init__(
        self,
        num_labels: int,
        problem_type: str | None = None,
        teacher_labels: Sequence[int] | None = None,
        own_loss: bool = False,
    ) -> None:
        if problem_type not in (None, SINGLE, MULTI, REGRESSION):
            raise ValueError(f"problem_type={problem_type!r} is not known: use {SINGLE}, {MULTI} or {REGRESSION}.")
        self.num_labels = num_labels
        self.problem_type = REGRESSION if problem_type is None and num_labels == 1 else problem_type
        self.teacher_labels = check_order(teacher_labels, num_labels)
        self.own_loss = own_loss

    @classmethod
    def from_model(cls, model: nn.Module) -> SequenceClassification | None:
        """Return the task for a sequence classification model, None for any other; see ``Task.from_model``."""
        if (own := own_loss_of(model, CLASSES, "ForSequenceClassification")) is None:
            return None
        core = core_of(model)
        return cls(core.config.num_labels, core.config.problem_type, own_loss=own)

    @property
    def heads(self) -> tuple[HeadSpec, ...]:
        """One head: a class, several classes, or numbers."""
        return (HeadSpec("logits", {MULTI: BINARY, REGRESSION: NUMBER}.get(self.problem_type, CATEGORICAL)),)

    @property
    def default_objective(self) -> str:
        """Forward KL between distributions, mean squared error between regression predictions."""
        return "forward_kl" if self.distributions else "logit_mse"

    def infer_from_batch(self, model: nn.Module, batch: Mapping[str, Any]) -> bool:
        """Take the problem type from the labels, as the model would on its first batch; see the base."""
        if self.problem_type is not None or (labels := batch.get("labels")) is None:
            return False
        if not labels.is_floating_point() and labels.ndim > 1 and labels.shape[-1] == self.num_labels:
            raise ValueError(
                f"labels of shape {list(labels.shape)} and type {labels.dtype} were given for {self.num_labels} "
                "classes: make them floats for several classes a sample, or one integer a sample."
            )
        self.problem_type = MULTI if labels.is_floating_point() else SINGLE
        core_of(model).config.problem_type = self.problem_type
        return True

    def check(self, student: Facts, teacher: Facts) -> None:
        """Refuse other problem types, other class counts and other class names; see ``Task.check``."""
        types = (teacher.problem_type, student.problem_type or self.problem_type)
        if None not in types and types[0] != types[1]:
            raise ValueError(
                f"the teacher {teacher.name} was made for {types[0]}, the student for {types[1]}: set "
                "config.problem_type of both to the problem that your labels pose."
            )
        check_names(type(self).__name__, self.num_labels, self.teacher_labels, student, teacher)

    def rows(self, batch: Mapping[str, Any]) -> Tensor:
        """Every sample counts, labelled or not; bool [B], or [B, C] for several classes. See ``Task.rows``."""
        tensors = [value for value in batch.values() if isinstance(value, Tensor)]
        shape = (rows_of(batch), self.num_labels)[: 2 if self.problem_type == MULTI else 1]
        return torch.ones(shape, dtype=torch.bool, device=tensors[0].device if tensors else None)

    def labels(self, batch: Mapping[str, Any]) -> Tensor | None:
        """Labels that are not -100, for regression not NaN; see ``Task.labels``."""
        labels = batch.get("labels")
        if labels is None:
            return None
        return labels != -100 if self.problem_type != REGRESSION else ~labels.isnan()

    def no_label(self, label: Any) -> Any:
        """Return -100, for regression NaN, in the label's own shape: the hard loss skips such a sample.

        Args:
            label: of a sample, as a data set holds it.

        Example:
            >>> SequenceClassification(num_labels=3).no_label([0.0, 1.0, 1.0])
            [-100.0, -100.0, -100.0]
        """
        nothing = math.nan if self.problem_type == REGRESSION else -100
        if isinstance(label, Tensor):
            return torch.full_like(label.float() if self.problem_type == REGRESSION else label, nothing)
        if isinstance(label, np.ndarray):
            return np.full_like(label.astype(np.float32) if self.problem_type == REGRESSION else label, nothing)
        if isinstance(label, (list, tuple)):
            return [self.no_label(one) for one in label]
        return float(nothing) if isinstance(label, float) else nothing

    def hard(self, outputs: Any, batch: Mapping[str, Any], shown: Signals | None = None) -> Sum | None:
        """Sum cross-entropy, binary cross-entropy or squared error over the labels; see ``Task.hard``."""
        if self.own_loss:
            return None
        logits, labels, counted = logits_in(outputs, "the student").float(), batch["labels"], self.labels(batch)
        if self.problem_type in (MULTI, REGRESSION):
            # Chosen before they are compared: the gradient of a difference with NaN is NaN, also times zero.
            logits, labels = logits.view(labels.shape)[counted], labels[counted].to(logits.dtype)
            loss = F.mse_loss if self.problem_type == REGRESSION else F.binary_cross_entropy_with_logits
        else:
            labels, loss = labels.view(-1), F.cross_entropy
        return Sum(loss(logits, labels, reduction="sum"), counted.sum())

    def signals(self, model: nn.Module, batch: Mapping[str, Any], outputs: Any, captured: Any = None) -> Signals:
        """Read logits, and hidden states and attention maps if they are there; see ``Task.signals``."""
        name = "the teacher" if model is None else type(core_of(model)).__name__  # a function has no model
        logits = logits_in(outputs, name)
        if self.problem_type == MULTI:
            logits = torch.stack((torch.zeros_like(logits), logits), dim=-1)
        shown = outputs if isinstance(outputs, Mapping) else {}
        return Signals(
            heads={"logits": Head(DenseLogits(logits), self.layout(batch).rows, self._classes(batch))},
            hidden=tuple(shown.get("hidden_states") or ()),
            attention=tuple(shown.get("attentions") or ()),
            mask=self.layout(batch).mask,
        )

    def _classes(self, batch: Mapping[str, Any]) -> Tensor | None:
        """Return each row's class, for terms that ask; of several classes a row has none of its own."""
        labels = batch.get("labels") if self.problem_type == SINGLE else None
        return None if labels is None else labels.view(-1)

    def truths(self, student: Signals, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Each row's class; of several whether each is there; for regression its numbers. See ``Task.truths``."""
        labels = batch.get("labels")
        if labels is None or self.problem_type == SINGLE:
            return super().truths(student, batch)
        if self.problem_type == REGRESSION:
            return {"logits": labels.float().reshape(rows_of(batch), -1)}
        return {"logits": torch.where(labels == -100, labels, labels > 0.5).long()}

    def align(self, student: Signals, teacher: Signals, batch: Mapping[str, Any]) -> Signals:
        """Put the teacher's classes into the student's order; see ``Task.align``."""
        ours, theirs = student.heads["logits"].logits, teacher.heads["logits"].logits
        if ours.shape != theirs.shape:
            raise ValueError(
                f"the teacher gave logits of shape {list(theirs.shape)}, the student {list(ours.shape)}: both must "
                "give the same samples and classes."
            )
        if self.teacher_labels is None:
            return teacher
        head = Head(in_order(theirs, self.teacher_labels, axis=1), student.heads["logits"].rows)
        return replace(teacher, heads={"logits": head})
