"""When the logits of a large vocabulary are made a chunk at a time, and never whole.

Knows: sizes, and what a trainer, a student and a task allow. Does not know: how a chunk is made or compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from hf_distill.models.head import tail_of
from hf_distill.models.linear_logits import classes_of, head_of, is_plain
from hf_distill.models.sharding import is_sharded
from hf_distill.objectives import normalise

if TYPE_CHECKING:
    from hf_distill.trainer import DistillationMixin

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


def check_fused(trainer: DistillationMixin, student: nn.Module) -> None:
    """Refuse ``fused_logits="on"`` where logits must be made whole, and measure a student before it is sharded.

    Args:
        trainer: the trainer, with its objective built.
        student: the unwrapped student.

    Raises:
        ValueError: in one sentence.
    """
    if trainer.task.linear and (trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled):
        tail_of(student)
    if _asked(trainer) == "on" and (reason := obstacle(trainer, student)):
        raise ValueError(f"fused_logits=on was asked for, but {reason}: leave it at auto.")


def fused(trainer: DistillationMixin, student: nn.Module, batch: Mapping[str, Any], outputs: bool) -> bool:
    """Say whether this batch's logits are made a chunk at a time.

    Args:
        trainer: the trainer, with its teacher and objective.
        student: the unwrapped student.
        batch: one micro-batch.
        outputs: somebody wants the student's logits.
    """
    asked = _asked(trainer)
    if trainer.alpha < 1 and trainer.task.labels(batch) is None:
        return False  # where logits are whole, it is said in a sentence that labels are missing
    if asked == "off" or outputs or not trainer.task.linear or (head := head_of(student)) is None:
        return False
    classes = classes_of(head)
    few = classes < MANY if is_sharded(student) else trainer.task.rows(batch).numel() * classes <= WHOLE
    return not (asked == "auto" and few) and not obstacle(trainer, student)


def obstacle(trainer: DistillationMixin, student: nn.Module) -> str:
    """Say why the student's logits must be made whole; an empty text where nothing asks for it.

    Args:
        trainer: the trainer, with its objective.
        student: the unwrapped student.
    """
    if not trainer.task.linear or "heads" not in trainer.distillation.needs:
        return "it is for language models and terms that compare their logits"
    if trainer.alpha < 1 and trainer.task.own_loss:
        return "the student computes a loss of its own"
    if trainer.alpha < 1 and (trainer.compute_loss_func is not None or trainer.label_smoother is not None):
        return "compute_loss_func or label smoothing reads whole logits"
    if getattr(trainer.args, "torch_compile", False):
        return "a compiled student is one graph, its head included"
    if is_sharded(student) and not is_plain(head_of(student)):
        return "the student is sharded, and its head is more than a weight"
    if tail_of(student) is None:
        return f"the head of {type(student).__name__} cannot be taken apart"
    return ""


def shares(trainer: DistillationMixin, window: Mapping[str, Tensor], world: int) -> dict[str, Tensor]:
    """Return what each part's total is multiplied by in the loss.

    Args:
        trainer: the trainer, at its step.
        window: what the whole optimizer step counts.
        world: how many ranks hold different data; 1 outside of training.

    Returns:
        name -> scalar; ``"hard"`` where labels are learned from.
    """
    objective, alpha = trainer.distillation, trainer.alpha
    one = {unit: normalise(count.new_ones((), dtype=float), count, world).float() for unit, count in window.items()}
    found = {n: alpha * objective.weights[n] * one[term.unit] for n, term in objective.terms.items()}
    return found if alpha == 1 else {**found, "hard": (1 - alpha) * one["labels"]}


def _asked(trainer: DistillationMixin) -> str:
    return getattr(trainer.args, "fused_logits", FusionArguments.fused_logits)
