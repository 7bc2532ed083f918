"""Answers to questions about pictures: which are right, word for word, of each kind of question.

Knows: tokens of answers, kinds of questions, how figures are shown. Does not know: files, models, training.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from datasets import Dataset
from torch import Tensor
from torch.nn import functional as F
from transformers import Trainer
from transformers.trainer_utils import PredictionOutput

from hf_distill.experiments.data.visual_questions import ANSWER, IMAGE, KIND, QUESTION
from hf_distill.experiments.predictions import AGREES, PredictionScoring, teacher_predictions
from hf_distill.experiments.question_collator import QuestionCollator
from hf_distill.experiments.scoring import Measurement, percent
from hf_distill.experiments.shown_rows import shown_rows
from hf_distill.reports.samples import Samples, text_samples

EXAMPLES = 5
"""How many questions a report shows, each with what every model answers."""


def likeliest(logits: Tensor | tuple, labels: Tensor) -> Tensor:
    """Keep the likeliest token in the place of each label: Trainer's preprocessing of logits.

    Args:
        logits: [B, T, V], or a tuple that begins with them.
        labels: [B, T]; -100 does not count.

    Returns:
        int64 [B, T]: what is predicted for each label, -100 where there is none.

    Example:
        >>> import torch
        >>> logits = F.one_hot(torch.tensor([[5, 6, 7]]), 8).float()
        >>> likeliest(logits, torch.tensor([[-100, 5, 2]]))
        tensor([[-100,    5,    6]])
    """
    logits = logits[0] if isinstance(logits, tuple) else logits
    return F.pad(logits[:, :-1].argmax(-1), (1, 0), value=-100).masked_fill(labels == -100, -100)


class AnswerScoring(PredictionScoring):
    """Answers that are the right one, word for word and to their end.

    An answer that is written greedily is right if and only if, behind the right tokens before it, each of its tokens
    is the likeliest: so one pass tells, and nothing needs to be written.

    Args:
        collator: turns tokens back into answers.
        test: the test rows, with ``question``, ``answer`` and perhaps ``kind``.
    """

    score: ClassVar[str] = "exact"
    plotted: ClassVar[tuple[str, str]] = ("exact", "{split} answers exactly right")
    share: ClassVar[bool] = True
    hub: ClassVar[Mapping[str, str]] = {"exact_match": "exact"}
    speed_rows: ClassVar[int] = 256
    unit: ClassVar[str] = "questions"
    each: ClassVar[str] = "questions"
    floor_said: ClassVar[str] = "{:.1f} %, the most frequent training answer of each kind of question"

    def __init__(self, collator: QuestionCollator, test: Dataset) -> None:
        super().__init__()
        self.collator, self.test = collator, test
        self.kinds = np.array(test[KIND][:]) if KIND in test.column_names else None
        self.columns = {"exact %": percent("exact"), **AGREES}
        self.columns |= {f"{kind} %": percent(kind) for kind in sorted(set(self._kinds()))}

    def _kinds(self) -> Sequence[str]:
        return () if self.kinds is None else self.kinds.tolist()

    def floor(self, test: Dataset, train: Dataset) -> float:
        """Who always gives the most frequent answer to each kind of question; see ``Scoring.floor``."""
        asked, learnt = ((rows[KIND][:] if self.kinds is not None else [""] * len(rows)) for rows in (test, train))
        counts: dict[str, Counter] = {}
        for kind, answer in zip(learnt, train[ANSWER][:], strict=True):
            counts.setdefault(kind, Counter())[answer] += 1
        usual = {kind: count.most_common(1)[0][0] for kind, count in counts.items()}
        return float(np.mean([usual.get(kind) == one for kind, one in zip(asked, test[ANSWER][:], strict=True)]))

    def of_teacher(self, reference: Trainer, rows: Dataset) -> PredictionOutput:
        """Choose as the students do, batch by batch; see ``PredictionScoring.of_teacher``."""
        return teacher_predictions(reference, rows, likeliest)

    def measurement(self, predictions: Any, labels: Any, teacher: Any) -> Measurement:
        """Measure one model, each kind of question too; see ``PredictionScoring.measurement``."""
        found = super().measurement(predictions, labels, teacher)
        right = found.each[self.score]
        if self.kinds is None or len(right) != len(self.kinds):
            return found
        kinds = {kind: float(right[self.kinds == kind].mean()) for kind in sorted(set(self._kinds()))}
        return Measurement(found.each, {**found.figures, **kinds}, found.predictions)

    def figures(self, predictions: Any, labels: Any) -> dict[str, float]:
        """The share of right answers; see ``PredictionScoring.figures``."""
        return {"exact": float(self.units(predictions, labels).mean())}

    def units(self, predictions: Any, labels: Any) -> np.ndarray:
        """Right or wrong; see ``PredictionScoring.units``."""
        return (predictions == labels).all(axis=-1).astype(float)

    def agreement(self, predictions: Any, teacher: Any, labels: Any) -> float:
        """The share of questions with the same answer; see ``PredictionScoring.agreement``."""
        return float((predictions == teacher).all(axis=-1).mean())

    def details(self, measurements: Mapping[str, Measurement]) -> dict[str, Any]:
        """Show the first questions and answers; see ``Scoring.details``."""
        shown = self.test.select(range(min(EXAMPLES, len(self.test)))).select_columns([QUESTION, ANSWER]).to_list()
        for number, row in enumerate(shown):
            row |= {name: self.collator.answer_of(one.predictions[0][number]) for name, one in measurements.items()}
        return {"examples": shown}

    def disagreements(self, measurements: Mapping[str, Measurement], rows: Dataset) -> Samples:
        """Where the answers differ most, beside the picture; see ``Scoring.disagreements``."""
        texts = {
            name: [self.collator.answer_of(tokens) for tokens in one.predictions[0]]
            for name, one in measurements.items()
        }
        columns = [name for name in (IMAGE, QUESTION) if name in self.test.column_names]
        return text_samples(texts, self.test[ANSWER][:], shown_rows(self.test.select_columns(columns)))
