"""When the logits of a large vocabulary are made a chunk at a time, and never whole.

Knows: sizes, and what a student, a task and a supervised loss allow. Does not know: how a chunk is made or compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from hf_distill.models.head import logit_transform
from hf_distill.models.linear_logits import classes_of, head_of, is_plain
from hf_distill.models.sharding import is_sharded
from hf_distill.objectives import Objective
from hf_distill.training.supervised_loss import SupervisedLoss
from hf_distill.training.window import Window

WHOLE = 2**24
"""Up to so many logits of a batch, one chunk, nothing is gained: they are made whole."""
MANY = 2**15
"""From so many classes on a sharded student's logits are never whole: ranks must not differ, and their batches do."""


@dataclass
class FusionArguments:
    """The field that heads of large vocabularies add to ``TrainingArguments``.

    Args:
        fused_logits: ``auto`` makes the logits of a language model a chunk at a time, supervised loss and soft targets
            together, where a batch has more than 2**24 of them and the run allows it; ``on`` whatever their number,
            and refuses a run that does not allow it; ``off`` makes them whole.

    Raises:
        ValueError: another value.

    Example:
        >>> FusionArguments(fused_logits="never")
        Traceback (most recent call last):
        ...
        ValueError: fused_logits='never' was given: use auto, on or off.
    """

    fused_logits: str = field(
        default="auto",
        metadata={
            "help": "auto: the logits of large vocabularies are made a chunk at a time; on: always; off: never."
        },
    )

    def __post_init__(self) -> None:
        """Check the value, then let ``TrainingArguments`` check its own."""
        self.fused_logits = {True: "on", False: "off"}.get(self.fused_logits, self.fused_logits)  # YAML's bare on, off
        if self.fused_logits not in ("auto", "on", "off"):
            raise ValueError(f"fused_logits={self.fused_logits!r} was given: use auto, on or off.")
        if hasattr(super(), "__post_init__"):
            super().__post_init__()


@dataclass(frozen=True)
class FusedLogits:
    """Whether the student's logits are made a chunk at a time, for one objective and one supervised loss.

    Args:
        asked: ``auto``, ``on`` or ``off``; see ``FusionArguments``.
        supervised: the supervised half of the loss, with the task and alpha.
        needs: what the objective needs of the student.
        compiled: whether the student is compiled.
    """

    asked: str
    supervised: SupervisedLoss
    needs: frozenset[str]
    compiled: bool = False

    def check(self, student: nn.Module, sharded: bool) -> None:
        """Refuse ``fused_logits="on"`` where logits must be made whole, and measure a student before it is sharded.

        Args:
            student: the unwrapped student.
            sharded: whether a strategy is going to shard it.

        Raises:
            ValueError: in one sentence.
        """
        if sharded and self.supervised.task.linear:
            logit_transform(student)
        if self.asked == "on" and (reason := self.obstacle(student)):
            raise ValueError(f"fused_logits=on was asked for, but {reason}: leave it at auto.")

    def applies(self, student: nn.Module, batch: Mapping[str, Any]) -> bool:
        """Say whether this batch's logits are made a chunk at a time.

        Args:
            student: the unwrapped student.
            batch: one micro-batch.
        """
        task, alpha = self.supervised.task, self.supervised.alpha
        if alpha < 1 and task.layout(batch).labels is None:
            return False  # where logits are whole, it is said in a sentence that labels are missing
        if self.asked == "off" or not task.linear or (head := head_of(student)) is None:
            return False
        classes = classes_of(head)
        few = classes < MANY if is_sharded(student) else task.layout(batch).rows.numel() * classes <= WHOLE
        return not (self.asked == "auto" and few) and not self.obstacle(student)

    def obstacle(self, student: nn.Module) -> str:
        """Say why the student's logits must be made whole; an empty text where nothing asks for it.

        Args:
            student: the unwrapped student.
        """
        task, alpha = self.supervised.task, self.supervised.alpha
        if not task.linear or "heads" not in self.needs:
            return "it is for language models and terms that compare their logits"
        if alpha < 1 and task.own_loss:
            return "the student computes a loss of its own"
        if alpha < 1 and self.supervised.whole:
            return "compute_loss_func or label smoothing reads whole logits"
        if self.compiled:
            return "a compiled student is one graph, its head included"
        if is_sharded(student) and not is_plain(head_of(student)):
            return "the student is sharded, and its head is more than a weight"
        if logit_transform(student) is None:
            return f"the head of {type(student).__name__} cannot be taken apart"
        return ""


def loss_weights(objective: Objective, alpha: float, window: Window) -> dict[str, Tensor]:
    """Return what each part's total is multiplied by in the loss.

    Args:
        objective: what is learned, at its step.
        alpha: the teacher's share of the loss.
        window: what the whole optimizer step counts.

    Returns:
        name -> scalar; ``"hard"`` where labels are learned from.
    """
    one = window.shares()
    found = {n: alpha * objective.weights[n] * one[term.unit] for n, term in objective.terms.items()}
    return found if alpha == 1 else {**found, "hard": (1 - alpha) * one["labels"]}
