"""When a student's encoder is its teacher's, the states that the teacher's made are given to the student's decoder.

Knows: what must hold of two models, an objective and a batch, so that nothing but the time changes. Does not know: how
a task feeds a model, what a term compares.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn
from transformers import TrainingArguments

from hf_distill.models.encoder import difference, encoder_of, random_part
from hf_distill.models.hooks import ENCODED
from hf_distill.tasks import Task
from hf_distill.tasks.alignment.tokens import PREFIX
from hf_distill.teachers import Teacher
from hf_distill.teachers.changes import Changes

logger = logging.getLogger(__name__)
REFUSED = "share_encoder=on was asked for, but {}, or leave share_encoder at auto."
TOLD = "The encoder of %s is frozen and the teacher's own: it runs once for both."


@dataclass
class SharingArguments:
    """The field that encoders which two models have in common add to ``TrainingArguments``.

    Args:
        share_encoder: ``auto`` runs the encoder of an encoder-decoder once for both models where the student's is
            frozen, equal to the teacher's and draws nothing at random: nothing else changes; ``on`` refuses a run in
            which it cannot; ``off`` runs both. What a memory answers brings no states, and the student's encoder runs.

    Raises:
        ValueError: another value.

    Example:
        >>> SharingArguments(share_encoder="yes")
        Traceback (most recent call last):
        ...
        ValueError: share_encoder='yes' was given: use auto, on or off.
    """

    share_encoder: str = field(
        default="auto",
        metadata={
            "help": "auto: a frozen encoder that is the teacher's runs once for both; on: always, or the run is "
            "refused; off: never."
        },
    )

    def __post_init__(self) -> None:
        """Check the value, then let ``TrainingArguments`` check its own."""
        self.share_encoder = {True: "on", False: "off"}.get(self.share_encoder, self.share_encoder)  # YAML's on, off
        if self.share_encoder not in ("auto", "on", "off"):
            raise ValueError(f"share_encoder={self.share_encoder!r} was given: use auto, on or off.")
        if hasattr(super(), "__post_init__"):
            super().__post_init__()


class SharedEncoder:
    """Whether the student may read its teacher's encoder, looked at before the first step and again if one changes.

    Args:
        args: the run's arguments.
        student: the unwrapped student.
        task: how the models are read.
        teacher: who is asked, prepared.
        needs: what the objective needs of the student.
        sharded: whether a strategy shards the student.

    Raises:
        ValueError: ``share_encoder="on"``, and in one sentence what stands against it.
    """

    def __init__(
        self,
        args: TrainingArguments,
        student: nn.Module,
        task: Task,
        teacher: Teacher,
        needs: frozenset[str],
        sharded: bool,
    ) -> None:
        self.asked = getattr(args, "share_encoder", SharingArguments.share_encoder)
        self.args, self.student, self.task, self.teacher = args, student, task, teacher.uncached
        self.needs, self.sharded = needs, sharded
        self.encoder, self.random, self._told = None, "", False
        self._settle()

    def _settle(self) -> None:
        if self.asked == "off":
            return
        reason = self.obstacle()
        self.encoder = None if reason else encoder_of(self.student)
        self.random = "" if reason else self._random()
        if not reason and self.asked == "on" and self.random:
            reason = f"the student's encoder is random in training ({self.random}): set that to 0, or keep it in eval"
        if reason and self.asked == "on":
            raise ValueError(REFUSED.format(reason))
        if self.encoder is not None:
            self._changes = Changes(lambda: [self.encoder, encoder_of(self.teacher.model)])

    def wants(self, batch: Mapping[str, Any]) -> frozenset[str]:
        """Return what the teacher is asked for beside what is compared: ``"encoded"``, or nothing.

        Args:
            batch: one micro-batch.

        Raises:
            ValueError: ``share_encoder="on"``, and what held before the first step does not any more.
        """
        if self.encoder is None or (self.random and random_part(self.student)):
            return frozenset()
        if own := sorted(name for name in batch if name.startswith(PREFIX)):
            if self.asked == "on":
                raise ValueError(REFUSED.format(f"the teacher reads a column of its own ({own[0]}): leave it out"))
            return frozenset()
        if any(p.requires_grad for p in self.encoder.parameters()) or self._changes.found():
            self._settle()
            if self.encoder is None:
                return frozenset()
        if not self._told:
            self._told = True
            logger.info(TOLD, type(self.student).__name__)
        return frozenset({ENCODED})

    def obstacle(self) -> str:
        """Say why the student's encoder must run, and what to do about it; empty where it need not."""
        ours, teacher = encoder_of(self.student), self.teacher
        if ours is None:
            return f"{type(self.student).__name__} is no encoder with a decoder: use such a student"
        takes = inspect.signature(self.task.inputs).parameters.values()
        if not any(one.name == "teacher" or one.kind is one.VAR_KEYWORD for one in takes):
            return f"the inputs() of {type(self.task).__name__} takes no argument teacher: add it"
        if ENCODED not in teacher.serves or teacher.model is None or teacher.moves:
            return f"the teacher {teacher.facts.name} shows no states of a frozen encoder: use one model as teacher"
        if self.sharded or teacher.collective:
            return "the models are sharded, and nobody has the whole encoder: use DDP"
        if inside := sorted(need for need in self.needs if need.startswith("tap:") or need.endswith(":encoder")):
            return f"the objective needs {inside[0]} of the student's own encoder: leave that term out"
        if trained := [name for name, p in ours.named_parameters() if p.requires_grad]:
            return (
                f"the student's encoder is trained ({len(trained)} of its parameters, such as {trained[0]}): freeze "
                "it with model.get_encoder().requires_grad_(False)"
            )
        if differs := difference(ours, encoder_of(teacher.model)):
            return f"the student's encoder is not the teacher's ({differs}): copy the teacher's"
        if teacher.dtype is not None and (self.args.bf16 or self.args.fp16):
            return (
                f"the teacher computes in {teacher.dtype} and the student under mixed precision: leave teacher_dtype "
                "out"
            )
        return ""

    def _random(self) -> str:
        """What of the student's encoder is random in training, from which a student may keep it."""
        before = [(module, module.training) for module in self.student.modules()]
        self.student.train()
        found = random_part(self.student)
        for module, training in before:
            module.training = training
        return found
