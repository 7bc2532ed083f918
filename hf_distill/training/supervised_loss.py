"""The supervised half of the loss, and what a model adds to any loss: whose it is, how it becomes a share of the step.

Knows: the four places where it may come from, and their order. Does not know: teachers, terms, alpha.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from hf_distill.models.outputs import core_of
from hf_distill.objectives import normalise
from hf_distill.tasks.positions import EachPosition
from hf_distill.tasks.supervision import supervised

if TYPE_CHECKING:
    from hf_distill.signals import Sum
    from hf_distill.tasks import Task
    from hf_distill.trainer import DistillationMixin


def needs_own_loss(trainer: DistillationMixin) -> bool:
    """Say whether the student must be given the labels, because only itself knows its loss.

    Args:
        trainer: the trainer.
    """
    theirs = trainer.compute_loss_func is not None or trainer.label_smoother is not None
    return trainer.task.own_loss and trainer.alpha < 1 and not theirs


def check_supervision(task: Task, alpha: float, smoothing: bool) -> None:
    """Refuse a supervised loss that the task does not have.

    Args:
        task: how the models are read.
        alpha: the teacher's share of the loss.
        smoothing: whether labels are to be smoothed.

    Raises:
        ValueError: in one sentence.
    """
    if alpha < 1 and not task.label_names:
        raise ValueError(
            f"alpha={alpha:g} trains on labels, a model of {task.auto_class} has no head that could: leave alpha out, "
            "or set it to 1, to learn from the teacher alone."
        )
    if alpha < 1 and smoothing and task.label_names != ("labels",):
        raise ValueError(
            f"label_smoothing_factor was given, which smooths one column of labels, {type(task).__name__} has "
            f"{' and '.join(task.label_names)}: leave it out."
        )


def hard_loss(
    trainer: DistillationMixin,
    outputs: Any,
    inputs: Mapping[str, Any],
    window: Mapping[str, Tensor],
    world: int,
    num_items: Tensor | int | None,
    done: Sum | None = None,
) -> Tensor:
    """Compute the supervised loss by the first there is: the user's, the label smoother's, the task's, the model's.

    Args:
        trainer: the trainer.
        outputs: what the student returned.
        inputs: the micro-batch, with labels.
        window: what the whole optimizer step counts.
        world: how many ranks hold different data; 1 outside of training.
        num_items: Trainer's own count of labels, for the user's ``compute_loss_func``.
        done: the task's sum where it was computed already, on the way through the logits.

    Returns:
        A scalar: added over micro-batches and averaged over ranks, it is the loss of the whole step.

    Raises:
        ValueError: there are no labels, or nobody returned a loss.
    """
    if done is not None:
        return normalise(done.total, window["labels"], world)
    inputs, names = supervised(inputs), trainer.task.label_names
    labels = tuple(inputs.get(name) for name in names)
    labels = labels[0] if len(labels) == 1 else labels  # a user's own loss takes what Trainer hands to its metrics
    if trainer.task.labels(inputs) is None and not needs_own_loss(trainer):
        raise ValueError(
            f"alpha={trainer.alpha:g} trains on labels, the batch has {sorted(inputs)}: add "
            f"{' and '.join(f'a {name!r} column' for name in names)}, or set alpha=1 to learn from the teacher alone."
        )
    if trainer.compute_loss_func is not None:
        loss = trainer.compute_loss_func(outputs, labels, num_items_in_batch=num_items)
        if num_items is not None:  # the user divided by Trainer's count: finish as Trainer would
            return loss * trainer.data_ranks() if trainer.args.average_tokens_across_devices else loss
    elif trainer.label_smoother is not None:
        count, shifts = window["labels"].clamp(min=1), trainer.task.shifts_labels
        if isinstance(trainer.task, EachPosition):
            labels, shifts = trainer.task.targets(inputs), False  # those that were counted, each at its place
        return world * trainer.label_smoother(outputs, labels, shifts, num_items_in_batch=count)
    elif (hard := trainer.task.hard(outputs, inputs)) is not None:
        return normalise(hard.total, window["labels"], world)
    elif isinstance(outputs, Mapping) and outputs.get("loss") is None:
        raise ValueError(
            f"{type(trainer.model).__name__} was given labels and returned {', '.join(outputs)}, but no loss: pass "
            "compute_loss_func, or a task whose hard() computes it."
        )
    else:
        loss = outputs["loss"] if isinstance(outputs, Mapping) else outputs[0]
    return _shared(trainer, loss, inputs, window, world)


def router_loss(
    trainer: DistillationMixin,
    outputs: Any,
    inputs: Mapping[str, Any],
    window: Mapping[str, Tensor],
    world: int,
) -> Tensor | None:
    """Return what keeps a mixture of experts balanced; a model that is called without labels leaves it to its caller.

    It knows of no labels and no teacher, so it belongs to neither half of the blend.

    Args:
        trainer: the trainer.
        outputs: what the student returned.
        inputs: the micro-batch.
        window: what the whole optimizer step counts.
        world: how many ranks hold different data; 1 outside of training.

    Returns:
        A scalar, times ``config.router_aux_loss_coef``; None where the student has none, or added it itself.
    """
    loss = outputs.get("aux_loss") if isinstance(outputs, Mapping) else None
    if loss is None or needs_own_loss(trainer):
        return None  # before its configuration is looked at: a module that is no transformers model has none
    coefficient = getattr(core_of(trainer.model).config.get_text_config(), "router_aux_loss_coef", None)
    return _shared(trainer, coefficient * loss, inputs, window, world) if coefficient else None


def _shared(
    trainer: DistillationMixin, loss: Tensor, inputs: Mapping[str, Any], window: Mapping[str, Tensor], world: int
) -> Tensor:
    """Weigh a mean over the micro-batch by its share of the step."""
    return normalise(loss * trainer.task.counts(inputs)["samples"], window["samples"], world)
