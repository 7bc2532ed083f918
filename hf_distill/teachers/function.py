"""A teacher that is a plain function of the batch.

Knows: the function, where a batch is. Does not know: models, terms, the student.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import find_device, send_to_device
from torch import Tensor, nn

from hf_distill.models.facts import Facts
from hf_distill.models.fingerprint import weights_of
from hf_distill.signals import Signals
from hf_distill.tasks import Task
from hf_distill.teachers.changes import held_in, tensors_of
from hf_distill.teachers.teacher import Teacher

if TYPE_CHECKING:
    from transformers import Trainer

logger = logging.getLogger(__name__)


class FunctionTeacher(Teacher):
    """A plain function ``batch -> logits``: a scikit-learn pipeline, a table, a remote service.

    Args:
        function: takes the batch (a mapping, on the trainer's device) and returns logits as a tensor or an array;
            log-probabilities are logits too.
        task: how to read them; None takes the trainer's.
        columns: the batch columns that it reads beside the student's; they are kept in the data set for it. Logits
            that lie in such a column already are a ``ColumnTeacher``'s, which pads them too.

    Example:
        >>> from hf_distill.tasks import SequenceClassification
        >>> teacher = FunctionTeacher(lambda batch: [[0.0, 1.0]] * 3, SequenceClassification(num_labels=2))
        >>> teacher({"input_ids": torch.ones(3, 4)}, frozenset({"heads"})).heads["logits"].logits.shape
        torch.Size([3, 2])
    """

    def __init__(
        self, function: Callable[[Mapping[str, Any]], Any], task: Task | None = None, columns: Iterable[str] = ()
    ) -> None:
        self.function, self.task, self.columns = function, task, frozenset(columns)
        self.facts = Facts(name=getattr(function, "__name__", type(function).__name__))

    def prepare(self, trainer: Trainer) -> None:
        """Take the trainer's task; see ``Teacher.prepare``."""
        self.task = self.task or trainer.task
        shown = {"heads": self.task.heads, "values": self.task.values, "vectors": self.task.vectors}
        self.serves = frozenset(need for need, there in shown.items() if there) | {"heads"}
        learning = {id(p) for p in trainer.model.parameters() if p.requires_grad}
        self.moves = any(id(one) in learning for one in tensors_of(self.held()))
        if self.moves:
            logger.warning(
                "The function %s answers with parameters that the student trains: it teaches the student what the "
                "student says already. Pass a copy (copy.deepcopy(model)), or EMATeacher() for one that follows the "
                "student.",
                self.facts.name,
            )

    def held(self) -> list[nn.Module | Tensor]:
        """The models and tensors that the function may answer with; see ``Teacher.held``."""
        return held_in(self.function)

    def fingerprint(self, student: nn.Module | None = None) -> str | None:
        """Hash the models that the function may answer with, to know it again; None where there are none.

        Args:
            student: not looked at.
        """
        models = [one for one in self.held() if isinstance(one, nn.Module)]
        return weights_of(nn.ModuleList(models)) if models else None

    def __call__(self, batch: Mapping[str, Any], needs: frozenset[str]) -> Signals:
        """Call the function; see ``Teacher.__call__``."""
        inputs = self.inputs(batch)
        try:
            with torch.no_grad():
                outputs = self.function(inputs)
        except KeyError as error:
            column = error.args[0] if error.args else None
            if not isinstance(column, str) or column in inputs:
                raise  # of something else than the batch
            raise ValueError(
                f"the teacher {self.facts.name} reads the column {column!r}, the batch has {sorted(inputs)}: name "
                f"what it reads beside the student, teacher_model=FunctionTeacher(function, columns=[{column!r}]), so "
                "that it stays in the data set."
            ) from error
        if not isinstance(outputs, (Tensor, Mapping, tuple)):
            try:
                outputs = torch.as_tensor(outputs)
            except (RuntimeError, TypeError, ValueError) as error:
                raise ValueError(
                    f"the teacher {self.facts.name} returned a {type(outputs).__name__} that is no logits "
                    f"({' '.join(str(error).split())[:100]}): return a tensor, an array or equally long lists."
                ) from error
        if (device := find_device(batch)) is not None:
            outputs = send_to_device(outputs, device)  # where other teachers answer too
        return self.task.signals(None, self.task.teacher_batch(batch), outputs)
