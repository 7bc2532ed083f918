"""Object detection: a set of queries, each with a class and a box; the DETR family of transformers.

Knows: how these models show queries, what their losses are divided by. Does not know: how queries are assigned, what
a term compares, teachers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers.models.auto.modeling_auto import MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES

from hf_distill.models.classes import names_in, own_loss_of
from hf_distill.models.facts import Facts
from hf_distill.models.grids import grids_of
from hf_distill.models.meta import flat
from hf_distill.models.outputs import core_of
from hf_distill.signals import BINARY, CATEGORICAL, DenseLogits, Head, HeadSpec, Signals, Sum, Value
from hf_distill.tasks.class_order import check_names, check_order
from hf_distill.tasks.criteria import CRITERIA, Criterion
from hf_distill.tasks.images import OfImages, every_image, image_size
from hf_distill.tasks.matching import BACKGROUND, assigned, assignment, most_confident
from hf_distill.tasks.object_labels import check_objects
from hf_distill.tasks.samples import rows_of
from hf_distill.tasks.task import Task

CLASSES = names_in(MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES)
BOXES = "boxes"
"""The name of the boxes among ``Signals.values``: center x, center y, width, height, as parts of the image."""
WEIGHT, PARTS = "class_weight", 10**6
"""The unit of a cross-entropy that is a weighted mean: millionths of a query, of which one without an object has
fewer; whole numbers, as every count."""
HUNGARIAN, ORDER = "hungarian", "order"


class ObjectDetection(OfImages, Task):
    """A set of queries, each with a distribution over classes and a box.

    Both models' queries stand in an order of their own, so each of the student's is compared with the one of the
    teacher's that costs least (``match="hungarian"``); of a student cut from its teacher, whose queries it has, with
    the same one (``match="order"``). Of a teacher with more queries the most confident ones are taken; where it
    has fewer, its least confident one stands for the others. What a query's classes weigh, against the others of its
    image, is the teacher's confidence in an object, and 0.1 where it has none; a box weighs that confidence, see the
    term ``boxes``. All images weigh the same.

    Labels are a list with a dict for each image, as image processors of these models make them: ``class_labels`` [n]
    and ``boxes`` [n, 4]. The supervised loss is the model's own, divided by the boxes of the whole step and not of a
    micro-batch; the cross-entropy of DETR, Table Transformer and YOLOS, a weighted mean over queries, by its weights.
    Batch norms see a micro-batch whatever is divided; denoising queries (RT-DETR, D-FINE) are drawn at random, and
    reach no term; D-FINE's ``loss_ddf`` is weighed by its micro-batch.

    Args:
        num_labels: how many classes the student has; DETR's "no object" is none of them.
        queries: how many objects the student can find in an image.
        criterion: the student's loss function in transformers, one of ``tasks.criteria.CRITERIA``; any other is
            divided by the boxes of its own micro-batch.
        match: ``"hungarian"`` or ``"order"``.
        teacher_labels: for each class of the student, its position among the teacher's; None: the same order.

    Raises:
        ValueError: another ``match``, or ``teacher_labels`` that are not a permutation.
        ImportError: scipy is not installed.

    Reference:
        Chang et al.: DETRDistill, arXiv:2211.10156, section 3.1, for matched logits and boxes.

    Example:
        >>> task = ObjectDetection(num_labels=2, queries=5)
        >>> objects = {"class_labels": torch.tensor([1]), "boxes": torch.tensor([[0.5, 0.5, 0.2, 0.2]])}
        >>> batch = {"pixel_values": torch.zeros(2, 3, 8, 8), "labels": [objects, objects]}
        >>> {unit: n.item() for unit, n in task.counts(batch).items()}
        {'rows': 2, 'tokens': 2, 'samples': 2, 'labels': 2}
    """

    auto_class: ClassVar[str] = "AutoModelForObjectDetection"
    pipeline_tag: ClassVar[str] = "object-detection"
    plain_labels: ClassVar[bool] = False
    own_loss: bool = True
    loss_unit: str = "labels"
    values: tuple[str, ...] = (BOXES,)
    default_objective: str | Mapping[str, Any] = {"forward_kl": 1.0, "boxes": 1.0}

    def __init__(
        self,
        num_labels: int,
        queries: int,
        criterion: str | None = None,
        match: str = HUNGARIAN,
        teacher_labels: Sequence[int] | None = None,
    ) -> None:
        if match not in (HUNGARIAN, ORDER):
            raise ValueError(f"match={match!r} was given to ObjectDetection: use {HUNGARIAN!r} or {ORDER!r}.")
        if match == HUNGARIAN:
            assignment()
        self.num_labels, self.queries, self.matching = num_labels, queries, match
        self.criterion = CRITERIA.get(criterion, Criterion())
        # What a query without an object weighs in the student's own cross-entropy, and how many groups it trains.
        self.nothing, self.groups = BACKGROUND, 1
        self.teacher_labels = check_order(teacher_labels, num_labels)

    @classmethod
    def from_model(cls, model: nn.Module, **options: Any) -> ObjectDetection | None:
        """Return the task for a detector with queries, None for any other model; see ``Task.from_model``.

        Args:
            model: any module.
            **options: ``match``, ``teacher_labels``.
        """
        core = core_of(model)
        if own_loss_of(model, CLASSES, "ForObjectDetection") is None and type(core).__name__ not in CLASSES:
            return None
        if (queries := queries_of(core)) is None:
            return None  # a text detector, which shows a map
        criterion = getattr(getattr(core, "loss_function", None), "__name__", None)
        task = cls(core.config.num_labels, queries, criterion, **options)
        task.nothing = getattr(core.config, "eos_coefficient", BACKGROUND)
        task.groups = getattr(core.config, "group_detr", 1)
        return task

    @property
    def heads(self) -> tuple[HeadSpec, ...]:
        """One head: a class of several or none, or each of several classes there or not."""
        return (HeadSpec("logits", CATEGORICAL if self.criterion.softmax else BINARY),)

    @property
    def units(self) -> tuple[str, ...]:
        """With the weights of queries, where the student's cross-entropy is divided by them; see ``Task.units``."""
        return (*super().units, WEIGHT) if self.criterion.softmax else super().units

    def check(self, student: Facts, teacher: Facts) -> None:
        """Refuse other class counts and other class names; see ``Task.check``."""
        check_names(type(self).__name__, self.num_labels, self.teacher_labels, student, teacher)

    def check_batch(self, batch: Mapping[str, Any]) -> None:
        """Refuse labels of another form, classes that are not there, boxes outside; see ``Task.check_batch``."""
        if batch.get("labels") is not None:
            check_objects(batch["labels"], rows_of(batch), self.num_labels)

    def rows(self, batch: Mapping[str, Any]) -> Tensor:
        """Every image counts, bool [B]; its queries are parts of it. See ``Task.rows``."""
        return every_image(batch)

    def labels(self, batch: Mapping[str, Any]) -> Tensor | None:
        """All boxes of the batch, one after the other: bool [boxes]; see ``Task.labels``."""
        return None if batch.get("labels") is None else self.rows(batch).new_ones(sum(_counted(batch["labels"])))

    def counts(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Count images and boxes and, if need be, the weights of queries; see ``Task.counts``."""
        counted = super().counts(batch)
        if WEIGHT in self.units:
            seen = sum(min(number, self.queries) for number in _counted(batch.get("labels") or ()))
            nothing = len(self.rows(batch)) * self.queries - seen
            weight = seen * PARTS + nothing * round(self.nothing * PARTS)
            counted[WEIGHT] = counted["rows"].new_tensor(weight if batch.get("labels") is not None else 0)
        return counted

    def hard(self, outputs: Any, batch: Mapping[str, Any], shown: Signals | None = None) -> Mapping[str, Sum] | None:
        """Make a sum of the model's own loss, of which each part was divided by something else; see ``Task.hard``."""
        named = isinstance(outputs, Mapping)
        loss, parts = (outputs.get("loss"), outputs.get("loss_dict")) if named else outputs[:2]
        if loss is None:
            return None
        counts = self.layout(batch).counts
        boxes = self.criterion.boxes(counts["labels"], self.groups)
        if not self.criterion.softmax:
            return {"labels": Sum(loss * boxes, counts["labels"])}
        classes = sum(value for name, value in parts.items() if name.startswith("loss_ce"))
        return {
            "labels": Sum((loss - classes) * boxes, counts["labels"]),
            WEIGHT: Sum(classes * counts[WEIGHT], counts[WEIGHT]),
        }

    def signals(self, model: nn.Module, batch: Mapping[str, Any], outputs: Any, captured: Any = None) -> Signals:
        """Read queries and boxes without those that serve training alone, and encoder states; see ``Task.signals``."""
        core = None if model is None else core_of(model)  # a function has no model
        name = "the teacher" if core is None else type(core).__name__
        logits, boxes = self._found(outputs, name)
        if noise := outputs.get("denoising_meta_values"):
            logits, boxes = (one[:, noise["dn_num_split"][0] :] for one in (logits, boxes))
        queries = None if core is None else queries_of(core)  # of several groups of them the first serves
        logits, boxes = logits[:, :queries], boxes[:, :queries]
        if logits.shape[-1] == self.num_labels:
            logits = torch.stack((torch.zeros_like(logits), logits), dim=-1)
        states = tuple(outputs.get("hidden_states") or outputs.get("encoder_hidden_states") or ())
        if tokens := getattr(getattr(core, "config", None), "num_detection_tokens", None):
            states = tuple(state[:, :-tokens] for state in states)  # queries, which stand behind the image
        each = torch.ones(boxes.shape[:2], dtype=torch.bool, device=boxes.device)
        return Signals(
            heads={"logits": _head(logits)},
            hidden=tuple(map(flat, states)),
            attention=tuple(outputs.get("attentions") or outputs.get("encoder_attentions") or ()),
            grids=grids_of(model, states, image_size(batch)),
            values={BOXES: Value(boxes.float(), each)},
        )

    def align(self, student: Signals, teacher: Signals, batch: Mapping[str, Any]) -> Signals:
        """Give each query of the student its partner, and say what is to be learned of it; see ``Task.align``."""
        ours, theirs = (one.heads["logits"].logits for one in (student, teacher))
        if not hasattr(theirs, "tensor"):
            raise ValueError(
                "the teacher keeps a few ids of each query, ObjectDetection matches queries by all: keep whole logits "
                "(top=0)."
            )
        theirs, seen = self._ordered(theirs.tensor), teacher.values.get(BOXES)
        if ours.shape[:1] + ours.shape[2:] != theirs.shape[:1] + theirs.shape[2:]:
            raise ValueError(
                f"the teacher gave logits of shape {list(theirs.shape)}, the student {list(ours.shape)}, [images, "
                "queries, classes and none] (softmax) or [images, queries, classes, no and yes] (sigmoid): use a "
                "teacher of the student's images, classes and kind."
            )
        probabilities = _probabilities(theirs)
        place = self._partners(student, probabilities, None if seen is None else seen.tensor)
        theirs, sure = _picked(theirs, place), probabilities.amax(dim=-1).gather(1, place)
        values = {} if seen is None else {BOXES: Value(
            _picked(seen.tensor, place), seen.rows.gather(1, place), sure / sure.sum(1, keepdim=True).clamp(min=1)
        )}  # fmt: skip
        grids = teacher.grids or grids_of(None, teacher.hidden, image_size(batch))
        return replace(teacher, heads={"logits": _head(theirs, sure)}, values=values, grids=grids)

    def _partners(self, student: Signals, probabilities: Tensor, boxes: Tensor | None) -> Tensor:
        """For each query of the student the place of its partner: int64 [B, Q]."""
        ours, sure = student.heads["logits"].logits.tensor, probabilities.amax(dim=-1)
        queries = ours.shape[1]
        if self.matching == ORDER:
            if queries != sure.shape[1]:
                raise ValueError(
                    f"match='order' was asked for, the teacher has {sure.shape[1]} queries, the student {queries}: "
                    "use match='hungarian'."
                )
            return torch.arange(queries, device=ours.device).expand(len(ours), -1)
        some = most_confident(sure, queries)
        both = None if boxes is None else (student.values[BOXES].tensor.detach(), _picked(boxes, some))
        own = _probabilities(ours.detach().float())
        found = assigned(own, _picked(probabilities, some), both, sure.gather(1, some))
        return some.gather(1, found)

    def _ordered(self, logits: Tensor) -> Tensor:
        if self.teacher_labels is None:
            return logits
        none = [self.num_labels] if self.criterion.softmax else []
        return logits.index_select(2, torch.tensor(self.teacher_labels + none, device=logits.device))

    def _found(self, outputs: Any, name: str) -> tuple[Tensor, Tensor]:
        """Logits and boxes in what a model returned."""
        there = isinstance(outputs, Mapping)
        logits, boxes = (outputs.get("logits"), outputs.get("pred_boxes")) if there else (None, None)
        shapes = [list(one.shape) if isinstance(one, Tensor) else None for one in (logits, boxes)]
        if (
            None in shapes
            or shapes[1] != [*shapes[0][:2], 4]
            or logits.shape[-1] - self.num_labels != int(self.criterion.softmax)
        ):
            classes = f"{self.num_labels} classes" + (" and none" if self.criterion.softmax else "")
            raise ValueError(
                f"{name} gave logits of shape {shapes[0]} and pred_boxes of shape {shapes[1]}: ObjectDetection "
                f"needs [B, queries, {classes}] and [B, queries, 4]; a teacher must be of the student's "
                "kind (softmax: DETR, Table Transformer, YOLOS; sigmoid: all others)."
            )
        return logits, boxes


def queries_of(core: nn.Module) -> int | None:
    """Return how many objects a detector can find in an image; None: it is none that has queries.

    Args:
        core: a model of transformers.
    """
    config = getattr(core, "config", None)
    found = [getattr(config, name, None) for name in ("num_queries", "num_detection_tokens")]
    return next((one for one in found if one is not None), None)


def _counted(labels: Any) -> list[int]:
    return [len(one["class_labels"]) for one in labels]


def _head(logits: Tensor, sure: Tensor | None = None) -> Head:
    """[B, Q, C + 1], or [B, Q, C, 2] of classes that are each there or not: their divergences add up."""
    rows = torch.ones(logits.shape[:-1], dtype=torch.bool, device=logits.device)
    weights = None
    if sure is not None:
        weights = BACKGROUND + (1 - BACKGROUND) * sure
        weights = weights / weights.sum(dim=1, keepdim=True) * rows[0].numel()
        weights = weights if rows.ndim == 2 else weights.unsqueeze(-1).expand(rows.shape)
    return Head(DenseLogits(logits), rows, share=1 / rows[0].numel(), weights=weights)


def _probabilities(logits: Tensor) -> Tensor:
    """Of each class that is one: float32 [B, Q, C]."""
    found = logits.float().softmax(dim=-1)
    return found[..., :-1] if logits.ndim == 3 else found[..., 1]


def _picked(one: Tensor, place: Tensor) -> Tensor:
    """Take entries [B, Q, ...] by their place."""
    return one.gather(1, place.view(*place.shape, *[1] * (one.ndim - 2)).expand(-1, -1, *one.shape[2:]))
