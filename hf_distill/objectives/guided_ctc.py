"""Guided CTC: a student says its letters in the frames in which its teacher does.

Knows: frames of both models at one rate. Does not know: recordings, transcripts, how rates were brought together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from hf_distill.objectives.logits import LogitTerm
from hf_distill.signals import CATEGORICAL, Signals, Sum


class GuidedCTC(LogitTerm):
    """One minus the student's probability of the teacher's letter, in the frames where the teacher says one.

    Where the likeliest class of the teacher is a letter k, a frame costs ``1 - p_student(k)``; where it is the blank,
    nothing; added over frames. The paper's loss is ``- sum of p_student(k)``, which has the same gradient.

    Reference:
        Kurata, Audhkhasi: Guiding CTC Posterior Spike Timings for Improved Posterior Fusion and Knowledge
        Distillation, arXiv:1904.08311.

    Example:
        >>> import torch
        >>> from hf_distill.signals import DenseLogits, Head
        >>> def shown(*frames):
        ...     counted = torch.ones(1, len(frames), dtype=torch.bool)
        ...     return Signals({"logits": Head(DenseLogits(torch.tensor([frames])), counted, blank=0)})
        >>> GuidedCTC()(shown([0.0, 0.0], [0.0, 0.0]), shown([1.0, 0.0], [0.0, 1.0]), {})
        Sum(total=tensor(0.5000), count=tensor(2))
    """

    accepts: ClassVar[frozenset[str]] = frozenset({CATEGORICAL})
    few: ClassVar[bool] = False
    of_frames: ClassVar[bool] = True
    citation: ClassVar[str] = "Kurata, Audhkhasi: Guiding CTC Posterior Spike Timings, arXiv:1904.08311"
    blank: int = 0

    def divergence(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return [n], what each frame costs; see ``LogitTerm.divergence``."""
        letter = teacher.argmax(dim=-1)
        missed = 1.0 - student.softmax(dim=-1).gather(-1, letter.unsqueeze(-1)).squeeze(-1)
        return missed * (letter != self.blank)

    def forward(self, student: Signals, teacher: Signals, batch: Mapping[str, Any]) -> Sum:
        """Add over frames, whose blank the student's head names; see ``Term.forward``."""
        self.blank = student.heads["logits"].blank
        return super().forward(student, teacher, batch)
