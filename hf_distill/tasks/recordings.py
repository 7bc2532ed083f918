"""What tasks on recordings share: positions are frames, and each model makes its own of a recording.

Knows: recordings, how many frames the student makes of one. Does not know: what is predicted, losses.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from hf_distill.models.frames import Frames, frame_mask, frames_of


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

    def mask(self, batch: Mapping[str, Any]) -> Tensor | None:
        """The student's frames that are no padding, bool [B, T]; see ``Task.mask``."""
        return None if self.length is None else frame_mask(batch, self.length)
