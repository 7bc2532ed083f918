"""The teacher's transcripts as labels: sequence-level distillation of speech recognition by frames (CTC).

Knows: frames of both models, each at its own rate; what a transcript costs. Does not know: recordings, tokenizers.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch.nn import functional as F

from hf_distill.objectives.prefix_beam import best_path, prefix_beam
from hf_distill.objectives.term import Term
from hf_distill.signals import CATEGORICAL, Head, Signals, Sum

REDUCTIONS = ("mean", "sum")


class CTCHypotheses(Term):
    """The student's CTC loss of what the teacher hears, of several transcripts weighed by the teacher's probability.

    Of one recording ``sum over n of p_n * -log P_student(transcript n)``, ``p_n`` the teacher's probability of the
    n-th of its likeliest transcripts among these, added over recordings. The teacher's own frames are read, at its own
    rate, and where a letter is said is left to the student. Of transcripts that do not fit into the student's frames
    nothing is learned; the recording is counted.

    Args:
        n: how many transcripts; 1: that of the likeliest letter of each frame.
        beam: how many beginnings a search over several keeps from frame to frame; at least ``n``.
        reduction: ``"mean"``: a transcript costs what it does for each of its letters, as
            ``config.ctc_loss_reduction``; ``"sum"``: all of them.

    Raises:
        ValueError: another number or reduction.

    Reference:
        Takashima, Li, Kawai: An Investigation of a Knowledge Distillation Method for CTC Acoustic Models, ICASSP 2018,
        and Investigation of Sequence-level Knowledge Distillation Methods for CTC Acoustic Models, ICASSP 2019.

    Example:
        >>> from hf_distill.signals import DenseLogits
        >>> frames, counted = 9 * torch.eye(3)[[1, 0, 2]].unsqueeze(0), torch.ones(1, 3, dtype=torch.bool)
        >>> shown = Signals({"logits": Head(DenseLogits(frames), counted, blank=0)})
        >>> CTCHypotheses()(shown, shown, {}).count
        tensor(1)
    """

    needs: ClassVar[frozenset[str]] = frozenset({"heads"})
    unit: ClassVar[str] = "samples"
    accepts: ClassVar[frozenset[str]] = frozenset({CATEGORICAL})
    of_frames: ClassVar[bool] = True
    citation: ClassVar[str] = "Takashima, Li, Kawai: Sequence-level Knowledge Distillation for CTC, ICASSP 2019"

    def __init__(self, n: int = 1, beam: int = 8, reduction: str = "mean") -> None:
        super().__init__()
        if n < 1 or beam < n:
            raise ValueError(
                f"n={n} transcripts of a beam of {beam} were asked of ctc_hypotheses: give at least 1, and a beam "
                "of as many or more."
            )
        if reduction not in REDUCTIONS:
            raise ValueError(f"reduction={reduction!r} was given to ctc_hypotheses: use {' or '.join(REDUCTIONS)}.")
        self.n, self.beam, self.reduction = n, beam, reduction

    def forward(self, student: Signals, teacher: Signals, batch: Mapping[str, Any]) -> Sum:
        """Add what the teacher's transcripts cost the student; see ``Term.forward``."""
        ours, theirs = student.heads["logits"], teacher.heads["logits"]
        logits, count = ours.logits.tensor.float(), torch.tensor(len(ours.rows), device=ours.rows.device)
        frames = ours.rows.sum(dim=1)
        room = frames.tolist()
        rows, letters, shares = [], [], []
        for row, several in enumerate(self._heard(theirs.own or theirs, ours.blank)):
            fit = [(one, share) for one, share in several if 0 < room[row] >= needed(one)]
            if not fit:
                continue
            rows += [row] * len(fit)
            letters += [one for one, _ in fit]
            shares.append(torch.tensor([share for _, share in fit], dtype=torch.float64).softmax(dim=0))
        if not rows:
            return Sum(logits.sum() * 0.0, count)
        which, device = torch.tensor(rows, device=logits.device), logits.device
        lengths = torch.tensor([len(one) for one in letters], device=device)
        flat = torch.tensor([letter for one in letters for letter in one], dtype=torch.long, device=device)
        with torch.backends.cudnn.flags(enabled=False):
            costs = F.ctc_loss(
                logits.log_softmax(dim=-1)[which].transpose(0, 1), flat, frames.to(device)[which], lengths,
                blank=ours.blank, reduction="none",
            )  # fmt: skip
        costs = costs / lengths.clamp(min=1) if self.reduction == "mean" else costs
        return Sum((costs * torch.cat(shares).to(costs)).sum(), count)

    @torch.no_grad()
    def _heard(self, head: Head, blank: int) -> list[list[tuple[tuple[int, ...], float]]]:
        """What the teacher hears in each recording, and the logarithms of how sure it is."""
        spoken = head.logits.tensor.float().log_softmax(dim=-1).cpu()
        cut = [log_p[counted] for log_p, counted in zip(spoken, head.rows.cpu(), strict=True)]
        if self.n == 1:
            return [[(best_path(log_p, blank), 0.0)] for log_p in cut]
        return [prefix_beam(log_p, blank, self.n, self.beam) for log_p in cut]

    def extra_repr(self) -> str:
        """Show the options in ``print(term)``."""
        return f"n={self.n}, beam={self.beam}, reduction={self.reduction}"


def needed(letters: tuple[int, ...]) -> int:
    """Return how many frames a transcript needs: one a letter, and one more between two that are the same.

    Args:
        letters: the transcript.

    Example:
        >>> needed((3, 3, 1)), needed(())
        (4, 0)
    """
    return len(letters) + sum(one == other for one, other in pairwise(letters))
