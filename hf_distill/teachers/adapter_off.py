"""A teacher that costs no memory: a LoRA student with its adapter switched off.

Knows: how to switch an adapter off for one call. Does not know: terms, optimizers, how the student is wrapped.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from hf_distill.models.facts import Facts
from hf_distill.models.fingerprint import weights_of
from hf_distill.tasks import Task
from hf_distill.teachers.live import LiveTeacher

if TYPE_CHECKING:
    from transformers import Trainer


class AdapterOffTeacher(LiveTeacher):
    """The base model inside a PEFT student, which stays what it was while the adapter learns.

    It keeps a student that learns something new close to what it knew. The base model must already do the task: the
    logits of an untrained head teach noise.

    Args:
        task: how to read its outputs; None takes the trainer's.

    Example:
        >>> AdapterOffTeacher().facts.name  # trainer = DistillationTrainer(peft_model, ..., teacher_model=this)
        'the student with its adapter off'
    """

    linear = False  # its adapter is on again when a chunk of its logits is made

    def __init__(self, task: Task | None = None) -> None:
        super().__init__(nn.Identity(), task)
        self.facts = Facts(name="the student with its adapter off")
        self._trainer: Trainer | None = None

    def prepare(self, trainer: Trainer) -> None:
        """Look at the student; nothing is copied, moved or frozen. See ``Teacher.prepare``."""
        student = trainer.model
        if not hasattr(student, "disable_adapter"):
            raise ValueError(
                f"AdapterOffTeacher switches the student's adapter off, {type(student).__name__} has none: make the "
                "student with peft.get_peft_model, or pass another teacher_model."
            )
        self.task, self._trainer = self.task or trainer.task, trainer
        self.collective = trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled
        name = self.facts.name
        self._read(student)
        self.facts = Facts(**{**vars(self.facts), "name": name})
        self._precision(trainer.args.device.type, lambda: trainer.accelerator.autocast())

    def held(self) -> list[Tensor]:
        """What the adapter does not change; see ``Teacher.held``."""
        return [p for p in self.model.parameters() if not p.requires_grad]

    def fingerprint(self, student: nn.Module | None = None) -> str | None:
        """Hash what the adapter does not change, to know the teacher again.

        Args:
            student: the student, before it is prepared; then it is known.
        """
        frozen = (p for p in (student or self.model).parameters() if not p.requires_grad)
        return weights_of(nn.ParameterList(frozen))

    @property
    def model(self) -> nn.Module:
        """The student; asked anew, because ``model_init`` makes another one for every trial."""
        return self._base if self._trainer is None else self._trainer.model

    @model.setter
    def model(self, model: nn.Module) -> None:
        self._base = model

    def _forward(self, **inputs: Any) -> Any:
        student, engine = self.model, self._trainer.model_wrapped
        with student.disable_adapter(), evaluating(student):
            # DeepSpeed must see the call; DDP and a compiled module have no part in a forward without gradients.
            return (engine if self._trainer.is_deepspeed_enabled else student)(**inputs)

    writes = True  # as the student does, once it is known

    def generate(self, **inputs: Any) -> Tensor:
        """Let the base model write; see ``LiveTeacher.generate``."""
        with self.model.disable_adapter(), evaluating(self.model), torch.no_grad(), self._autocast():
            return self.model.generate(**inputs)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Switch dropout off, and afterwards on again exactly where it was.

    Args:
        model: the model.

    Example:
        >>> model = nn.Sequential(nn.Dropout(), nn.Dropout().eval())
        >>> with evaluating(model):
        ...     [layer.training for layer in model]
        [False, False]
        >>> [layer.training for layer in model]
        [True, False]
    """
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
