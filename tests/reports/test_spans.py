"""Spans of tags, and an F1 whose error is known."""

import random

import numpy as np
import pytest

from hf_distill.reports import f1_shares, gap_closed, span_counts, span_scores, spans_of


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        (["O", "B-a", "I-a", "I-a", "O"], {(1, 4, "a")}),
        (["B-a", "B-a", "I-b"], {(0, 1, "a"), (1, 2, "a"), (2, 3, "b")}),
        (["I-a", "I-a", "O", "I-a"], {(0, 2, "a"), (3, 4, "a")}),
        (["B-a", "E-a", "I-a", "S-a"], {(0, 2, "a"), (2, 3, "a"), (3, 4, "a")}),
        (["B", "E", "S", "B", "M", "M", "E"], {(0, 2, ""), (2, 3, ""), (3, 7, "")}),
        (["M", "E", "M", "B", "B"], {(0, 2, ""), (2, 3, ""), (3, 4, ""), (4, 5, "")}),
        (["B-a", "L-a", "U-b"], {(0, 2, "a"), (2, 3, "b")}),
        ([], set()),
    ],
)
def test_spans(tags, expected):
    assert spans_of(tags) == expected


def words_of(lengths):
    return [tag for n in lengths for tag in ("S" if n == 1 else "B" + "M" * (n - 2) + "E")]


def test_right_tags_of_words_give_the_words_back():
    draw = random.Random(0)
    lengths = [draw.randint(1, 5) for _ in range(200)]
    ends = np.cumsum(lengths).tolist()
    assert spans_of(words_of(lengths)) == {(end - n, end, "") for n, end in zip(lengths, ends, strict=True)}


def rows(draw, n):
    tags = ["O", "B-a", "I-a", "B-b", "I-b"]
    return [[draw.choice(tags) for _ in range(draw.randint(0, 9))] for _ in range(n)]


def test_f1_is_that_of_all_spans_together():
    draw = random.Random(0)
    right = rows(draw, 50)
    said = [[tag if draw.random() < 0.7 else "O" for tag in row] for row in right]
    ours = {(i, *span) for i, row in enumerate(said) for span in spans_of(row)}
    theirs = {(i, *span) for i, row in enumerate(right) for span in spans_of(row)}
    scores = span_scores(span_counts(said, right))
    hits = len(ours & theirs)
    assert 0.2 < scores["f1"] < 0.9
    assert scores["precision"] == pytest.approx(hits / len(ours))
    assert scores["recall"] == pytest.approx(hits / len(theirs))
    assert scores["f1"] == pytest.approx(2 * hits / (len(ours) + len(theirs)))


def test_the_rows_shares_have_f1_for_a_mean_and_its_error_for_a_spread():
    draw = random.Random(0)
    right = rows(draw, 400)
    said = [[tag if draw.random() < 0.7 else "O" for tag in row] for row in right]
    counts = span_counts(said, right)
    shares = f1_shares(counts)
    assert shares.mean() == pytest.approx(span_scores(counts)["f1"])
    again = np.random.default_rng(0)
    drawn = [span_scores(counts[again.integers(0, 400, 400)])["f1"] for _ in range(500)]
    assert shares.std(ddof=1) / 20 == pytest.approx(np.std(drawn), rel=0.1)  # as drawing the rows anew finds it


def test_the_gap_is_that_of_f1():
    counts = [np.array([[hits, 2, 2], [1, 1, 3], [2, 2, 2]]) for hits in (0, 1, 2)]
    gap = gap_closed(*(f1_shares(each) for each in counts))
    scores = [span_scores(each)["f1"] for each in counts]
    assert gap.gain == pytest.approx(scores[1] - scores[0])
    assert gap.gap == pytest.approx(scores[2] - scores[0])


def test_nothing_to_find_and_nothing_found():
    counts = span_counts([["O"], []], [["O"], []])
    assert span_scores(counts) == {"precision": 0.0, "recall": 0.0, "f1": 0.0}
    assert f1_shares(counts).tolist() == [0.0, 0.0]
    assert span_counts([], []).shape == (0, 3)
