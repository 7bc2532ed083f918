"""Depth estimation: a number for each pixel of an image, how far what it shows is.

Knows: how depth models of transformers show their map, how maps are compared with labels. Does not know: how large an
image is, in which unit depth is, what a term compares, teachers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.auto.modeling_auto import MODEL_FOR_DEPTH_ESTIMATION_MAPPING_NAMES

from hf_distill.models.classes import names_in
from hf_distill.models.grids import grids_of
from hf_distill.models.meta import flat
from hf_distill.models.outputs import core_of
from hf_distill.objectives.depth import check_share, scale_invariant
from hf_distill.signals import HeadSpec, Signals, Sum, Value
from hf_distill.tasks.images import OfImages, every_image, image_size
from hf_distill.tasks.task import Task

CLASSES = names_in(MODEL_FOR_DEPTH_ESTIMATION_MAPPING_NAMES)
DEPTH = "predicted_depth"


class DepthEstimation(OfImages, Task):
    """How far each pixel is; or its inverse, or either up to a factor: labels are in what the student predicts.

    The map is no distribution and no head but the value ``depth``, [B, height, width]: its lines are the things of an
    image, and their pixels the numbers of a thing, so that whoever keeps it keeps its grid. The teacher's map is
    brought to the student's grid before they are compared, and each image weighs the same.

    Most depth models of transformers raise an error where they are given labels, and GLPN takes a root over a whole
    batch, which says something else for another batch size. So the supervised loss is ours, whatever the model: the
    scale-invariant error of each image, at the labels' size, without the root. Pixels labelled 0, less, or with no
    number are not counted, and an image of such pixels alone is not either. Another loss is ``compute_loss_func``.

    Args:
        share: how much of a factor that a whole image is wrong by is forgiven: 0 nothing, 1 all of it.

    Raises:
        ValueError: a share that is none.

    Reference:
        Eigen, Puhrsch, Fergus: arXiv:1406.2283, equation 4.

    Example:
        >>> batch = {"pixel_values": torch.zeros(2, 3, 4, 4), "labels": torch.tensor([[[1.0, 2.0]], [[0.0, 0.0]]])}
        >>> task = DepthEstimation()
        >>> {unit: n.item() for unit, n in task.counts(batch).items()}
        {'rows': 2, 'tokens': 2, 'samples': 2, 'labels': 1}
        >>> task.hard(batch["labels"] * 2, batch)
        Sum(total=tensor(0.2402), count=tensor(1))
    """

    auto_class: ClassVar[str] = "AutoModelForDepthEstimation"
    pipeline_tag: ClassVar[str] = "depth-estimation"
    default_objective: ClassVar[str] = "value_l1"
    plain_labels: ClassVar[bool] = False
    heads: ClassVar[tuple[HeadSpec, ...]] = ()
    values: tuple[str, ...] = ("depth",)

    def __init__(self, share: float = 0.5) -> None:
        self.share = check_share("DepthEstimation", share)

    @classmethod
    def from_model(cls, model: nn.Module) -> DepthEstimation | None:
        """Return the task for a depth model, None for any other model; see ``Task.from_model``."""
        names = {base.__name__ for base in type(core_of(model)).__mro__}
        return cls() if names & CLASSES else None

    def check_batch(self, batch: Mapping[str, Any]) -> None:
        """Refuse labels that are no map of numbers; see ``Task.check_batch``."""
        if (labels := batch.get("labels")) is None:
            return
        shape = list(labels.shape) if isinstance(labels, Tensor) else f"a {type(labels).__name__}"
        if not isinstance(labels, Tensor) or labels.ndim != 3:
            raise ValueError(
                f"labels are {shape}: DepthEstimation takes numbers [B, height, width], how far each pixel is, 0 "
                "where nobody knows."
            )

    def rows(self, batch: Mapping[str, Any]) -> Tensor:
        """Every image counts, bool [B]; see ``Task.rows``."""
        return every_image(batch)

    def labels(self, batch: Mapping[str, Any]) -> Tensor | None:
        """Images with a pixel whose depth is known, bool [B]; see ``Task.labels``."""
        labels = batch.get("labels")
        return None if labels is None else (labels.isfinite() & (labels > 0)).flatten(1).any(dim=1)

    def hard(self, outputs: Any, batch: Mapping[str, Any], shown: Signals | None = None) -> Sum:
        """Sum the scale-invariant error over images, of maps at the labels' size; see ``Task.hard``."""
        wanted = batch["labels"].float()
        depth = _to_grid(_depth_in(outputs, "the student").float(), wanted.shape[1:])
        every = torch.ones_like(wanted, dtype=torch.bool)
        each = scale_invariant(*(one.flatten(1) for one in (depth, wanted, every)), self.share)
        return Sum(each.sum(), self.labels(batch).sum())

    def signals(self, model: nn.Module, batch: Mapping[str, Any], outputs: Any, captured: Any = None) -> Signals:
        """Read the map, and hidden states; see ``Task.signals``."""
        name = "the teacher" if model is None else type(core_of(model)).__name__  # a function has no model
        shown = outputs if isinstance(outputs, Mapping) else {}
        states = tuple(shown.get("hidden_states") or ())
        return Signals(
            heads={},
            hidden=tuple(map(flat, states)),
            attention=tuple(shown.get("attentions") or ()),
            grids=grids_of(model, states, image_size(batch)),
            values={"depth": _value(_depth_in(outputs, name))},
        )

    def align(self, student: Signals, teacher: Signals, batch: Mapping[str, Any]) -> Signals:
        """Bring the teacher's map to the student's grid; see ``Task.align``."""
        ours, theirs = student.values["depth"].tensor, teacher.values["depth"].tensor
        if len(ours) != len(theirs):
            raise ValueError(
                f"the teacher gave depth of shape {list(theirs.shape)}, the student {list(ours.shape)}: both must "
                "give the same images."
            )
        grids = teacher.grids or grids_of(None, teacher.hidden, image_size(batch))
        depth = _value(_to_grid(theirs, ours.shape[1:]))
        return replace(teacher, values={**teacher.values, "depth": depth}, grids=grids)


def _depth_in(outputs: Any, name: str) -> Tensor:
    """Find the map [B, height, width] in what a model returned: a mapping, a tuple that may begin with a loss."""
    if isinstance(outputs, Mapping):
        found, shown = outputs.get(DEPTH), ", ".join(outputs)
    elif isinstance(outputs, Tensor):
        found, shown = outputs, "a tensor"
    else:
        found = next((part for part in outputs if isinstance(part, Tensor) and part.ndim > 0), None)
        shown = f"a {type(outputs).__name__} of {len(outputs)}"
    if found is None or found.ndim != 3:
        shown = shown if found is None else f"a map of shape {list(found.shape)}"
        raise ValueError(
            f"{DEPTH} was asked of {name}, it returned {shown}: DepthEstimation needs [B, height, width], as a model "
            "of AutoModelForDepthEstimation gives it."
        )
    return found


def _value(depth: Tensor) -> Value:
    """[B, height, width], of which every line counts."""
    return Value(depth, torch.ones(depth.shape[:2], dtype=torch.bool, device=depth.device))


def _to_grid(depth: Tensor, size: tuple[int, ...]) -> Tensor:
    """Bring maps [B, height, width] to another height and width."""
    if depth.shape[1:] == size:
        return depth
    how = {"size": tuple(size), "mode": "bilinear", "align_corners": False}
    return F.interpolate(depth.float().unsqueeze(1), **how).squeeze(1)
