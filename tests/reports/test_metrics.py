"""The figures as metrics of evaluate, without the network."""

import random

import numpy as np
import pytest

from hf_distill.reports import ClassificationMetric, SpanMetric, span_counts, span_scores

TAGS = ["O", "B-a", "I-a", "B-b", "I-b"]


def test_the_metric_is_the_textbooks():
    generator = np.random.default_rng(0)
    labels, said = generator.integers(0, 7, 300), generator.integers(0, 9, 300)
    found = ClassificationMetric().compute(predictions=said, references=labels)
    assert found["accuracy"] == pytest.approx(sum(a == b for a, b in zip(labels, said, strict=True)) / 300)
    scores = []
    for c in range(9):  # two of the classes are said and never right
        hits = sum((labels == c) & (said == c))
        precision = hits / max(1, sum(said == c))
        recall = hits / max(1, sum(labels == c))
        scores.append(2 * precision * recall / (precision + recall) if hits else 0.0)
    assert found["macro_f1"] == pytest.approx(np.mean(scores))


def test_the_metric_gives_the_same_scores_without_the_network():
    draw = random.Random(1)
    said, right = ([[draw.choice(TAGS) for _ in range(n)] for n in range(20)] for _ in range(2))
    metric = SpanMetric()
    metric.add_batch(predictions=said[:7], references=right[:7])
    metric.add_batch(predictions=said[7:], references=right[7:])
    assert metric.compute() == span_scores(span_counts(said, right))
