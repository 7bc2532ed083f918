"""Recognisers by frames: how wrong the transcripts of the three of them are, and who says nothing yet.

Knows: frames and transcripts as arrays. Does not know: files, vocabularies' making, how a model is trained.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
from datasets import Dataset
from transformers import Trainer
from transformers.trainer_utils import EvalPrediction, PredictionOutput

from hf_distill.experiments.predictions import AGREES, PredictionScoring, teacher_predictions
from hf_distill.experiments.scoring import percent
from hf_distill.reports import (
    GapClosed,
    chosen_frames,
    collapse,
    error_shares,
    on_blank_plateau,
    wer_metrics,
    word_edits,
)
from hf_distill.reports.transcripts import transcripts

LENGTH = "length"


class TranscriptScoring(PredictionScoring):
    """Words of CTC models against transcripts; give trainers ``chosen_frames`` as ``preprocess_logits_for_metrics``.

    Args:
        processor: of the students, or its tokenizer.
        normalize: what is done to texts before they are compared; see ``wer_metrics``.
        blank: the class of a frame that says nothing. Default: the tokenizer's padding.
        a_second: how much of the column ``length`` is a second, for the real-time factor.
    """

    score: ClassVar[str] = "wer"
    plotted: ClassVar[tuple[str, str]] = ("wer", "{split} WER, lower is better")
    lower_is_better: ClassVar[bool] = True
    hub: ClassVar[Mapping[str, str]] = {"wer": "wer", "cer": "cer"}
    each: ClassVar[str] = "utterances"
    speed_rows: ClassVar[int] = 256
    unit: ClassVar[str] = "recordings"
    floor_said: ClassVar[str] = "WER {:.1f} %, of who says nothing"

    def __init__(
        self,
        processor: Any,
        normalize: str | Callable[[str], str] | None = None,
        blank: int | None = None,
        a_second: int = 100,
    ) -> None:
        super().__init__()
        self.computed = wer_metrics(processor, ctc=True, normalize=normalize, blank=blank)
        self.read = transcripts(processor, normalize)
        self.blank = getattr(processor, "tokenizer", processor).pad_token_id if blank is None else blank
        self.a_second = a_second
        self.columns = {
            "WER %": percent("wer"),
            "CER %": percent("cer"),
            "blank frames %": percent("blank_share"),
            **AGREES,
        }

    def floor(self, test: Dataset, train: Dataset) -> float:
        """Who says nothing misses every word; see ``Scoring.floor``."""
        return 1.0

    def seconds(self, rows: Dataset) -> float | None:
        """By the column ``length``, where there is one; see ``Scoring.seconds``."""
        return sum(rows[LENGTH][:]) / self.a_second if LENGTH in rows.column_names else None

    def figures(self, predictions: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        """WER, CER, the share of blank frames, and whether they are the plateau; see ``PredictionScoring.figures``."""
        found = self.computed(EvalPrediction(predictions, labels))
        return {**found, "stuck": float(on_blank_plateau(found["blank_share"], found["wer"]))}

    def units(self, predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """What each utterance adds to the WER; see ``PredictionScoring.units``."""
        return error_shares(word_edits(self.read(collapse(predictions, self.blank)), self.read(labels)))

    def agreement(self, predictions: np.ndarray, teacher: np.ndarray, labels: np.ndarray) -> float:
        """The share of utterances with the same transcript; see ``PredictionScoring.agreement``."""
        both = (self.read(collapse(one, self.blank)) for one in (predictions, teacher))
        return float(np.mean([one == other for one, other in zip(*both, strict=True)]))

    def of_teacher(self, reference: Trainer, rows: Dataset) -> PredictionOutput:
        """Choose as the students do, batch by batch; see ``PredictionScoring.of_teacher``."""
        return teacher_predictions(reference, rows, chosen_frames)

    def summary(self, gap: GapClosed) -> str:
        """Say that the points are of WER, and fewer of it a gain."""
        return f"{gap} (WER, a gain is fewer errors)"
