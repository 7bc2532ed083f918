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
from hf_distill.experiments.scoring import Measurement, percent
from hf_distill.reports import (
    GapClosed,
    character_edits,
    chosen_frames,
    collapse,
    error_shares,
    on_blank_plateau,
    wer_metrics,
    word_edits,
)
from hf_distill.reports.samples import Samples, text_samples
from hf_distill.reports.transcripts import transcripts

EDITS = {"wer": word_edits, "cer": character_edits}
EXAMPLES = 5
"""How many transcripts of each model a report shows."""
LENGTH = "length"


class TranscriptScoring(PredictionScoring):
    """Words of CTC models against transcripts; give trainers ``chosen_frames`` as ``preprocess_logits_for_metrics``.

    Args:
        processor: of the students, or its tokenizer.
        normalize: what is done to texts before they are compared; see ``wer_metrics``.
        blank: the class of a frame that says nothing. Default: the tokenizer's padding.
        a_second: how much of the column ``length`` is a second, for the real-time factor.
        measure: the score: ``"wer"``, of words; or ``"cer"``, of characters, as Chinese and Japanese are measured.

    Raises:
        ValueError: another ``measure``.
    """

    lower_is_better: ClassVar[bool] = True
    each: ClassVar[str] = "utterances"
    speed_rows: ClassVar[int] = 256
    unit: ClassVar[str] = "recordings"
    floor_said: ClassVar[str] = "{:.1f} %, of who says nothing"

    def __init__(
        self,
        processor: Any,
        normalize: str | Callable[[str], str] | None = None,
        blank: int | None = None,
        a_second: int = 100,
        measure: str = "wer",
    ) -> None:
        super().__init__()
        if measure not in EDITS:
            raise ValueError(f"measure={measure!r} was given: use {' or '.join(EDITS)}.")
        self.score, self.edits = measure, EDITS[measure]
        self.plotted = (measure, f"{{split}} {measure.upper()}, lower is better")
        self.hub = {measure: measure}
        self.computed = wer_metrics(processor, ctc=True, normalize=normalize, blank=blank)
        self.read = transcripts(processor, normalize)
        self.blank = getattr(processor, "tokenizer", processor).pad_token_id if blank is None else blank
        self.a_second = a_second
        self.columns = {
            **{f"{name.upper()} %": percent(name) for name in EDITS if measure == "wer" or name == measure},
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
        return {**found, "stuck": float(on_blank_plateau(found["blank_share"], found[self.score]))}

    def units(self, predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """What each utterance adds to the score; see ``PredictionScoring.units``."""
        return error_shares(self.edits(self.read(collapse(predictions, self.blank)), self.read(labels)))

    def agreement(self, predictions: np.ndarray, teacher: np.ndarray, labels: np.ndarray) -> float:
        """The share of utterances with the same transcript; see ``PredictionScoring.agreement``."""
        both = (self.read(collapse(one, self.blank)) for one in (predictions, teacher))
        return float(np.mean([one == other for one, other in zip(*both, strict=True)]))

    def of_teacher(self, reference: Trainer, rows: Dataset) -> PredictionOutput:
        """Choose as the students do, batch by batch; see ``PredictionScoring.of_teacher``."""
        return teacher_predictions(reference, rows, chosen_frames)

    def summary(self, gap: GapClosed) -> str:
        """Say what the points are of, and that fewer are a gain."""
        return f"{gap} ({self.score.upper()}, a gain is fewer errors)"

    def details(self, measurements: Mapping[str, Measurement]) -> dict[str, Any]:
        """Who is stuck where only the blank is said, and the first transcripts; see ``Scoring.details``."""
        stuck = [name for name, one in measurements.items() if one.figures["stuck"]]
        shown = {
            name: self.read(collapse(one.predictions[0][:EXAMPLES], self.blank)) for name, one in measurements.items()
        }
        right = self.read(next(iter(measurements.values())).predictions[1][:EXAMPLES])
        return {"stuck_on_the_blank": stuck, "transcripts": {"right": right, **shown}}

    def disagreements(self, measurements: Mapping[str, Measurement], rows: Dataset) -> Samples:
        """Where the transcripts differ most; see ``Scoring.disagreements``."""
        texts = {name: self.read(collapse(one.predictions[0], self.blank)) for name, one in measurements.items()}
        return text_samples(texts, self.read(measurements["teacher"].predictions[1]), lambda row: ("", None))
