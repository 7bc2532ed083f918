"""Semantic segmentation: a class for each pixel of an image.

Knows: how segmenters of transformers show their grid of logits, how their losses are summed. Does not know: how large
an image is, what a term compares, teachers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.auto.modeling_auto import MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES

from hf_distill.models.classes import names_in, own_loss_of
from hf_distill.models.facts import Facts
from hf_distill.models.grids import grids_of
from hf_distill.models.meta import flat
from hf_distill.models.outputs import core_of, logits_in
from hf_distill.signals import DenseLogits, Head, Signals, Sum
from hf_distill.tasks.class_order import check_names, check_order, in_order
from hf_distill.tasks.images import OfImages, every_image, image_size
from hf_distill.tasks.task import Task

CLASSES = names_in(MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES)
IGNORED = 255
"""The label of a pixel that has none, where a model's configuration names no other."""


class SemanticSegmentation(OfImages, Task):
    """A class for each pixel; several models answer on a grid that is coarser than the image.

    The head is that grid, [B, h, w, C]. The teacher's is brought to the student's before they are compared, so a term
    costs what the student's grid holds, and never what the labels do. How fine a grid is no batch says: a cell counts
    as its part of the image, so that terms count images. Labels are compared as the model itself does, on the image's
    own pixels, of which those labelled ``ignored`` are skipped; the teacher teaches there too.

    Args:
        num_labels: how many classes there are, at least two.
        ignored: the label of a pixel that has none.
        teacher_labels: for each class of the student, its position among the teacher's; None: the same order.
        own_loss: the model computes a loss of its own, as those with an auxiliary head do.

    Raises:
        ValueError: fewer than two classes, or ``teacher_labels`` that are not a permutation.

    Reference:
        Liu et al.: Structured Knowledge Distillation for Semantic Segmentation, arXiv:1903.04197, equation 1, for KL
        between pixels.

    Example:
        >>> task = SemanticSegmentation(num_labels=2)
        >>> batch = {"pixel_values": torch.zeros(2, 3, 4, 4), "labels": torch.tensor([[[0, 1], [255, 1]]] * 2)}
        >>> {unit: n.item() for unit, n in task.counts(batch).items()}
        {'rows': 2, 'tokens': 2, 'samples': 2, 'labels': 6}
        >>> task.hard(torch.zeros(2, 2, 1, 1), batch)
        Sum(total=tensor(4.1589), count=tensor(6))
    """

    auto_class: ClassVar[str] = "AutoModelForSemanticSegmentation"
    pipeline_tag: ClassVar[str] = "image-segmentation"
    plain_labels: ClassVar[bool] = False
    loss_unit: str = "labels"

    def __init__(
        self,
        num_labels: int,
        ignored: int = IGNORED,
        teacher_labels: Sequence[int] | None = None,
        own_loss: bool = False,
    ) -> None:
        if num_labels < 2:
            raise ValueError(
                f"num_labels={num_labels} was given to SemanticSegmentation, which compares classes: give a model of "
                "two, background and object."
            )
        self.num_labels, self.ignored, self.own_loss = num_labels, ignored, own_loss
        self.teacher_labels = check_order(teacher_labels, num_labels)

    @classmethod
    def from_model(cls, model: nn.Module) -> SemanticSegmentation | None:
        """Return the task for a semantic segmenter, None for any other model; see ``Task.from_model``."""
        core = core_of(model)
        own = own_loss_of(model, CLASSES, "ForSemanticSegmentation")
        if own is None and type(core).__name__ not in CLASSES:
            return None
        names = ("semantic_loss_ignore_index", "loss_ignore_index")
        ignored = next((value for one in names if (value := getattr(core.config, one, None)) is not None), IGNORED)
        auxiliary = (
            getattr(core, "auxiliary_head", None) is not None
        )  # whose loss is added, and whose logits are not shown
        return cls(core.config.num_labels, ignored, own_loss=bool(own) or auxiliary)

    def check(self, student: Facts, teacher: Facts) -> None:
        """Refuse other class counts and other class names; see ``Task.check``."""
        check_names(type(self).__name__, self.num_labels, self.teacher_labels, student, teacher)

    def check_batch(self, batch: Mapping[str, Any]) -> None:
        """Refuse maps of another form, and classes that are not there; see ``Task.check_batch``."""
        if (labels := batch.get("labels")) is None:
            return
        shape = list(labels.shape) if isinstance(labels, Tensor) else f"a {type(labels).__name__}"
        if not isinstance(labels, Tensor) or labels.ndim != 3 or labels.is_floating_point():
            raise ValueError(
                f"labels are {shape}: SemanticSegmentation takes whole numbers [B, height, width], a class for each "
                f"pixel, {self.ignored} for one that has none."
            )
        wrong = (labels != self.ignored) & ((labels < 0) | (labels >= self.num_labels))
        if wrong.any():
            row, line, column = wrong.nonzero()[0].tolist()
            raise ValueError(
                f"row {row} of the batch has class {labels[row, line, column].item()} at pixel ({line}, {column}), "
                f"the student has the classes 0 to {self.num_labels - 1}, {self.ignored} for none: correct the map, "
                "or give the student more num_labels."
            )

    def rows(self, batch: Mapping[str, Any]) -> Tensor:
        """Every image counts, bool [B]; the cells of its grid are parts of it. See ``Task.rows``."""
        return every_image(batch)

    def labels(self, batch: Mapping[str, Any]) -> Tensor | None:
        """Pixels whose label is a class, bool [B, H, W]; see ``Task.labels``."""
        labels = batch.get("labels")
        return None if labels is None else labels != self.ignored

    def hard(self, outputs: Any, batch: Mapping[str, Any], shown: Signals | None = None) -> Sum | None:
        """Sum the cross-entropy over labelled pixels, of logits at the labels' size; see ``Task.hard``."""
        if self.own_loss:
            return None
        labels, counted = batch["labels"], self.labels(batch)
        logits = logits_in(outputs, "the student").float()
        logits = F.interpolate(logits, size=labels.shape[-2:], mode="bilinear", align_corners=False)
        loss = F.cross_entropy(logits, labels.long(), ignore_index=self.ignored, reduction="sum")
        return Sum(loss, counted.sum())

    def signals(self, model: nn.Module, batch: Mapping[str, Any], outputs: Any, captured: Any = None) -> Signals:
        """Read the grid of logits, and hidden states; see ``Task.signals``."""
        name = "the teacher" if model is None else type(core_of(model)).__name__  # a function has no model
        logits = logits_in(outputs, name)
        if logits.ndim != 4 or logits.shape[1] != self.num_labels:
            raise ValueError(
                f"{name} gave logits of shape {list(logits.shape)}: SemanticSegmentation needs "
                f"[B, {self.num_labels} classes, height, width]."
            )
        shown = outputs if isinstance(outputs, Mapping) else {}
        states = tuple(shown.get("hidden_states") or ())
        return Signals(
            heads={"logits": self._head(logits.movedim(1, -1))},
            hidden=tuple(map(flat, states)),
            attention=tuple(shown.get("attentions") or ()),
            grids=grids_of(model, states, image_size(batch)),
        )

    def align(self, student: Signals, teacher: Signals, batch: Mapping[str, Any]) -> Signals:
        """Bring the teacher to the student's grid and order of classes; see ``Task.align``."""
        ours, theirs = student.heads["logits"].logits.tensor, teacher.heads["logits"].logits
        if not hasattr(theirs, "tensor"):
            raise ValueError(
                "the teacher keeps a few ids of each cell, SemanticSegmentation brings whole logits to another grid: "
                "keep whole logits (top=0)."
            )
        theirs = theirs.tensor
        if ours.shape[::3] != theirs.shape[::3]:
            raise ValueError(
                f"the teacher gave logits of shape {list(theirs.shape)}, the student {list(ours.shape)}: both must "
                "give the same images and classes."
            )
        if ours.shape != theirs.shape:
            grid = {"size": ours.shape[1:3], "mode": "bilinear", "align_corners": False}
            theirs = F.interpolate(theirs.movedim(-1, 1).float(), **grid).movedim(1, -1)
        head = self._head(theirs)
        if self.teacher_labels is not None:
            head = head._replace(logits=in_order(head.logits, self.teacher_labels, axis=-1))
        grids = teacher.grids or grids_of(None, teacher.hidden, image_size(batch))
        return replace(teacher, heads={"logits": head}, grids=grids)

    @staticmethod
    def _head(grid: Tensor) -> Head:
        """[B, h, w, C], each cell a part of its image."""
        rows = torch.ones(grid.shape[:-1], dtype=torch.bool, device=grid.device)
        return Head(DenseLogits(grid), rows, share=1 / (grid.shape[1] * grid.shape[2]))
