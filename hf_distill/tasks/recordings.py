"""What tasks on recordings share: positions are frames, and each model makes its own of a recording.

Knows: recordings, how many frames the student makes of one. Does not know: what is predicted, losses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hf_distill.models.frames import Frames, frame_mask, frames_of, recording_in
from hf_distill.signals import Signals
from hf_distill.tasks.comparing import teachers_columns
from hf_distill.tasks.frame_rates import averaged


class OfRecordings:
    """What every ``Task`` on recordings has; put it before the class that it extends.

    Attributes:
        length: of recordings -> frames of the student; None: not known before its first batch.
    """

    processor_class: ClassVar[str] = "AutoProcessor"
    noun: ClassVar[str] = "recordings"
    example: ClassVar[str] = '"a recording of yours.wav"'
    of_text: ClassVar[bool] = False
    frames: ClassVar[bool] = True
    streams: ClassVar[tuple[str, ...]] = ("audio",)
    length: Frames | None = None

    def infer_from_batch(self, model: nn.Module, batch: Mapping[str, Any]) -> bool:
        """Learn how many frames the student makes of a recording; see ``Task.infer_from_batch``."""
        if self.length is None:
            self.length = frames_of(model)
        return super().infer_from_batch(model, batch)

    def teacher_batch(self, batch: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the columns ``teacher_x`` as ``x``, if there are any: its own features, and which are padding."""
        return teachers_columns(batch)

    def mask(self, batch: Mapping[str, Any]) -> Tensor | None:
        """The student's frames that are no padding, bool [B, T]; see ``Task.mask``."""
        return None if self.length is None else frame_mask(batch, self.length)


class OfWholeRecordings(OfRecordings):
    """What every ``Task`` on recordings has whose models say nothing of single frames: these are positions of states.

    Models that cut a spectrogram into patches, or make one length of every recording (AST, Whisper), have no padding.
    """

    def mask(self, batch: Mapping[str, Any]) -> Tensor | None:
        """The student's frames, where recordings have their own lengths; see ``Task.mask``."""
        given = recording_in(batch)
        fixed = given is not None and given.ndim == 3 and batch.get("attention_mask") is None
        return None if fixed else super().mask(batch)

    def signals(self, model: nn.Module, batch: Mapping[str, Any], outputs: Any, captured: Any = None) -> Signals:
        """Read what is shown, and whose frames hidden states have; see ``Task.signals``."""
        shown = super().signals(model, batch, outputs, captured)
        own = None if self.mask(batch) is None else frame_mask(batch, frames_of(model) if model else self.length)
        fits = own is not None and all(state.shape[1] == own.shape[1] for state in shown.hidden)
        return replace(shown, mask=own if fits else None)

    def align(self, student: Signals, teacher: Signals, batch: Mapping[str, Any]) -> Signals:
        """Bring the teacher's hidden states to the student's frames; see ``Task.align``."""
        teacher = super().align(student, teacher, batch)
        if not student.hidden or not teacher.hidden or student.hidden[0].ndim != 3:
            return teacher
        ours, theirs = (_frames(one) for one in (student, teacher))
        if ours.shape == theirs.shape and bool((ours == theirs.to(ours.device)).all()):
            return teacher
        hidden = tuple(averaged(state, ours.to(state.device), theirs.to(state.device)) for state in teacher.hidden)
        return replace(teacher, hidden=hidden, mask=student.mask)


def _frames(shown: Signals) -> Tensor:
    """Which positions of hidden states are no padding: bool [B, T]."""
    state = shown.hidden[0]
    return torch.ones_like(state[..., 0], dtype=torch.bool) if shown.mask is None else shown.mask
