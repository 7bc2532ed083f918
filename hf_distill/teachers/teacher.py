"""Teacher: anything that answers a batch with Signals.

Knows: batches and Signals, and what a trainer may ask of any teacher. Does not know: terms, the student, how answers
are used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from hf_distill.models.context import Limits
from hf_distill.models.facts import Facts
from hf_distill.models.fingerprint import weights_of
from hf_distill.signals import Signals
from hf_distill.tasks import Task
from hf_distill.tasks.layout import without_layout

if TYPE_CHECKING:
    from transformers import Trainer


class Teacher:
    """The base of every teacher; a subclass needs ``__call__``, and changes what is not so of it.

    Attributes:
        serves: what it can show: ``"heads"``, ``"hidden"``, ``"attention"``, ``"values"``, ``"vectors"``; asked for
            before training starts. What one of several teachers shows by itself is ``"hidden@big"``.
        facts: what is known of it before it runs.
        columns: the batch columns that it reads; they are not removed from the data set and not given to the student.
        task: how its outputs are read; None takes the trainer's.
        collective: it is sharded, so every rank must call it together.
        members: name -> Teacher, of one that is made of several.
        weights: name -> the share of each of these in their mean.
        averaged: what the mean is taken of, "probabilities" or "logits"; None: it is no mean.
        choose: the column that says which of several answers a row; None: none does.
        model: the module that answers; None: it is no module.
        dtype: the precision of its weights and of what it computes; None: as they are, under the run's autocast.
        tokenizer: its tokenizer, if it is known.
        vocabulary: the hash of its tokens where nothing else is left of them; see ``vocabulary_of``.
        limits: what texts it can read; None: any.
        temperature: the only one at which its answers can be used, where it keeps a few ids (``TopKLogits``); None:
            any.
        linear: whether it may be asked for ``"linear"`` beside ``"heads"``: its head is then what enters it
            (``LinearLogits``).
        moves: whether its answers change while the student learns: they are never kept. Any other one is watched.
        writes: whether it can write a text, with ``generate``.

    Example:
        >>> from hf_distill.signals import DenseLogits, Head
        >>> class Majority(Teacher):
        ...     def __call__(self, batch, needs):
        ...         rows = len(batch["input_ids"])
        ...         logits = torch.tensor([[2.0, -2.0]]).repeat(rows, 1)
        ...         return Signals({"logits": Head(DenseLogits(logits), torch.ones(rows, dtype=torch.bool))})
        >>> teacher = Majority()
        >>> teacher({"input_ids": torch.ones(3, 4)}, teacher.serves).heads["logits"].logits.shape
        torch.Size([3, 2])
    """

    serves: frozenset[str] = frozenset({"heads"})
    facts: Facts = Facts()
    columns: frozenset[str] = frozenset()
    task: Task | None = None
    collective: bool = False
    members: Mapping[str, Teacher] = MappingProxyType({})
    weights: Mapping[str, float] = MappingProxyType({})
    averaged: str | None = None
    choose: str | None = None
    model: nn.Module | None = None
    dtype: torch.dtype | None = None
    tokenizer: PreTrainedTokenizerBase | None = None
    vocabulary: str | None = None
    limits: Limits | None = None
    temperature: float | None = None
    linear: bool = False
    moves: bool = False
    writes: bool = False

    # ---- Answering ----

    def prepare(self, trainer: Trainer) -> None:
        """Take the place that the trainer gives it: device, precision, task; once, and never as the trainer's model.

        Args:
            trainer: the trainer, fully constructed.
        """
        self.task = self.task or trainer.task

    def collator(self, collator: Any) -> Any:
        """Return what makes batches with the columns that it reads, once it is prepared: by default as it was.

        Args:
            collator: the run's data collator.
        """
        return collator

    def inputs(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Return what it really reads of a batch: by default everything but the labels.

        Args:
            batch: the batch, as the collator made it.
        """
        labels = {"labels", *(() if self.task is None else self.task.label_names)}
        return {name: value for name, value in without_layout(batch).items() if name not in labels}

    def __call__(self, batch: Mapping[str, Any], needs: frozenset[str]) -> Signals:
        """Answer a batch, without gradients.

        Args:
            batch: the batch, on the trainer's device.
            needs: what to show; a subset of ``serves``.
        """
        raise NotImplementedError(f"{type(self).__name__} has no __call__(batch, needs) that answers a batch: add it.")

    def generate(self, **inputs: Any) -> Tensor:
        """Write a text; only of one that ``writes``.

        Args:
            **inputs: as transformers' ``generate``.

        Returns:
            Token ids [B, T].
        """
        raise NotImplementedError(f"{type(self).__name__} writes no texts: set writes to False, or add generate().")

    # ---- Who it is ----

    def held(self) -> list[nn.Module | Tensor]:
        """Return what its answers depend on, so that a change is noticed: by default what is among its attributes."""
        return [one for one in vars(self).values() if isinstance(one, (nn.Module, Tensor))]

    def fingerprint(self, student: nn.Module | None = None) -> str | None:
        """Hash its weights, to know it again; None where there are none, or none that are whole.

        Args:
            student: whose teacher it is, which one that is a part of it looks at.
        """
        return weights_of(self.model, self.dtype) if isinstance(self.model, nn.Module) else None

    @property
    def uncached(self) -> Teacher:
        """Who is asked for what is not kept; a teacher without a cache is that itself."""
        return self

    # ---- What a trainer tells it ----

    def expect(self, epochs: int) -> None:
        """Learn that the next training is one of several, which see the same rows.

        Args:
            epochs: so often, all of them together.
        """

    def prefetch(self, batches: Sequence[dict[str, Any]], needs: frozenset[str]) -> None:
        """See all micro-batches of an optimizer step before the first is asked for, as they came from the data.

        Args:
            batches: the micro-batches.
            needs: what is going to be asked for.
        """

    def cache_hits(self) -> tuple[int, int] | None:
        """Return how many rows of training batches were kept ones, of how many, since it was last asked.

        Returns:
            Two numbers; None where nothing is ever kept.
        """
        return None

    def save(self, checkpoint: str | Path, rank: int, name: str = "", answers: bool = True) -> None:
        """Write beside a checkpoint what a resumed run must know; all ranks call it together.

        Args:
            checkpoint: its folder.
            rank: of this process.
            name: tells the teacher from others of the same run.
            answers: whether kept answers are written too; not into a folder that is going to be published.
        """

    def load(self, checkpoint: str | Path, name: str = "") -> None:
        """Go on from a checkpoint.

        Args:
            checkpoint: its folder.
            name: as it was written under.
        """
