"""Figures as ``evaluate`` metrics, for a ``compute_metrics`` of one's own.

Knows: what ``evaluate`` asks of a metric. Does not know: how spans are found, models, files.

To import ``evaluate`` loads scikit-learn and scipy, which no training needs, so this file is imported when one of its
names is first used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate
import numpy as np

from hf_distill.reports.spans import span_counts, span_scores


class ClassificationMetric(evaluate.Metric):
    """Accuracy and macro F1 as an ``evaluate`` metric that needs neither the network nor scikit-learn.

    Macro F1 is the plain mean of the F1 of every class that occurs in the predictions or the references, as
    scikit-learn's ``f1_score(average="macro")``.

    Example:
        >>> scores = ClassificationMetric().compute(predictions=[0, 1, 1, 1], references=[0, 0, 1, 1])
        >>> {name: round(score, 4) for name, score in scores.items()}
        {'accuracy': 0.75, 'macro_f1': 0.7333}
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Accuracy and macro-averaged F1 of class predictions.",
            citation="",
            inputs_description="predictions: list of int; references: list of int",
            features=datasets.Features(
                {"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}
            ),
        )

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        predictions, references = np.asarray(predictions), np.asarray(references)
        right = predictions == references
        classes = np.union1d(predictions, references)
        hits = np.array([np.sum(right & (references == c)) for c in classes])
        said = np.array([np.sum(predictions == c) + np.sum(references == c) for c in classes])
        return {"accuracy": float(right.mean()), "macro_f1": float((2 * hits / said).mean())}


class SpanMetric(evaluate.Metric):
    """Precision, recall and F1 of exact spans, as an ``evaluate`` metric that needs neither the network nor seqeval.

    Figures are those of ``span_scores``: over all spans of all rows, micro-averaged.

    Example:
        >>> scores = SpanMetric().compute(predictions=[["B-a", "I-a", "O"]], references=[["B-a", "I-a", "B-b"]])
        >>> {name: round(score, 4) for name, score in scores.items()}
        {'precision': 1.0, 'recall': 0.5, 'f1': 0.6667}
    """

    def _info(self) -> evaluate.MetricInfo:
        tags = datasets.List(datasets.Value("string"))
        return evaluate.MetricInfo(
            description="Precision, recall and F1 of exact spans of tags.",
            citation="",
            inputs_description="predictions: rows of tags; references: rows of tags, as long",
            features=datasets.Features({"predictions": tags, "references": tags}),
        )

    def _compute(self, predictions: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> dict[str, float]:
        return span_scores(span_counts(predictions, references))
