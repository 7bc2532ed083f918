"""Speech recognition by frames: a distribution over letters and a blank for each, and a transcript for all (CTC).

Knows: how such models of transformers show frames, how their losses are summed, which frames say something.
Does not know: recordings' files, decoding, what a term compares, teachers.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.auto.modeling_auto import MODEL_FOR_CTC_MAPPING_NAMES

from hf_distill.models.classes import names_in, own_loss_of
from hf_distill.models.facts import Facts
from hf_distill.models.frames import frame_mask, frames_of
from hf_distill.models.outputs import core_of, logits_in
from hf_distill.signals import DenseLogits, Head, HeadSpec, Signals, Sum
from hf_distill.tasks.frame_rates import places, taken
from hf_distill.tasks.letters import check_letters, translated
from hf_distill.tasks.recordings import OfRecordings
from hf_distill.tasks.task import Task

logger = logging.getLogger(__name__)
CLASSES = names_in(MODEL_FOR_CTC_MAPPING_NAMES)
REDUCTIONS = ("mean", "sum")
ALL, SPOKEN, SYMMETRIC = "all", "spoken", "symmetric"
LOST = (
    "%d of %d recordings of a batch have no transcript, or one that does not fit into their frames (letters, and one "
    "more between two that are the same): they are taught and not supervised."
)


class CTC(OfRecordings, Task):
    """A distribution over letters and a blank for each frame of a recording; a transcript says nothing of where.

    The positions are the answering model's own frames. A teacher of another rate is brought to the student's: where
    the student is coarser, of the teacher's frames that fall onto one of its own the least blank one counts, and no
    letter is lost. The transcript is what is labelled: a recording whose transcript is empty or does not fit into its
    frames is not supervised, which is told once; labels equal to the blank, or -100, are padding.

    Args:
        num_labels: how many classes there are, the blank among them; None: nobody knows.
        blank: its class, ``config.pad_token_id``.
        reduction: ``"mean"``: a transcript costs what it does for each of its letters; ``"sum"``: all of them. Either
            is divided by the transcripts of the whole step.
        select: which frames are learned from the teacher: ``"all"``; ``"spoken"``, those in which it says a letter; or
            ``"symmetric"``, those and ``beside`` frames on either side.
        beside: see ``select``.
        own_loss: the model computes a loss of its own that this class does not know.
        teacher_letters: for each letter of the student, the blank among them, its place among the teacher's, -1 where
            the teacher has none, see ``letters_by_name``; None: the same letters.

    Raises:
        ValueError: another ``reduction`` or ``select``, or letters that cannot be used.

    Reference:
        Graves et al.: Connectionist Temporal Classification, 2006; Hilmes et al.: The Necessity of Blank Frames in CTC
        distillation, arXiv:2506.01503, for ``select``.

    Example:
        >>> task = CTC(num_labels=4)
        >>> task.length = lambda lengths: lengths // 2
        >>> batch = {"input_values": torch.zeros(2, 8), "labels": torch.tensor([[1, 2, -100], [3, 3, 3]])}
        >>> {unit: n.item() for unit, n in task.counts(batch).items()}
        {'rows': 8, 'tokens': 8, 'samples': 2, 'labels': 1}
    """

    auto_class: ClassVar[str] = "AutoModelForCTC"
    pipeline_tag: ClassVar[str] = "automatic-speech-recognition"
    plain_labels: ClassVar[bool] = False
    loss_unit: str = "labels"

    def __init__(
        self,
        num_labels: int | None = None,
        blank: int = 0,
        reduction: str = "mean",
        select: str = ALL,
        beside: int = 1,
        own_loss: bool = False,
        teacher_letters: Sequence[int] | None = None,
    ) -> None:
        if reduction not in REDUCTIONS:
            raise ValueError(f"reduction={reduction!r} was given to CTC: use {' or '.join(REDUCTIONS)}.")
        if select not in (ALL, SPOKEN, SYMMETRIC):
            raise ValueError(f"select={select!r} was given to CTC: use {ALL}, {SPOKEN} or {SYMMETRIC}.")
        self.num_labels, self.blank, self.reduction, self.own_loss = num_labels, blank, reduction, own_loss
        self.select, self.beside, self._told = select, beside, False
        self.teacher_letters = check_letters(teacher_letters, num_labels, blank)

    @classmethod
    def from_model(cls, model: nn.Module, **options: Any) -> CTC | None:
        """Return the task for a CTC model, None for any other; see ``Task.from_model``.

        Args:
            model: any module.
            **options: ``select``, ``beside``, ``teacher_letters``.
        """
        core = core_of(model)
        own = own_loss_of(model, CLASSES, "ForCTC")
        if own is None and not type(core).__name__.endswith("ForCTC"):
            return None
        config = core.config
        reduction = getattr(config, "ctc_loss_reduction", "mean")
        task = cls(getattr(config, "vocab_size", None), config.pad_token_id, reduction, own_loss=bool(own), **options)
        task.length = frames_of(model)
        return task

    @property
    def heads(self) -> tuple[HeadSpec, ...]:
        """One head, a distribution for each frame."""
        return (HeadSpec("logits", per_position=True, blank=True),)

    def check(self, student: Facts, teacher: Facts) -> None:
        """Refuse other letters; see ``Task.check``."""
        letters, several = self.teacher_letters, teacher.vocab_size
        if letters is None and None not in (student.vocab_size, several) and student.vocab_size != several:
            raise ValueError(
                f"the teacher {teacher.name} has {several} letters, the student {student.vocab_size}: CTC compares "
                "letter with letter, so give both the same vocabulary, or the task teacher_letters."
            )
        if letters is not None and several is not None and max(letters) >= several:
            raise ValueError(
                f"teacher_letters names the letter {max(letters)} of the teacher {teacher.name}, it has {several}, 0 "
                f"to {several - 1}: give for each letter of the student its place among these, or -1."
            )
        blank = self.blank if letters is None else letters[self.blank]
        if teacher.blank not in (None, blank):
            raise ValueError(
                f"the blank of the teacher {teacher.name} is its class {teacher.blank}, and class {blank} was "
                "expected: give both models the same vocabulary, or the task teacher_letters."
            )

    def check_batch(self, batch: Mapping[str, Any]) -> None:
        """Refuse labels that are no letters; see ``Task.check_batch``."""
        if (labels := batch.get("labels")) is None:
            return
        if not isinstance(labels, Tensor) or labels.ndim != 2 or labels.is_floating_point():
            shape = f"{list(labels.shape)} of {labels.dtype}" if isinstance(labels, Tensor) else type(labels).__name__
            raise ValueError(
                f"labels are {shape}: CTC takes whole numbers [B, L], the letters of each transcript, -100 behind."
            )
        wrong = (labels != -100) & ((labels < 0) | (labels >= (self.num_labels or labels.max() + 1)))
        if wrong.any():
            row, place = wrong.nonzero()[0].tolist()
            raise ValueError(
                f"row {row} of the batch has the letter {labels[row, place].item()}, the student has the letters 0 to "
                f"{self.num_labels - 1}: use the tokenizer of the student."
            )

    def rows(self, batch: Mapping[str, Any]) -> Tensor:
        """Frames that are no padding, bool [B, T]; see ``Task.rows``."""
        return self.mask(batch)

    def labels(self, batch: Mapping[str, Any]) -> Tensor | None:
        """Recordings with a transcript that fits into their frames, bool [B]; see ``Task.labels``."""
        if (labels := batch.get("labels")) is None:
            return None
        there = self._letters(labels)
        order = (~there).to(torch.int8).argsort(dim=1, stable=True)  # padding may stand before letters
        letters, there = labels.gather(1, order), there.gather(1, order)
        double = (letters[:, 1:] == letters[:, :-1]) & there[:, 1:]
        needed = there.sum(dim=1) + double.sum(dim=1)
        return there.any(dim=1) & (needed <= self.mask(batch).sum(dim=1).to(needed.device))

    def hard(self, outputs: Any, batch: Mapping[str, Any], shown: Signals | None = None) -> Sum | None:
        """Sum what the transcripts cost; see ``Task.hard``."""
        if self.own_loss:
            return None
        logits, labels = logits_in(outputs, "the student"), batch["labels"]
        good, frames = self.layout(batch).labels, self.layout(batch).mask.sum(dim=1)
        self._tell(good)
        if not good.any():
            return Sum(logits.float().sum() * 0.0, good.sum())
        letters = self._letters(labels)[good]
        lengths = letters.sum(dim=1)
        with torch.backends.cudnn.flags(enabled=False):
            costs = F.ctc_loss(
                logits[good].float().log_softmax(dim=-1).transpose(0, 1), labels[good][letters], frames[good], lengths,
                blank=self.blank, reduction="none",
            )  # fmt: skip
        return Sum((costs / lengths if self.reduction == "mean" else costs).sum(), good.sum())

    def signals(self, model: nn.Module, batch: Mapping[str, Any], outputs: Any, captured: Any = None) -> Signals:
        """Read frames, and hidden states; see ``Task.signals``."""
        name = "the teacher" if model is None else type(core_of(model)).__name__  # a function has no model
        logits, shown = logits_in(outputs, name), outputs if isinstance(outputs, Mapping) else {}
        mask = frame_mask(batch, self.length if model is None else frames_of(model))
        if logits.ndim != 3 or mask is None or logits.shape[:2] != mask.shape:
            frames = "none" if mask is None else f"{list(mask.shape)}, [recordings, frames]"
            raise ValueError(
                f"{name} gave logits of shape {list(logits.shape)} where its frames are {frames}: CTC needs a "
                "distribution for each frame, of recordings (input_values or input_features)."
            )
        return Signals(
            heads={"logits": Head(DenseLogits(logits), mask, blank=self.blank)},
            hidden=tuple(shown.get("hidden_states") or ()),
            attention=tuple(shown.get("attentions") or ()),
            mask=mask,
        )

    def align(self, student: Signals, teacher: Signals, batch: Mapping[str, Any]) -> Signals:
        """Bring the teacher to the student's frames, and say which are learned from; see ``Task.align``."""
        ours, theirs = student.heads["logits"], teacher.heads["logits"]
        if not hasattr(theirs.logits, "tensor"):
            raise ValueError(
                "the teacher keeps a few letters of each frame, CTC asks each frame for its blank: keep whole logits "
                "(top=0)."
            )
        logits, hidden, own = theirs.logits.tensor, teacher.hidden, None
        if self.teacher_letters is not None:
            logits = translated(logits, self.teacher_letters)
        if ours.logits.shape[2] != logits.shape[2]:
            raise ValueError(
                f"the teacher gave {logits.shape[2]} letters a frame, the student {ours.logits.shape[2]}: both must "
                "have the same vocabulary."
            )
        if not torch.equal(ours.rows, theirs.rows):
            own = Head(DenseLogits(logits), theirs.rows, blank=self.blank)
            silent = logits.float().log_softmax(dim=-1)[..., self.blank]
            place = places(ours.rows, theirs.rows, silent)
            logits, hidden = taken(logits, place), tuple(taken(state, place) for state in hidden)
        weights = self._learned(logits, ours.rows)
        head = Head(DenseLogits(logits), ours.rows, weights=weights, blank=self.blank, own=own)
        return replace(teacher, heads={"logits": head}, hidden=hidden, mask=student.mask)

    def telling(self, student: Signals, teacher: Signals) -> Signals:
        """Only frames in which the teacher says a letter tell how close both are; see ``Task.telling``."""
        head = teacher.heads["logits"]
        spoken = self._spoken(head.logits.tensor, head.rows).float()
        return replace(teacher, heads={"logits": head._replace(weights=spoken)})

    def _learned(self, logits: Tensor, rows: Tensor) -> Tensor | None:
        """What each frame weighs, float [B, T]; None: all the same. All are counted: who speaks is known too late."""
        if self.select == ALL:
            return None
        spoken = self._spoken(logits, rows).float()
        if self.select == SYMMETRIC:
            spoken = F.max_pool1d(spoken.unsqueeze(1), 2 * self.beside + 1, 1, self.beside).squeeze(1)
        return spoken

    def _spoken(self, logits: Tensor, rows: Tensor) -> Tensor:
        return (logits.argmax(dim=-1) != self.blank) & rows.to(logits.device)

    def _letters(self, labels: Tensor) -> Tensor:
        """Which labels are letters, bool [B, L]."""
        return (labels != -100) & (labels != self.blank)

    def _tell(self, good: Tensor) -> None:
        if not self._told and not good.all():
            self._told = True
            logger.warning(LOST, int((~good).sum()), len(good))
