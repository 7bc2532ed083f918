"""The supervised half of the loss, and what a model adds to any loss: whose it is, how it becomes a share of the step.

Knows: the four places where it may come from, and their order. Does not know: teachers, terms, trainers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from hf_distill.models.outputs import core_of
from hf_distill.signals import Sum
from hf_distill.tasks import Task
from hf_distill.tasks.layout import without_layout
from hf_distill.tasks.positions import EachPosition
from hf_distill.tasks.supervision import supervised
from hf_distill.training.window import Window


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


@dataclass(frozen=True)
class SupervisedLoss:
    """The loss of labels: by the first there is, the user's, the label smoother's, the task's, the model's.

    Args:
        task: how the student is read.
        alpha: the teacher's share of the loss.
        function: the user's ``compute_loss_func``, or None.
        smoother: the label smoother, or None.
        across: whether Trainer counts labels over all ranks (``average_tokens_across_devices``).
    """

    task: Task
    alpha: float
    function: Callable[..., Tensor] | None = None
    smoother: Callable[..., Tensor] | None = None
    across: bool = True

    @property
    def whole(self) -> bool:
        """Whether somebody else than the task reads the student's logits, whole."""
        return self.function is not None or self.smoother is not None

    @property
    def of_the_model(self) -> bool:
        """Whether the student must be given the labels, because only itself knows its loss."""
        return self.task.own_loss and self.alpha < 1 and not self.whole

    def __call__(
        self,
        student: nn.Module,
        outputs: Any,
        batch: Mapping[str, Any],
        window: Window,
        num_items: Tensor | int | None = None,
        done: Sum | None = None,
    ) -> Tensor:
        """Compute it for a micro-batch.

        Args:
            student: the unwrapped student, for its name.
            outputs: what it returned.
            batch: the micro-batch, with labels.
            window: what the whole optimizer step counts.
            num_items: Trainer's own count of labels, for the user's function.
            done: the task's sum where it was computed already, on the way through the logits.

        Returns:
            A scalar: added over micro-batches and averaged over ranks, it is the loss of the whole step.

        Raises:
            ValueError: there are no labels, or nobody returned a loss.
        """
        if done is not None:
            return window.divide(done.total, "labels")
        batch, names = supervised(batch), self.task.label_names
        labels = tuple(batch.get(name) for name in names)
        labels = labels[0] if len(labels) == 1 else labels  # a user's own loss takes what Trainer hands to its metrics
        if self.task.layout(batch).labels is None and not self.of_the_model:
            raise ValueError(
                f"alpha={self.alpha:g} trains on labels, the batch has {sorted(without_layout(batch))}: add "
                f"{' and '.join(f'a {name!r} column' for name in names)}, or set alpha=1 to learn from the teacher "
                "alone."
            )
        if self.function is not None:
            loss = self.function(outputs, labels, num_items_in_batch=num_items)
            if num_items is not None:  # the user divided by Trainer's count: finish as Trainer would
                return loss * window.data_ranks if self.across else loss
        elif self.smoother is not None:
            count, shifts = window.counts["labels"].clamp(min=1), self.task.shifts_labels
            if isinstance(self.task, EachPosition):
                labels, shifts = self.task.targets(batch), False  # those that were counted, each at its place
            return window.data_ranks * self.smoother(outputs, labels, shifts, num_items_in_batch=count)
        elif (hard := self.task.hard(outputs, batch)) is not None:
            return window.divide(hard.total, "labels")
        elif isinstance(outputs, Mapping) and outputs.get("loss") is None:
            raise ValueError(
                f"{type(student).__name__} was given labels and returned {', '.join(outputs)}, but no loss: pass "
                "compute_loss_func, or a task whose hard() computes it."
            )
        else:
            loss = outputs["loss"] if isinstance(outputs, Mapping) else outputs[0]
        return window.weigh(loss, self.task.layout(batch).counts["samples"])

    def router(self, student: nn.Module, outputs: Any, batch: Mapping[str, Any], window: Window) -> Tensor | None:
        """Return what keeps a mixture of experts balanced; a model that is called without labels leaves it to us.

        It knows of no labels and no teacher, so it belongs to neither half of the blend.

        Args:
            student: the unwrapped student.
            outputs: what it returned.
            batch: the micro-batch.
            window: what the whole optimizer step counts.

        Returns:
            A scalar, times ``config.router_aux_loss_coef``; None where the student has none, or added it itself.
        """
        loss = outputs.get("aux_loss") if isinstance(outputs, Mapping) else None
        if loss is None or self.of_the_model:
            return None  # before its configuration is looked at: a module that is no transformers model has none
        coefficient = getattr(core_of(student).config.get_text_config(), "router_aux_loss_coef", None)
        return window.weigh(coefficient * loss, self.task.layout(batch).counts["samples"]) if coefficient else None
