"""A teacher around another one: what it does not change is the other's.

Knows: what every teacher has. Does not know: what is changed.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from hf_distill.teachers.teacher import Teacher


class TeacherAround(Teacher):
    """The base of a teacher that stands before another one, its ``teacher``, such as one that remembers answers.

    Example:
        >>> from hf_distill.tasks import SequenceClassification
        >>> from hf_distill.teachers import LiveTeacher
        >>> class Doubled(TeacherAround):
        ...     def __init__(self, teacher):
        ...         self.teacher = teacher
        >>> live = LiveTeacher(nn.Linear(4, 2), SequenceClassification(num_labels=2))
        >>> Doubled(live).model is live.model, Doubled(live).uncached is live
        (True, True)
    """

    teacher: Teacher

    collective = property(lambda self: self.teacher.collective)
    dtype = property(lambda self: self.teacher.dtype)
    limits = property(lambda self: self.teacher.limits)
    linear = property(lambda self: self.teacher.linear)
    model = property(lambda self: self.teacher.model)
    moves = property(lambda self: self.teacher.moves)
    tokenizer = property(lambda self: self.teacher.tokenizer)
    vocabulary = property(lambda self: self.teacher.vocabulary)
    writes = property(lambda self: self.teacher.writes)

    @property
    def uncached(self) -> Teacher:
        """Who is asked for what is not kept."""
        return self.teacher.uncached

    def collator(self, collator: Any) -> Any:
        """Let whoever is asked have its columns; see ``Teacher.collator``."""
        return self.teacher.collator(collator)

    def expect(self, epochs: int) -> None:
        """Tell whoever is asked; see ``Teacher.expect``."""
        self.teacher.expect(epochs)

    def held(self) -> list[nn.Module | Tensor]:
        """What the answers depend on; see ``Teacher.held``."""
        return self.teacher.held()

    def fingerprint(self, student: nn.Module | None = None) -> str | None:
        """Hash the weights of whoever is asked; see ``Teacher.fingerprint``."""
        return self.teacher.fingerprint(student)

    def generate(self, **inputs: Any) -> Tensor:
        """Let whoever is asked write; see ``Teacher.generate``."""
        return self.teacher.generate(**inputs)
