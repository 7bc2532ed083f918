"""A trainer whose student learns to be quantised, by default from itself as it was before.

Knows: when the student is prepared and when its quantised copy is written. Does not know: which layers, torchao.
"""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from hf_distill.objectives.objective import CHILD
from hf_distill.students.prepared_layers import restore
from hf_distill.students.quantization import StudentQuantization
from hf_distill.teachers import LiveTeacher
from hf_distill.training.projections import attach_to_student

logger = logging.getLogger(__name__)
NAME = "the student before it was quantised"


@dataclass
class QuantizationArguments:
    """The field that a student which learns to be quantised adds to ``TrainingArguments``.

    Args:
        student_quantization: train the student as it will compute once its linear layers are quantised: ``int8``
            (weights and activations), ``int8-int4`` (int8 activations, int4 weights in groups of 32), ``int4``
            (weights alone), ``float8`` (on GPUs), or a mapping with ``weights``, ``activations``, ``group_size`` and
            ``skip``; see ``StudentQuantization``. Without ``teacher_model`` its teacher is the student as it was;
            ``alpha=0`` trains without one. ``save_model`` writes the float student, and the quantised one in the
            folder ``quantized`` of it.

    Raises:
        ValueError: in one sentence.

    Example:
        >>> QuantizationArguments(student_quantization="int1")
        Traceback (most recent call last):
        ...
        ValueError: student_quantization='int1' is not known: use int8, int8-int4, int4, float8, or a mapping with ...
    """

    student_quantization: dict | str | None = field(
        default=None,
        metadata={
            "help": "Train the student as it will be quantised: int8, int8-int4, int4, float8 (GPUs), or JSON such as "
            '\'{"weights": "int4", "activations": "int8", "group_size": 32, "skip": ["classifier"]}\'. Without a '
            "teacher it learns from itself as it was; alpha=0: from labels alone. Needs torchao."
        },
    )

    def __post_init__(self) -> None:
        """Check the value, then let ``TrainingArguments`` check its own."""
        if self.student_quantization is not None:
            StudentQuantization.of(self.student_quantization)
        if hasattr(super(), "__post_init__"):
            super().__post_init__()


class QuantizationMixin:
    """The part of the trainer that prepares the student, and writes it quantised."""

    args: Any
    quantization: StudentQuantization | None = None

    def _quantize_student(self, teacher_model: Any) -> Any:
        """Prepare the student, before anything else looks at it.

        Returns:
            Who teaches: as given, or the student as it was.
        """
        if (asked := getattr(self.args, "student_quantization", None)) is None:
            return teacher_model
        self.quantization, student = StudentQuantization.of(asked), self.model
        self.quantization.check(student)
        if self.is_deepspeed_enabled and self.accelerator.state.deepspeed_plugin.zero_stage == 3:
            raise ValueError(
                f"student_quantization={asked!r} was asked for under DeepSpeed ZeRO-3, where no rank has the weights "
                "of a layer to round: use ZeRO-2 or FSDP2."
            )
        attach_to_student(student, None)  # what another trainer's objective trained beside it
        if teacher_model is None and getattr(self.args, "alpha", None) != 0:
            teacher_model = LiveTeacher(restore(copy.deepcopy(student)))
            teacher_model.facts = replace(teacher_model.facts, name=NAME)
        self.quantization.prepare(student)
        return teacher_model

    def call_model_init(self, *args: Any, **kwargs: Any) -> nn.Module:
        """Make the student as Trainer does, and prepare it.

        Args:
            *args: as in ``Trainer.call_model_init``.
            **kwargs: as in ``Trainer.call_model_init``.
        """
        model = super().call_model_init(*args, **kwargs)
        if self.quantization is not None:  # else Trainer is constructed, and `_quantize_student` follows
            self.quantization.prepare(model)
        return model

    def _save_quantized(self, student: nn.Module, folder: Path) -> None:
        """Write the quantised student beside the float one, with what makes its inputs."""
        if self.quantization is None or not self.args.should_save:
            return
        if not isinstance(student, PreTrainedModel):
            logger.warning(
                "%s is no model of transformers: %s holds it in float, StudentQuantization.convert quantises it.",
                type(student).__name__,
                folder,
            )
            return
        carried = student._modules.pop(CHILD, None)  # an objective's layers are none of the student's
        try:
            into = self.quantization.save(student, folder)
        finally:
            if carried is not None:
                student.add_module(CHILD, carried)
        if self.processing_class is not None:
            self.processing_class.save_pretrained(into)
