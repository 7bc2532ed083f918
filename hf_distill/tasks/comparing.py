"""How what two models show becomes comparable: the half of a task that sees both.

Knows: two Signals and the batch they came from, which columns are the teacher's own. Does not know:
how a model is read, objectives, trainers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from hf_distill.signals import Signals
from hf_distill.tasks.alignment.tokens import PREFIX
from hf_distill.tasks.documents import apart
from hf_distill.tasks.layout import Layout


class Comparing:
    """What every ``Task`` says of two models.

    Attributes:
        alignment: how two vocabularies are compared, see ``Alignment``; None: the task predicts no tokens.
    """

    alignment: Any = None
    layout: Callable[[Mapping[str, Any]], Layout]

    @property
    def alignment_columns(self) -> frozenset[str]:
        """The batch columns that say how the two models' tokens belong together."""
        return frozenset() if self.alignment is None else self.alignment.columns

    def align(self, student: Signals, teacher: Signals, batch: Mapping[str, Any]) -> Signals:
        """Bring the teacher's signals into the student's order of classes, rows and tokens: by default as they are.

        Args:
            student: what the student shows.
            teacher: what the teacher shows.
            batch: the batch.

        Returns:
            The teacher's signals, comparable with the student's.

        Raises:
            ValueError: they cannot be compared.
        """
        for name, head in student.heads.items():
            ours = list(head.logits.shape)
            theirs = list(teacher.heads[name].logits.shape) if name in teacher.heads else "none"
            if ours != theirs:
                raise ValueError(
                    f"the teacher gave {name} of shape {theirs}, the student {ours}: both must give the same rows and "
                    "classes."
                )
        return teacher

    def match(self, student: Signals, teacher: Signals, batch: Mapping[str, Any]) -> tuple[Signals, Signals]:
        """Bring both models' signals into one form, and what each of several teachers shows by itself.

        Args:
            student: what the student shows.
            teacher: what the teacher shows; nothing of its own where only named teachers are listened to.
            batch: the batch.

        Returns:
            The student's and the teacher's signals, comparable. Where what a teacher can be compared with is not what
            all others are, the student's ``named`` have it under that teacher's name.
        """
        named = {name: self.align(student, shown, batch) for name, shown in teacher.named.items()}
        alone = not (teacher.heads or teacher.values or teacher.vectors)  # only those that are named are listened to
        return student, replace(teacher if alone else self.align(student, teacher, batch), named=named)

    def telling(self, student: Signals, teacher: Signals) -> Signals:
        """Say what of a teacher tells how close its student is, in an evaluation: by default all.

        Args:
            student: what the student shows.
            teacher: what the teacher shows, comparable with it.

        Returns:
            The teacher's signals, with other ``Head.weights`` where not every row tells something.
        """
        return teacher

    def truths(self, student: Signals, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Say what is right in each row of the student's heads: by default the labels that they bring.

        Args:
            student: what the student shows, in the form in which both models are compared.
            batch: the batch.

        Returns:
            Head -> classes, int64, the leading shape, negative where there is none; or numbers, float [B, C], NaN
            where there is none. Without the heads of which nobody can say it, or where it tells nothing of a model.
        """
        return {name: head.labels for name, head in student.heads.items() if head.labels is not None}

    def each_text(self, student: Signals, teacher: Signals, batch: Mapping[str, Any]) -> tuple[Signals, Signals]:
        """Let both models show each text of a packed row as a row of its own; any other batch is left as it is.

        Args:
            student: what the student shows.
            teacher: what the teacher shows, comparable with it; what one of several shows is cut too.
            batch: the batch.

        Returns:
            The student's and the teacher's signals.

        Raises:
            ValueError: the teacher reads other texts.
        """
        if (ours := self.layout(batch).documents) is None:
            return student, teacher
        theirs = ours if (read := self.teacher_batch(batch)) is batch else self.layout(read).documents
        return apart(student, teacher, ours, theirs)

    def teacher_batch(self, batch: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the batch as a teacher with tokens of its own reads it.

        Args:
            batch: the batch.

        Returns:
            The batch itself, unless positions are compared and the teacher has columns of its own.
        """
        return batch


READ = (
    "input_ids", "inputs_embeds", "input_features", "input_values", "pixel_values", "labels", "decoder_input_ids",
)  # fmt: skip
"""What a model reads first of all; a column ``teacher_logits`` is a teacher's too, and nothing that it reads."""


def reads_own(names: Iterable[str]) -> bool:
    """Say whether a teacher reads something else than the student.

    Args:
        names: of the columns.

    Example:
        >>> reads_own(["input_ids", "teacher_input_ids"]), reads_own(["input_ids", "teacher_logits"])
        (True, False)
    """
    there = set(names)
    return any(f"{PREFIX}{name}" in there for name in READ)


def teachers_columns(batch: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the columns ``teacher_x`` as ``x``; the batch itself, where the teacher reads none of its own.

    Args:
        batch: the batch.

    Example:
        >>> teachers_columns({"input_ids": 1, "teacher_input_ids": 2}), teachers_columns({"input_ids": 1})
        ({'input_ids': 2}, {'input_ids': 1})
    """
    if not reads_own(batch):
        return batch
    return {name.removeprefix(PREFIX): one for name, one in batch.items() if name.startswith(PREFIX)}
