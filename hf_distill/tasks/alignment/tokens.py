"""What of two language models is compared, and the usual way: token by token.

Knows: heads, vocabularies, which positions a task counts. Does not know: tokenizers, objectives, teachers, trainers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from hf_distill.models.facts import Facts
from hf_distill.models.topk_logits import TopKLogits
from hf_distill.signals import Head, Signals
from hf_distill.tasks.alignment.vocabulary import Columns, Shared, Vocabulary, looked_up, places, renamed

PREFIX = "teacher_"
"""A batch column ``teacher_input_ids`` is the teacher's ``input_ids``, and nobody else's."""

KNOW = "let both tokenizers be known (processing_class=, and LiveTeacher(model, tokenizer=...))"


class Alignment(ABC):
    """How the heads of two language models become comparable.

    Attributes:
        columns: batch columns that it reads and no model takes; they are kept in the data set.
        objective: what is learned from the teacher if the user names nothing.
        same_classes: both heads have the same classes afterwards; otherwise only a term that sorts can compare them.
        same_positions: both models read the same positions; otherwise only their heads can be compared.
        known: teacher -> the vocabularies of the student and of that teacher; None: the only one, or several's mean.
    """

    columns: ClassVar[frozenset[str]] = frozenset({f"{PREFIX}labels"})
    objective: ClassVar[str] = "forward_kl"
    same_classes: ClassVar[bool] = True
    same_positions: ClassVar[bool] = True

    def __init__(self) -> None:
        self.known: dict[str | None, tuple[Vocabulary | None, Vocabulary | None]] = {}
        self._made: dict[Any, Any] = {}

    def meet(
        self,
        student: Facts,
        ours: Vocabulary | None,
        teacher: Facts,
        theirs: Vocabulary | None,
        own: bool = False,
        name: str | None = None,
    ) -> None:
        """Learn the vocabularies of the two models, before any batch.

        Args:
            student: what is known of the student.
            ours: its token strings and their ids; None: not known.
            teacher: what is known of the teacher.
            theirs: its token strings and their ids; None: not known.
            own: whether the teacher reads ids of its own (columns ``teacher_input_ids``, ...).
            name: of one of several teachers.

        Raises:
            ValueError: in one sentence, if the two cannot be compared in this way.
        """
        self.known[name] = (ours, theirs)
        self._made.clear()

    def count(self, task: Any, batch: Mapping[str, Any]) -> Tensor:
        """Count the distributions that are compared, from the batch alone.

        Args:
            task: how the models are read.
            batch: the batch.

        Returns:
            int64, a scalar.
        """
        return task.rows(batch).sum()

    @abstractmethod
    def pair(
        self,
        task: Any,
        student: Signals,
        teacher: Signals,
        batch: Mapping[str, Any],
        name: str | None = None,
    ) -> tuple[Signals, Signals]:
        """Bring the heads of both models into one form.

        Args:
            task: how the models are read.
            student: what the student shows.
            teacher: what the teacher shows.
            batch: the batch.
            name: of one of several teachers.

        Returns:
            The student's and the teacher's signals, whose heads can be compared.

        Raises:
            ValueError: in one sentence, they cannot.
        """

    def _shared(self, ours: Vocabulary, theirs: Vocabulary, sizes: tuple[int, int], device: torch.device) -> Shared:
        key = (id(ours), id(theirs), sizes, device)
        if key not in self._made:
            self._made[key] = Shared(*(one.to(device) for one in Shared.of(ours, theirs, *sizes)))
        return self._made[key]


class TokenAlignment(Alignment):
    """Token by token: the columns of both heads that are the same token string, at the same positions.

    Heads of the same size and the same tokenizer are compared as they are. Otherwise the tokens that both tokenizers
    have are compared, in the order of the student's ids, and both distributions are normalised over these alone: rows
    that only pad a head, and tokens of one tokenizer only, get no gradient. Where the ids differ, the teacher reads
    its own in ``teacher_input_ids`` (an encoder-decoder's in ``teacher_labels`` too), which must be the same tokens.

    A longer head is not cut to a shorter one where a tokenizer is not known: what its last rows are, and whether the
    first mean the same, cannot be told from a size.

    Example:
        >>> alignment = TokenAlignment()
        >>> alignment.meet(Facts(vocab_size=4), {"a": 0, "b": 1}, Facts(vocab_size=8), {"a": 0, "b": 1})
        >>> alignment.meet(Facts(), {"a": 0}, Facts(name="A"), {"b": 0}, own=True)
        Traceback (most recent call last):
        ...
        ValueError: the teacher A and the student have different tokenizers (1 of the student's 1 tokens are none of \
the teacher's, 1 of its 1 are none of the student's): set teacher_alignment="span" or "uld", or use one tokenizer.
    """

    def meet(
        self,
        student: Facts,
        ours: Vocabulary | None,
        teacher: Facts,
        theirs: Vocabulary | None,
        own: bool = False,
        name: str | None = None,
    ) -> None:
        """Refuse different tokenizers, and different sizes where a tokenizer is not known; see ``Alignment.meet``."""
        sizes = (teacher.vocab_size, student.vocab_size)
        if ours is None or theirs is None:
            if None not in sizes and sizes[0] != sizes[1]:
                raise ValueError(
                    f"the teacher {teacher.name} has a vocabulary of {sizes[0]}, the student of {sizes[1]}: use two "
                    f"models with the same vocabulary, or {KNOW}, which say which tokens both have."
                )
            ours = theirs = None
        elif (here := ours.keys() - theirs.keys()) and (there := theirs.keys() - ours.keys()):
            raise ValueError(
                f"the teacher {teacher.name} and the student have different tokenizers ({len(here)} of the student's "
                f"{len(ours)} tokens are none of the teacher's, {len(there)} of its {len(theirs)} are none of the "
                'student\'s): set teacher_alignment="span" or "uld", or use one tokenizer.'
            )
        elif not own and (moved := sum(theirs.get(token) != index for token, index in ours.items())):
            raise ValueError(
                f"the teacher {teacher.name} and the student read the same input_ids, but {moved} of the student's "
                f"{len(ours)} tokens have another id or none in the teacher's tokenizer: use one tokenizer for both, "
                "or put the teacher's ids into columns teacher_input_ids, teacher_attention_mask, ..."
            )
        super().meet(student, ours, teacher, ours if ours == theirs else theirs, own, name)

    def pair(
        self,
        task: Any,
        student: Signals,
        teacher: Signals,
        batch: Mapping[str, Any],
        name: str | None = None,
    ) -> tuple[Signals, Signals]:
        """Show both heads in the columns that they share; see ``Alignment.pair``."""
        (mine, other), (ours, theirs) = _heads(student, teacher), self.known.get(name, (None, None))
        sizes = (mine.logits.shape[-1], other.logits.shape[-1])
        unknown = ours is None and sizes[0] != sizes[1]
        if mine.logits.shape[:-1] != other.logits.shape[:-1] or unknown:
            raise ValueError(
                f"the teacher gave logits of shape {list(other.logits.shape)}, the student "
                f"{list(mine.logits.shape)}: both must read the same positions and have the same vocabulary"
                f"{f', or {KNOW}' if unknown else ''}."
            )
        if ours is None or (sizes[0] == sizes[1] and ours is theirs):
            return student, teacher
        shared = self._shared(ours, theirs, sizes, mine.rows.device)
        if (read := task.teacher_batch(batch)) is not batch:
            _same_tokens(task, batch, read, shared, sizes[0])
        kept = other.logits
        if isinstance(kept, TopKLogits):
            kept = renamed(kept, shared.theirs, mine.rows)
        else:
            kept = Columns(kept, shared.theirs)
        labels = mine.labels
        if labels is not None:
            labels = looked_up(places(shared.ours, sizes[0]), labels)
        mine = Head(Columns(mine.logits, shared.ours), mine.rows, labels)
        return replace(student, heads={"logits": mine}), replace(teacher, heads={"logits": Head(kept, other.rows)})


def own_columns(vocabulary: Vocabulary, size: int) -> Tensor:
    """Return the columns of a head that are tokens and no padding, int64 [n], in their order.

    Args:
        vocabulary: token string -> id.
        size: how many columns the head has.

    Example:
        >>> own_columns({"a": 1, "b": 0, "beyond": 9}, size=4)
        tensor([0, 1])
    """
    return torch.tensor(sorted({index for index in vocabulary.values() if index < size}), dtype=torch.int64)


def whole_heads(student: Signals, teacher: Signals, how: str) -> tuple[Head, Head]:
    """Return both heads; refuse a teacher that keeps a few ids.

    Args:
        student: what the student shows.
        teacher: what the teacher shows.
        how: the name of the alignment.

    Raises:
        ValueError: in one sentence.
    """
    heads = _heads(student, teacher)
    if isinstance(heads[1].logits, TopKLogits):
        raise ValueError(
            f'teacher_alignment="{how}" compares whole distributions, the teacher keeps a few ids of each: keep whole '
            "logits (top=0)."
        )
    return heads


def _heads(student: Signals, teacher: Signals) -> tuple[Head, Head]:
    return student.heads["logits"], teacher.heads["logits"]


def _same_tokens(task: Any, batch: Mapping[str, Any], read: Mapping[str, Any], shared: Shared, size: int) -> None:
    """Refuse rows whose tokens are other ones for the teacher: their positions say nothing of each other."""
    ours, theirs = task.text(batch), task.text(read)
    if ours is None or theirs is None or ours.ids.shape != theirs.ids.shape:
        return
    same = looked_up(shared.translation(size), ours.ids)
    wrong = ours.real & (same >= 0) & (same != theirs.ids)
    if wrong.any():
        row, position = wrong.nonzero()[0].tolist()
        raise ValueError(
            f"token {position} of row {row} has the id {int(ours.ids[row, position])} in the student's tokenizer, "
            f"which is {int(same[row, position])} in the teacher's, but the teacher's column holds "
            f"{int(theirs.ids[row, position])}: give it the same tokens (a decoder's in teacher_labels), "
            'or set teacher_alignment="span".'
        )
