"""Teacher: anything that answers a batch with Signals.

Knows: batches and Signals. Does not know: terms, the student, how its answers are used.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from torch import Tensor

from hf_distill.models.facts import Facts
from hf_distill.signals import Signals

if TYPE_CHECKING:
    from transformers import Trainer


@runtime_checkable
class Teacher(Protocol):
    """The contract of every teacher.

    Attributes:
        serves: what it can show: ``"heads"``, ``"hidden"``, ``"attention"``; asked for before training starts. What
            one of several teachers shows by itself is ``"hidden@big"``.
        facts: what is known of it before it runs.
        collective: it is sharded, so every rank must call it together.
        columns: the batch columns that it reads; they are not removed from the data set and not given to the student.

    A teacher that also has ``linear``, and it is true, may be asked for ``"linear"`` beside ``"heads"``: its head is
    then what enters it (``LinearLogits``).

    A teacher whose answers change while the student learns has ``moves``, and it is true: they are never kept. Any
    other one is watched: what it has in ``held()``, a list of modules and tensors, or among its attributes.

    A teacher whose heads hold a few ids (``TopKLogits``) also has ``temperature``, a float: that of these ids. Without
    the attribute, or with None, heads are whole.
    """

    serves: frozenset[str]
    facts: Facts
    collective: bool
    columns: frozenset[str]

    def prepare(self, trainer: Trainer) -> None:
        """Take the place that the trainer gives it: device, precision, task; once, and never as the trainer's model.

        Args:
            trainer: the trainer, fully constructed.
        """

    def inputs(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return what the model is really fed for a batch.

        Args:
            batch: the batch, as the collator made it.
        """

    def __call__(self, batch: Mapping[str, Any], needs: frozenset[str]) -> Signals:
        """Answer a batch, without gradients.

        Args:
            batch: the batch, on the trainer's device.
            needs: what to show; a subset of ``serves``.
        """
