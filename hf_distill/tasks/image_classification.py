"""Tasks on images: a class, several classes or a number for each image.

Knows: how image classifiers of transformers show logits, feature maps and a distillation token. Does not know: what a
term compares, teachers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from torch import Tensor, nn
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES

from hf_distill.models.classes import names_in, own_loss_of
from hf_distill.models.grids import grids_of
from hf_distill.models.meta import flat
from hf_distill.models.outputs import core_of
from hf_distill.signals import DenseLogits, Signals, Sum
from hf_distill.tasks.images import OfImages, image_size
from hf_distill.tasks.sequence_classification import SequenceClassification

CLASSES = names_in(MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES)


class ImageClassification(OfImages, SequenceClassification):
    """One class, several independent classes, or a number for each image; all else as ``SequenceClassification``.

    Hidden states are [B, positions, width], feature maps laid out row by row. How many positions an image becomes is
    known to its model alone, so terms on positions take the mean inside of each image, and count images.

    A student with a distillation token (``DeiTForImageClassificationWithTeacher``) learns labels with its class token
    and the teacher with its distillation token; in evaluation both are the mean of the two, as the model answers.

    Args:
        num_labels: how many outputs the head has.
        problem_type: as in ``config.problem_type``; None decides as transformers does, from the labels' dtype.
        teacher_labels: for each class of the student, its position among the teacher's; None: the same order.
        own_loss: the model computes a loss of its own that this class does not know.

    Reference:
        Touvron et al.: DeiT, arXiv:2012.12877, section 4, for the distillation token.

    Example:
        >>> import torch
        >>> batch = {"pixel_values": torch.zeros(3, 1, 8, 8), "labels": torch.tensor([0, -100, 1])}
        >>> {unit: n.item() for unit, n in ImageClassification(num_labels=2).counts(batch).items()}
        {'rows': 3, 'tokens': 3, 'samples': 3, 'labels': 2}
    """

    auto_class: ClassVar[str] = "AutoModelForImageClassification"
    pipeline_tag: ClassVar[str] = "image-classification"

    @classmethod
    def from_model(cls, model: nn.Module) -> ImageClassification | None:
        """Return the task for an image classification model, None for any other; see ``Task.from_model``."""
        core = core_of(model)
        own = own_loss_of(model, CLASSES, "ForImageClassification")
        if own is None and type(core).__name__ not in CLASSES:
            return None
        return cls(core.config.num_labels, core.config.problem_type, own_loss=bool(own))

    def hard(self, outputs: Any, batch: Mapping[str, Any], shown: Signals | None = None) -> Sum | None:
        """Sum over the labels, in training of the class token alone where there are two; see the base."""
        if self._two_tokens(outputs):
            outputs = outputs["cls_logits"] + _nothing(outputs["distillation_logits"])
        return super().hard(outputs, batch, shown)

    def signals(self, model: nn.Module, batch: Mapping[str, Any], outputs: Any, captured: Any = None) -> Signals:
        """Read logits, in training of the distillation token where there is one, and hidden states; see the base."""
        shown = super().signals(model, batch, outputs, captured)
        grids = grids_of(model, shown.hidden, image_size(batch))
        shown = replace(shown, hidden=tuple(map(flat, shown.hidden)), grids=grids)
        if self._two_tokens(outputs):
            logits = outputs["distillation_logits"] + _nothing(outputs["cls_logits"])
            shown = replace(shown, heads={"logits": shown.heads["logits"]._replace(logits=DenseLogits(logits))})
        return shown

    def align(self, student: Signals, teacher: Signals, batch: Mapping[str, Any]) -> Signals:
        """Put the teacher's classes in order, and find the grids of answers that were kept; see the base."""
        if teacher.hidden and not teacher.grids:
            teacher = replace(teacher, grids=grids_of(None, teacher.hidden, image_size(batch)))
        return super().align(student, teacher, batch)

    @staticmethod
    def _two_tokens(outputs: Any) -> bool:
        """Whether these are of a student in training, for they have a graph, that has a distillation token."""
        names = ("cls_logits", "distillation_logits")
        both = [outputs.get(name) if isinstance(outputs, Mapping) else None for name in names]
        return all(one is not None for one in both) and both[1].requires_grad


def _nothing(logits: Tensor) -> Tensor:
    """Return a zero with the graph of a head that has no share of the loss (alpha=0, alpha=1): DDP waits for each."""
    return logits[:0].sum()
