"""What must hold before the first step where a student reads its teacher: it is shown, and somebody takes it.

Knows: tasks, teachers, the arguments of a run. Does not know: batches, losses, how what is read is made or used.
"""

from __future__ import annotations

import inspect
import logging
from typing import Any

from torch import nn
from transformers import TrainingArguments

from hf_distill.models.facts import Facts
from hf_distill.models.outputs import core_of
from hf_distill.tasks import Task
from hf_distill.tasks.reading import Place, TeacherReading
from hf_distill.teachers import Teacher
from hf_distill.training.checks import is_served

logger = logging.getLogger(__name__)


def check_reads_alone(args: TrainingArguments, task: Task | None, student: nn.Module) -> None:
    """Refuse a student that cannot do without its teacher where there is none.

    Args:
        args: the run's arguments; one that stands there may be meant for other runs, and is told.
        task: how the models are read; None: nobody knows.
        student: the unwrapped student.

    Raises:
        ValueError: in one sentence.
    """
    if task is not None and task.reads:
        raise ValueError(
            f"{type(task).__name__} lets the student read {', '.join(sorted(task.reads))} of its teacher, but there "
            "is none: pass teacher_model=, or a task that reads nothing."
        )
    reading = TeacherReading.of(args, student)
    if reading is not None and (missing := reading.required(student)):
        raise ValueError(
            f"{type(core_of(student)).__name__} reads {reading} of its teacher, but there is none: pass "
            f"teacher_model=, or give {', '.join(missing)} a default in its forward."
        )
    for name in ("reads_teacher", "reader"):
        if (asked := getattr(args, name, None)) is not None:
            logger.warning(
                "%s=%r stands in the arguments, but there is no teacher: the student reads nothing of one.",
                name,
                asked,
            )


def check_reads(
    task: Task, teacher: Teacher, args: TrainingArguments, reading: TeacherReading | None, student: nn.Module
) -> None:
    """Refuse a student that reads of its teacher what nobody can show it, or that is called without its teacher.

    Args:
        task: how the models are read.
        teacher: who is asked.
        args: the run's arguments.
        reading: what its forward is given; None: nothing beside what the task gives it.
        student: the unwrapped student.

    Raises:
        ValueError: in one sentence.
    """
    if task.reads:
        name = type(task).__name__
        check_served(f"{name} lets the student read", task.reads, teacher)
        takes = inspect.signature(task.inputs).parameters.values()
        if not any(one.name == "teacher" or one.kind is one.VAR_KEYWORD for one in takes):
            raise ValueError(
                f"{name} lets the student read {', '.join(sorted(task.reads))} of its teacher, but its inputs() takes "
                "no argument teacher: add it, inputs(model, fed, batch, teacher=None)."
            )
        _check_calls(", ".join(sorted(task.reads)), args)
    if reading is not None:
        check_served("reads_teacher lets the student read", reading.needs(task.streams), teacher)
        for place in reading.places.values():
            check_place(place, f"reads_teacher lets the student read {place}", task, teacher)
        _check_required(reading, student, teacher, args)
    for name, why in (
        ("accumulate_negatives", "runs the student ahead of the step, without its teacher"),
        ("torch_compile", "runs a student that nothing is added to"),
    ):
        if getattr(args, "reader", None) is not None and getattr(args, name, False):
            raise ValueError(f"reader was asked for with {name}, which {why}: leave one of them out.")


def check_place(place: Place, told: str, task: Task, teacher: Teacher) -> Facts:
    """Refuse a head, vector, value, stream or layer that is not there, as far as that is known.

    Args:
        place: what is read.
        told: who reads it, for a message.
        task: how the models are read.
        teacher: who is asked.

    Returns:
        What is known of the one that shows it.

    Raises:
        ValueError: in one sentence.
    """
    there: dict[str, Any] = {"vectors": task.vectors, "values": task.values, "streams": task.streams}
    names = [head.name for head in task.heads] if place.kind == "heads" else there.get(place.kind)
    if names is not None and place.name not in names:
        raise ValueError(
            f"{told}, of {place.kind} {type(task).__name__} shows {', '.join(names) or 'none'}: name what is there."
        )
    facts = teacher.members[place.who].facts if place.who else teacher.facts
    if place.kind == "streams" and place.name != task.streams[0]:
        facts = facts.stream(place.name)
    layers = facts.num_layers
    if place.layer is not None and layers is not None:
        number = layers + (place.kind != "attention")
        if not -number <= place.layer < number:
            raise ValueError(
                f"{told}, {facts.name} shows {number} of them: name one from 0 to {number - 1}, or from the end."
            )
    return facts


def check_served(told: str, needs: frozenset[str], teacher: Teacher) -> None:
    """Refuse what a teacher cannot show.

    Args:
        told: who reads, for a message.
        needs: what is read.
        teacher: who is asked.

    Raises:
        ValueError: in one sentence.
    """
    if missing := sorted(need for need in needs if not is_served(need, teacher.serves)):
        raise ValueError(
            f"{told} {missing} of its teacher, {teacher.facts.name} serves "
            f"{sorted(teacher.serves)}: pass a teacher that can show it, or name one of several ({missing[0]}@NAME)."
        )
    if teacher.temperature is not None and any(need.partition("@")[0] == "heads" for need in needs):
        raise ValueError(
            f"{told} its teacher's logits, of which {teacher.facts.name} keeps a few ids: keep whole logits."
        )


def _check_calls(read: str, args: TrainingArguments) -> None:
    for name, why in (("predict_with_generate", "it writes"), ("accumulate_negatives", "it is run ahead of the step")):
        if getattr(args, name, False):
            raise ValueError(
                f"{name} was asked for a student that reads {read} of its teacher, who is not asked while {why}: "
                "leave it out."
            )


def _check_required(reading: TeacherReading, student: nn.Module, teacher: Teacher, args: TrainingArguments) -> None:
    """Refuse calls in which nobody gives a forward what it cannot do without."""
    for one in (teacher.members or {"": teacher}).values():
        if isinstance(one.model, nn.Module) and (missing := reading.required(one.model)):
            raise ValueError(
                f"the teacher {one.facts.name} reads a teacher itself and has none: give {', '.join(missing)} a "
                "default in its forward, or pass another teacher."
            )
    if reading.required(student):
        _check_calls(str(reading), args)
