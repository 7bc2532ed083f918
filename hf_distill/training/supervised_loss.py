"""The supervised half of the loss, and what a model adds to any loss: whose it is, how it becomes a share of the step.

Knows: the four places where it may come from, and their order. Does not know: teachers, terms, trainers.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hf_distill.models.outputs import core_of
from hf_distill.signals import Signals, Sum
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
    if alpha < 1 and not task.supervises():
        raise ValueError(
            f"alpha={alpha:g} trains on labels, a model of {task.auto_class} has no head that could: leave alpha out, "
            "or set it to 1, to learn from the teacher alone."
        )
    if alpha < 1 and smoothing and not (task.label_names == ("labels",) and task.plain_labels):
        columns = " and ".join(task.label_names) or "none"
        raise ValueError(
            f"label_smoothing_factor was given, which smooths one column of labels, {type(task).__name__} has "
            f"{columns}{'' if task.plain_labels else ', no class numbers'}: leave it out."
        )
    if alpha < 1 and smoothing and isinstance(task, EachPosition) and len(task.heads) > 1:
        raise ValueError(
            f"label_smoothing_factor was given, which smooths the labels of one head, {type(task).__name__} has "
            f"{len(task.heads)}: leave it out."
        )
    if task.loss_unit not in task.units:
        raise ValueError(
            f"loss_unit={task.loss_unit!r} was given by {type(task).__name__}, whose batches are counted in "
            f"{', '.join(task.units)}: name one of these."
        )
    if not (takes_signals(task) or _binds(task, 2)):
        raise ValueError(
            f"{type(task).__name__}.hard takes {inspect.signature(task.hard)}, but is called with the student's "
            "outputs, the batch and what the student shows: write hard(outputs, batch, shown)."
        )


def takes_signals(task: Task) -> bool:
    """Say whether a task's ``hard`` takes what the student shows, as ``Task.hard`` does, or only outputs and batch.

    Args:
        task: how the models are read.

    Example:
        >>> from hf_distill.tasks import CausalLM
        >>> class Mine(CausalLM):
        ...     def hard(self, outputs, batch):
        ...         return super().hard(outputs, batch)
        >>> takes_signals(CausalLM()), takes_signals(Mine())
        (True, False)
    """
    return _binds(task, 3)


def _binds(task: Task, given: int) -> bool:
    """Whether ``hard`` can be called with so many arguments."""
    try:
        inspect.signature(task.hard).bind(*[None] * given)
    except TypeError:
        return False
    return True


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

    @property
    def of_the_task(self) -> bool:
        """Whether the task's own sum is the loss, made inside of the student's forward; see ``Task.hard``."""
        return self.alpha < 1 and not (self.whole or self.task.own_loss) and takes_signals(self.task)

    @property
    def needs_signals(self) -> bool:
        """Whether that cannot be made without what the student shows."""
        return self.of_the_task and not _binds(self.task, 2)

    def inputs(
        self, student: nn.Module, fed: dict[str, Any], batch: Mapping[str, Any], teacher: Signals | None = None
    ) -> dict[str, Any]:
        """Return what the student is called with.

        Args:
            student: the unwrapped student.
            fed: what it reads of the batch, with labels only where it computes its own loss.
            batch: the batch.
            teacher: what the teacher showed; only a task that ``reads`` is given it, or one whose encoder it shows.
        """
        if self.task.reads or (teacher is not None and teacher.encoded is not None):
            return self.task.inputs(student, fed, batch, teacher=teacher)
        return fed if self.of_the_model else self.task.inputs(student, fed, batch)

    def sum(self, outputs: Any, batch: Mapping[str, Any], shown: Signals | None) -> Sum | Mapping[str, Sum] | None:
        """Return the task's sum for a micro-batch; None where the model computes its own loss.

        Args:
            outputs: what the student returned.
            batch: the micro-batch, with labels.
            shown: what the student shows; not looked at by a task that takes none.

        Raises:
            ValueError: there are no labels.
        """
        batch = self._labelled(batch)
        return self.task.hard(outputs, batch, *([shown] if takes_signals(self.task) else []))

    def __call__(
        self,
        student: nn.Module,
        outputs: Any,
        batch: Mapping[str, Any],
        window: Window,
        num_items: Tensor | int | None = None,
        done: Sum | Mapping[str, Sum] | None = None,
    ) -> Tensor:
        """Compute it for a micro-batch.

        Args:
            student: the unwrapped student, for its name.
            outputs: what it returned.
            batch: the micro-batch, with labels.
            window: what the whole optimizer step counts.
            num_items: Trainer's own count of labels, for the user's function.
            done: the task's sum where it was computed already, inside of the student's forward.

        Returns:
            A scalar: added over micro-batches and averaged over ranks, it is the loss of the whole step.

        Raises:
            ValueError: there are no labels, nobody returned a loss, or one in a unit that is not counted.
        """
        if done is not None:
            return divided(done, window, self.task)
        batch = self._labelled(batch)
        labels = tuple(batch.get(name) for name in self.task.label_names)
        labels = labels[0] if len(labels) == 1 else labels  # a user's own loss takes what Trainer hands to its metrics
        unit = "samples"
        if self.function is not None:
            loss = self.function(outputs, labels, num_items_in_batch=num_items)
            if num_items is not None:  # the user divided by Trainer's count: finish as Trainer would
                return loss * window.data_ranks if self.across else loss
        elif self.smoother is not None:
            count, shifts = window.counts["labels"].clamp(min=1), self.task.shifts_labels
            if isinstance(self.task, EachPosition):
                labels, shifts = self.task.targets(batch), False  # those that were counted, each at its place
            return window.data_ranks * self.smoother(outputs, labels, shifts, num_items_in_batch=count)
        elif (hard := self.sum(outputs, batch, self._shown(student, outputs, batch))) is not None:
            return divided(hard, window, self.task)
        elif isinstance(outputs, Mapping) and outputs.get("loss") is None:
            raise ValueError(
                f"{type(student).__name__} was given labels and returned {', '.join(outputs)}, but no loss: pass "
                "compute_loss_func, or a task whose hard() computes it."
            )
        else:
            loss, unit = outputs["loss"] if isinstance(outputs, Mapping) else outputs[0], self.task.loss_unit
        return window.weigh(loss, self.task.layout(batch).counts[unit], unit)

    def _labelled(self, batch: Mapping[str, Any]) -> Mapping[str, Any]:
        """The batch with the labels that may be learned from, or a sentence that there are none."""
        batch = supervised(batch)
        if self.task.layout(batch).labels is None and not self.of_the_model:
            columns = " and ".join(f"a {name!r} column" for name in self.task.label_names)
            raise ValueError(
                f"alpha={self.alpha:g} trains on labels, the batch has {sorted(without_layout(batch))}: add {columns}"
                ", or set alpha=1 to learn from the teacher alone."
            )
        return batch

    def _shown(self, student: nn.Module, outputs: Any, batch: Mapping[str, Any]) -> Signals | None:
        """What the student shows, read behind its forward: without a teacher nobody has read it inside."""
        return self.task.read(student, batch, outputs) if self.needs_signals else None

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


def divided(hard: Sum | Mapping[str, Sum], window: Window, task: Task) -> Tensor:
    """Divide a supervised loss by what the whole step counts.

    Args:
        hard: the sum over the labels, or unit -> sum of a loss with several divisors; see ``Task.hard``.
        window: what the whole optimizer step counts.
        task: whose loss it is, for a message.

    Returns:
        A scalar, the parts added up.

    Raises:
        ValueError: a unit that is not counted, or no part.

    Example:
        >>> import torch
        >>> from hf_distill.tasks import CausalLM
        >>> step, six = Window({"labels": torch.tensor(3), "samples": torch.tensor(2)}), torch.tensor(6.0)
        >>> divided({"labels": Sum(six, torch.tensor(1)), "samples": Sum(six, torch.tensor(1))}, step, CausalLM())
        tensor(5.)
    """
    parts = {"labels": hard} if isinstance(hard, Sum) else hard
    if not parts or (strangers := sorted(set(parts) - set(window.counts))):
        raise ValueError(
            f"{type(task).__name__}.hard returned a loss of {strangers if parts else 'no parts'}, the step counts "
            f"{', '.join(window.counts)}: return a Sum over the labels, or one for each of these units."
        )
    return functools.reduce(torch.add, (window.divide(one.total, unit) for unit, one in parts.items()))
