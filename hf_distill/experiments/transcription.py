"""Models that listen with an encoder and write with a decoder, as Whisper: how wrong they write, how often in circles.

Knows: generated tokens, transcripts, normalisers. Does not know: files, who is trained on what.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from datasets import Dataset
from torch import nn
from transformers import EvalPrediction, PreTrainedModel, Trainer

from hf_distill.experiments.experiment import Experiment
from hf_distill.experiments.scoring import Measurement, Scoring, percent
from hf_distill.experiments.settings import arguments_for
from hf_distill.experiments.transcripts import EDITS, EXAMPLES
from hf_distill.experiments.translation import Writer
from hf_distill.experiments.without_autocast import plainly
from hf_distill.models.encoder import encoder_of
from hf_distill.models.sharding import unsharded
from hf_distill.reports.samples import Samples, text_samples
from hf_distill.reports.transcripts import normalizer
from hf_distill.reports.wer import error_rate, error_shares
from hf_distill.rollouts.filtering import is_loop


class DictationScoring(Scoring):
    """What models write down, against transcripts: greedily, or as ``generation_num_beams`` says.

    Args:
        tokenizer: turns what is written into text.
        texts: the transcripts of the test rows.
        measure: ``"wer"``, of words, or ``"cer"``, of characters without the spaces between them.
        how: what makes two spellings of the same words one; see ``reports.transcripts.normalizer``.

    Raises:
        ValueError: another ``measure``.
    """

    lower_is_better: ClassVar[bool] = True
    speed_rows: ClassVar[int] = 8
    unit: ClassVar[str] = "recordings"
    each: ClassVar[str] = "recordings"
    floor_said: ClassVar[str] = "{:.1f} %, who says nothing"

    def __init__(
        self, tokenizer: Any, texts: Sequence[str], measure: str = "wer", how: str | Callable[[str], str] = "basic"
    ) -> None:
        if measure not in EDITS:
            raise ValueError(f"measure={measure!r} was given: use {' or '.join(EDITS)}.")
        self.tokenizer, self.texts, self.score = tokenizer, list(texts), measure
        self.normalize = normalizer(tokenizer, how)
        self.edits = EDITS[measure]
        self.filtered: float | None = None
        self.plotted = (measure, f"{{split}} {measure.upper()}, lower is better")
        self.hub = {measure: measure}
        self.columns = {
            f"{measure.upper()} %": percent(measure),
            "same as teacher's %": percent("agreement"),
            "loops %": percent("loops"),
        }

    def floor(self, test: Dataset, train: Dataset) -> float:
        """Who says nothing has left out all words; see ``Scoring.floor``."""
        return 1.0

    def written(self, ids: np.ndarray) -> list[str]:
        """Turn generated tokens into texts.

        Args:
            ids: [N, T]; Trainer fills short rows with -100.
        """
        filled = np.where(ids == -100, self.tokenizer.pad_token_id, ids)
        return [text.strip() for text in self.tokenizer.batch_decode(filled, skip_special_tokens=True)]

    def counts(self, texts: Sequence[str], right: Sequence[str]) -> np.ndarray:
        """Count edits and lengths, of normalised texts; a text that is normalised to nothing has the length 0.

        Args:
            texts: what was written, [N].
            right: the transcripts, [N].
        """
        both = [[self.normalize(one) for one in several] for several in (texts, right)]
        if self.score == "cer":
            both = [["".join(one.split()) for one in several] for several in both]
        return self.edits(*both)

    def loops(self, ids: np.ndarray) -> np.ndarray:
        """Say whose text did not end and goes round in a circle, [N].

        Args:
            ids: generated tokens [N, T].
        """
        ends = {-100, self.tokenizer.pad_token_id, self.tokenizer.eos_token_id}
        return np.array([float(row[-1] not in ends and is_loop(row.tolist())) for row in ids])

    def compute_metrics(self, found: EvalPrediction) -> dict[str, float]:
        """Score the validation rows while a model is trained: Trainer's ``compute_metrics``."""
        counts = self.counts(self.written(found.predictions), self.written(found.label_ids))
        return {self.score: error_rate(counts), "loops": float(self.loops(found.predictions).mean())}

    def evaluate(self, trainers: Mapping[str, Trainer], rows: Dataset, reference: Trainer) -> dict[str, Measurement]:
        """Let the teacher and the students write; see ``Scoring.measure``."""
        own = arguments_for(reference.args, "", eval_strategy="no")  # nothing is written: no folder of its own
        kept = {"data_collator": reference.data_collator, "processing_class": reference.processing_class}
        teacher = type(reference)(unsharded(reference.teacher.model), own, **kept)
        with plainly(teacher):  # as its students are, by whoever looks at them
            found = {name: one.predict(rows) for name, one in {"teacher": teacher, **trainers}.items()}
        # Over several processes Trainer may repeat rows behind the last one, to give each process as many.
        ids = {name: one.predictions[: len(self.texts)] for name, one in found.items()}
        shares = [log["rollout/filtered"] for log in reference.state.log_history if "rollout/filtered" in log]
        self.filtered = float(np.mean(shares)) if shares else None
        return {name: self.measurement(one, ids["teacher"]) for name, one in ids.items()}

    def measurement(self, ids: np.ndarray, teacher: np.ndarray) -> Measurement:
        """Measure what one model wrote.

        Args:
            ids: its tokens [N, T].
            teacher: the teacher's.
        """
        texts, theirs, loops = self.written(ids), self.written(teacher), self.loops(ids)
        same = np.array([float(a == b) for a, b in zip(texts, theirs, strict=True)])
        counts = self.counts(texts, self.texts)
        each = {self.score: error_shares(counts), "agreement": same, "loops": loops}
        straight = counts[loops == 0]
        figures = {"without_loops": error_rate(straight)} if straight[:, 1].sum() else {}
        return Measurement(each, figures, texts)

    def timed(self, model: nn.Module, trainer: Trainer) -> nn.Module:
        """Time how long a transcript takes to be written."""
        return Writer(model, trainer.args.generation_max_length)

    def details(self, measurements: Mapping[str, Measurement]) -> dict[str, Any]:
        """How many of the teacher's texts were refused, and the first ones of each; see ``Scoring.details``."""
        shown = {"right": self.texts[:EXAMPLES]} | {n: one.predictions[:EXAMPLES] for n, one in measurements.items()}
        return {"filtered": self.filtered, "transcripts": shown}

    def disagreements(self, measurements: Mapping[str, Measurement], rows: Dataset) -> Samples:
        """Where what is written differs most; see ``Scoring.disagreements``."""
        texts = {name: one.predictions for name, one in measurements.items()}

        def right(row: int, text: str) -> bool:
            return self.normalize(text).split() == self.normalize(self.texts[row]).split()

        return text_samples(texts, self.texts, lambda row: ("", None), right)


@dataclass
class FrozenEncoderExperiment(Experiment):
    """An experiment whose students learn to write, and listen as their teacher does: the encoder stays as it is."""

    def trainer(self, model: PreTrainedModel, *args: Any, **kwargs: Any) -> Trainer:
        """Make the trainer of a model; see the base. A teacher that is fine-tuned here learns to listen too.

        Args:
            model: what it trains.
            *args: as in the base.
            **kwargs: as in the base.
        """
        if kwargs.get("rows") is None:
            encoder_of(model).requires_grad_(False)
        return super().trainer(model, *args, **kwargs)
