"""How a user says what two vocabularies are compared by: one field.

Knows: names, what a task has. Does not know: batches, models, trainers.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hf_distill.tasks.alignment.sorted import SortedAlignment
from hf_distill.tasks.alignment.spans import SpanAlignment
from hf_distill.tasks.alignment.tokens import Alignment, TokenAlignment
from hf_distill.tasks.comparing import Comparing

ALIGNMENTS: dict[str, type[Alignment]] = {"tokens": TokenAlignment, "uld": SortedAlignment, "span": SpanAlignment}
"""What ``teacher_alignment``, and a task's ``align``, may be."""


@dataclass
class AlignmentArguments:
    """The field that other vocabularies add to ``TrainingArguments``.

    Args:
        teacher_alignment: how two language models are compared. ``tokens``: the tokens that both tokenizers have, at
            the same positions; different tokenizers are refused. ``span``: two tokenizers, wherever both models have
            read the same text; see ``SpanAlignment``. ``uld``: sorted probabilities; see ``SortedAlignment``. For the
            last two the teacher reads columns of its own, ``teacher_input_ids``, ...; see ``TwoTokenizers``.

    Raises:
        ValueError: another name.

    Example:
        >>> AlignmentArguments(teacher_alignment="letters")
        Traceback (most recent call last):
        ...
        ValueError: teacher_alignment='letters' is not known: use tokens, uld, span.
    """

    teacher_alignment: str = field(
        default="tokens",
        metadata={
            "help": "How two vocabularies are compared: tokens (those that both have), span (two tokenizers, where "
            "both have read the same text) or uld (sorted probabilities)."
        },
    )

    def __post_init__(self) -> None:
        """Check the value, then let the next class check its own."""
        if self.teacher_alignment not in ALIGNMENTS:
            raise ValueError(
                f"teacher_alignment={self.teacher_alignment!r} is not known: use {', '.join(ALIGNMENTS)}."
            )
        if hasattr(super(), "__post_init__"):
            super().__post_init__()


def align_by(task: Comparing, how: str) -> None:
    """Let a task compare two vocabularies in another way than the usual one.

    Args:
        task: any; its ``alignment`` is replaced.
        how: what ``teacher_alignment`` may be.

    Raises:
        ValueError: in one sentence, the task predicts no tokens, or was made with another ``align``.

    Example:
        >>> from hf_distill.tasks import SequenceClassification
        >>> align_by(SequenceClassification(num_labels=2), "span")
        Traceback (most recent call last):
        ...
        ValueError: teacher_alignment='span' was asked for, but the task SequenceClassification predicts no tokens: \
leave it out.
    """
    if how == "tokens":
        return
    if type(task.alignment) not in (TokenAlignment, ALIGNMENTS[how]):
        has = "predicts no tokens" if task.alignment is None else "was made with another align"
        raise ValueError(
            f"teacher_alignment={how!r} was asked for, but the task {type(task).__name__} {has}: leave it out."
        )
    task.alignment = ALIGNMENTS[how]()
