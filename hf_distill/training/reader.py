"""A student that reads its teacher while it learns, and does without in the end.

Knows: a model's embeddings, what a row of tokens is, a schedule. Does not know: who is asked for what is read, losses,
trainers. Which rows read depends on the seed, the step and the row's own tokens, so micro-batches, ranks and a resumed
run agree, and nobody else's random numbers move.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
import xxhash
from torch import Tensor, nn
from transformers import TrainerState

from hf_distill.models.outputs import core_of
from hf_distill.models.texts import IDS
from hf_distill.objectives.schedule import Schedule
from hf_distill.signals import CATEGORICAL, POINTER, Signals
from hf_distill.tasks import Task
from hf_distill.tasks.layout import Layout
from hf_distill.tasks.reading import Place
from hf_distill.teachers import Teacher
from hf_distill.training.reading_checks import check_place, check_served

FADING = {"kind": "linear", "start": 1.0, "end": 0.0, "until": 0.6}
"""Every row reads at first, none from the last 40 % of the steps on."""


@dataclass
class ReaderArguments:
    """The field that a student which reads its teacher while it learns adds to ``TrainingArguments``.

    Args:
        reader: what is added, through a projection that is trained with it, to the embeddings of the student: words as
            in ``reads_teacher``, or a mapping with them under ``reads``, and under ``keep`` how many of the rows read,
            a number from 0 to 1 or a schedule. By default all of them at first, and none from 60 % of the run on.
            The saved student has no part of it.

    Raises:
        ValueError: in one sentence.

    Example:
        >>> ReaderArguments(reader={"reads": "logits", "keep": 2.0})
        Traceback (most recent call last):
        ...
        ValueError: reader was given keep=2.0: it is the share of the rows that read, give a number from 0 to 1, or ...
    """

    reader: dict | str | None = field(
        default=None,
        metadata={
            "help": "What of the teacher is added to the student's embeddings while it learns: logits, hidden[-1], or "
            'JSON such as \'{"reads": "logits", "keep": {"kind": "linear", "start": 1.0, "end": 0.0, "until": 0.6}}\''
        },
    )

    def __post_init__(self) -> None:
        """Check the value, then let ``TrainingArguments`` check its own."""
        if self.reader is not None:
            Reader.of(self.reader)
        if hasattr(super(), "__post_init__"):
            super().__post_init__()


class Reader(nn.Module):
    """Adds a projection of what the teacher showed to the student's embeddings, in some rows.

    Of a distribution it reads log-probabilities, of a hidden state the vectors at unit variance, anything else as it
    is. What there is one of in a row is added at each position. The projection begins at 0: at first nothing changes.

    Args:
        place: what is read.
        keep: the share of the rows that read, at each step.

    Attributes:
        in_evaluation: whether every row reads outside of training, and not none of them.

    Example:
        >>> reader = Reader.of("logits")
        >>> str(reader.place), reader.keep.at(step=0, steps=10), reader.keep.at(step=3, steps=10)
        ('logits', 1.0, 0.5)
    """

    def __init__(self, place: Place, keep: Schedule) -> None:
        super().__init__()
        self.place, self.keep = place, keep
        self.projection: nn.Linear | None = None
        self.in_evaluation = False

    @classmethod
    def of(cls, spec: str | Mapping[str, Any]) -> Reader:
        """Make a reader of what a user wrote; see ``ReaderArguments``.

        Args:
            spec: words, or a mapping.

        Raises:
            ValueError: in one sentence.
        """
        given = {"reads": spec} if isinstance(spec, str) else spec
        if not isinstance(given, Mapping) or "reads" not in given or set(given) - {"reads", "keep"}:
            raise ValueError(
                f"reader={spec!r} was given: give what is read, such as logits, or a mapping with reads and keep."
            )
        keep = given.get("keep", FADING)
        number = isinstance(keep, (int, float)) and not isinstance(keep, bool) and 0 <= keep <= 1
        if isinstance(keep, Mapping):
            schedule = Schedule.read(keep, "keep")
            number = schedule.highest <= 1
        if not number:
            raise ValueError(
                f"reader was given keep={keep!r}: it is the share of the rows that read, give a number from 0 to 1, "
                "or a schedule of it."
            )
        schedule = schedule if isinstance(keep, Mapping) else Schedule(value=float(keep))
        return cls(Place.of(given["reads"], "reader reads"), schedule)

    def build(self, student: nn.Module, task: Task, teacher: Teacher) -> Reader:
        """Make the projection.

        Args:
            student: the unwrapped student.
            task: how the models are read.
            teacher: who is read, prepared.

        Returns:
            This reader.

        Raises:
            ValueError: in one sentence: the teacher cannot show it, or the student has no embeddings of tokens.
        """
        told = f"reader lets the student read {self.place}"
        check_served("reader lets the student read", frozenset({self.place.need(task.streams)}), teacher)
        facts = check_place(self.place, told, task, teacher)
        into, core = embedding_of(student), core_of(student)
        if into is None or getattr(getattr(core, "config", None), "is_encoder_decoder", False):
            raise ValueError(
                f"reader was asked for {type(core).__name__}, which has no one embedding of tokens to add to: leave "
                "it out, or name what is read in its forward (reads_teacher)."
            )
        heads = {head.name: head for head in task.heads}
        width = None
        if self.place.kind == "heads":
            head = heads[self.place.name]
            labels = getattr(task, "num_labels", None) or len(facts.labels or ())
            width = facts.vocab_size if head.linear else labels if head.kind != POINTER else None
        elif self.place.kind in ("hidden", "streams"):
            width = facts.hidden_size if facts.widths is None else facts.widths[self.place.layer]
        elif self.place.kind == "vectors":
            width = facts.vector_size
        if not width:
            raise ValueError(
                f"{told}, of which {facts.name} does not say how wide it is: read hidden states or logits of a model."
            )
        self.projection = nn.Linear(width, _shape(into)[1])
        nn.init.zeros_(self.projection.weight)
        nn.init.zeros_(self.projection.bias)
        return self

    def on(
        self,
        student: nn.Module,
        shown: Signals,
        task: Task,
        fed: Mapping[str, Any],
        layout: Layout,
        seed: int,
        state: TrainerState,
    ) -> AbstractContextManager:
        """While open, the student reads: in training in as many rows as the step keeps, else in all or none.

        Args:
            student: the unwrapped student.
            shown: what the teacher showed for the batch.
            task: how the models are read.
            fed: what the student is called with.
            layout: of the batch.
            seed: of the run.
            state: at which step the run is.
        """
        if student.training:
            step = state.global_step
            share = self.keep.at(step, state.max_steps)
            return self.reading(student, shown, task, rows_that_read(fed, layout.mask, share, seed, step))
        return self.reading(student, shown, task) if self.in_evaluation else nullcontext()

    @contextmanager
    def reading(self, student: nn.Module, shown: Signals, task: Task, kept: Tensor | None = None) -> Iterator[None]:
        """While open, the student's embeddings have added what the teacher showed.

        Args:
            student: the unwrapped student.
            shown: what the teacher showed for the batch.
            task: how the models are read.
            kept: bool [B], which rows read; None: all of them.

        Raises:
            ValueError: what was shown does not belong to what is embedded.
        """
        told, added, seen = self._features(shown, task), [], []

        def add(module: nn.Module, given: Any, output: Tensor) -> Tensor:
            seen.append(list(output.shape))
            if output.ndim != 3 or told.shape[:-1] not in (output.shape[:1], output.shape[:2]):
                return output  # of a few tokens by themselves, as some models embed a placeholder
            added.append(True)
            extra = self.projection(told.to(self.projection.weight.dtype))
            extra = (extra if extra.ndim == 3 else extra.unsqueeze(1)).to(output.dtype)
            if kept is not None:
                rows = kept.repeat_interleave(len(output) // len(kept))
                extra = torch.where(rows.to(extra.device).view(-1, 1, 1), extra, 0.0)
            return output + extra

        hook = embedding_of(student).register_forward_hook(add)
        try:
            yield
        finally:
            hook.remove()
        if not added:
            raise ValueError(
                f"reader reads {self.place} of shape {list(told.shape)}, the student embedded {seen or 'nothing'}: "
                "read what has the same rows and tokens, such as the logits of a text, or leave reader out."
            )

    def _features(self, shown: Signals, task: Task) -> Tensor:
        found = self.place.take(shown, task).float()
        if self.place.kind in ("hidden", "streams"):
            found = F.layer_norm(found, found.shape[-1:])
        elif {head.name: head.kind for head in task.heads}.get(self.place.name) == CATEGORICAL:
            found = found.log_softmax(dim=-1)
        if found.shape[-1] != self.projection.in_features:
            raise ValueError(
                f"reader reads {self.place} of width {found.shape[-1]}, and was made for "
                f"{self.projection.in_features}: say num_labels or vocab_size of the teacher's configuration right."
            )
        return found


def embedding_of(model: nn.Module) -> nn.Module | None:
    """Find what makes vectors of a model's tokens.

    Args:
        model: any module.

    Returns:
        A module with a ``weight`` [V, width]; None where there is none, as in a model of images.

    Example:
        >>> print(embedding_of(nn.Linear(2, 2)))
        None
    """
    try:
        found = core_of(model).get_input_embeddings()
    except (AttributeError, NotImplementedError):  # no model of transformers, or one without such a table
        return None
    return found if len(_shape(found)) == 2 else None


def _shape(embedding: nn.Module) -> tuple[int, ...]:
    table = getattr(embedding, "weight", None)
    return tuple(getattr(table, "ds_shape", getattr(table, "shape", ())))  # ZeRO-3 holds a share of it


def rows_that_read(fed: Mapping[str, Any], mask: Tensor | None, share: float, seed: int, step: int) -> Tensor:
    """Draw the rows of a batch that read their teacher: each by its own tokens, so equal ones alike.

    Args:
        fed: what the student is called with.
        mask: bool [B, T], the positions that are no padding; None: all.
        share: how many of the rows read, from 0 to 1.
        seed: of the run.
        step: how many optimizer steps are done.

    Returns:
        bool [B].

    Raises:
        ValueError: the batch has no tokens.

    Example:
        >>> ids = torch.arange(8000).view(4000, 2)
        >>> few, more = (rows_that_read({"input_ids": ids}, None, share, seed=0, step=3) for share in (0.25, 0.5))
        >>> 900 < int(few.sum()) < 1100, bool((few <= more).all())
        (True, True)
    """
    ids = fed.get(IDS)
    if ids is None:
        raise ValueError(f"reader reads in rows of tokens, the batch has {', '.join(fed)}: leave reader out.")
    head, drawn = f"{seed}|{step}|".encode(), []
    cut = mask is not None and mask.shape == ids.shape
    marks = mask.cpu() if cut else None
    for number, row in enumerate(ids.detach().cpu().long()):
        own = row[marks[number]] if cut else row
        drawn.append(xxhash.xxh3_64_intdigest(head + own.numpy().tobytes()) / 2**64 < share)
    return torch.tensor(drawn, device=ids.device)
