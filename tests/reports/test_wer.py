"""Error rates are jiwer's, their errors those of a ratio over utterances, their gap that of the rates."""

import sys

import jiwer
import numpy as np
import pytest

from hf_distill.reports import (
    character_edits,
    error_rate,
    error_rate_interval,
    error_shares,
    gap_closed,
    mean_interval,
    word_edits,
)

WORDS = ["one", "two", "three", "four", "five"]


def heard(n, wrong, seed=0):
    """Utterances of 1 to 9 words, and what a model made of them: long ones go wrong together."""
    draw, texts, references = np.random.default_rng(seed), [], []
    for _ in range(n):
        said = draw.choice(WORDS, draw.integers(1, 10)).tolist()
        chance = wrong * draw.choice([0.2, 1.8])
        made = [draw.choice(WORDS) if draw.random() < chance else word for word in said if draw.random() > chance / 4]
        made += ["six"] * int(draw.random() < chance)
        texts.append(" ".join(made))
        references.append(" ".join(said))
    return texts, references


def distance(text, reference):
    row = list(range(len(reference) + 1))
    for i, one in enumerate(text, 1):
        corner, row[0] = row[0], i
        for j, wanted in enumerate(reference, 1):
            corner, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, corner + (one != wanted))
    return row[-1]


def test_each_utterance_has_the_edits_of_the_ten_line_reference():
    texts, references = heard(200, 0.5)
    words = [[distance(t.split(), r.split()), len(r.split())] for t, r in zip(texts, references, strict=True)]
    letters = [[distance(t, r), len(r)] for t, r in zip(texts, references, strict=True)]
    assert word_edits(texts, references).tolist() == words
    assert character_edits(texts, references).tolist() == letters


def test_the_rate_is_jiwers():
    texts, references = heard(100, 0.3)
    assert error_rate(word_edits(texts, references)) == pytest.approx(jiwer.wer(references, texts), abs=1e-15)
    assert error_rate(character_edits(texts, references)) == pytest.approx(jiwer.cer(references, texts), abs=1e-15)


def test_the_error_is_that_of_a_ratio_over_utterances_and_not_over_words():
    """Against 2,000 samples of a hundred utterances."""
    counts = word_edits(*heard(6_000, 0.4))
    draw = np.random.default_rng(1)
    samples = [counts[draw.integers(0, len(counts), 100)] for _ in range(2000)]
    spread = np.std([error_rate(one) for one in samples])
    told = np.array([error_shares(one).std(ddof=1) / 10 for one in samples])
    assert told.mean() == pytest.approx(spread, rel=0.05)
    rate, words = error_rate(counts), counts[:, 1].mean() * 100
    assert np.sqrt(rate * (1 - rate) / words) < 0.85 * spread  # words of an utterance go wrong together
    inside = [low <= rate <= high for low, high in map(error_rate_interval, samples)]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.02)


def test_utterances_have_the_rate_for_a_mean():
    counts = word_edits(*heard(50, 0.4))
    assert error_shares(counts).mean() == pytest.approx(error_rate(counts), abs=1e-15)
    assert error_rate_interval(counts) == mean_interval(error_shares(counts))
    assert counts[:, 0].mean() / counts[:, 1].mean() != (counts[:, 0] / counts[:, 1]).mean()


def test_the_gap_is_that_of_the_rates_with_its_error_over_utterances():
    counts = [word_edits(heard(300, wrong)[0], heard(300, wrong)[1]) for wrong in (0.8, 0.5, 0.2)]
    gap = gap_closed(*map(error_shares, counts), lower_is_better=True)
    rates = list(map(error_rate, counts))
    assert gap.gain == pytest.approx(rates[0] - rates[1])
    assert gap.gap == pytest.approx(rates[0] - rates[2])
    assert gap.ratio == pytest.approx(gap.gain / gap.gap)
    assert gap.interval.low < gap.ratio < gap.interval.high


def test_the_gaps_interval_holds_the_truth_as_often_as_it_says():
    draw, n = np.random.default_rng(3), 150
    counts = []
    for wrong in (0.8, 0.5, 0.2):
        each = draw.integers(1, 10, 20_000) if not counts else counts[0][:, 1]
        counts.append(np.stack([draw.binomial(each, wrong * draw.choice([0.3, 1.2], 20_000)), each], axis=1))
    truth = (error_rate(counts[0]) - error_rate(counts[1])) / (error_rate(counts[0]) - error_rate(counts[2]))
    held = []
    for _ in range(1000):
        some = draw.integers(0, 20_000, n)
        low, high = gap_closed(*(error_shares(one[some]) for one in counts), lower_is_better=True).interval
        held.append(low <= truth <= high)
    assert np.mean(held) == pytest.approx(0.95, abs=0.025)


def test_an_empty_reference_costs_what_was_said_and_none_at_all_is_refused():
    counts = word_edits(["a b", "", "c"], ["", "d", ""])
    assert counts.tolist() == [[2, 0], [1, 1], [1, 0]]
    assert error_rate(counts) == 4.0
    for references in ([""], []):
        with pytest.raises(ValueError, match=r"an error rate was asked for \d references without a word: give trans"):
            error_rate(word_edits([""] * len(references), references))
    with pytest.raises(ValueError, match=r"between 2 texts and 1 references: give them in pairs\."):
        word_edits(["a", "b"], ["a"])


def test_an_interval_never_goes_under_no_error_and_one_utterance_has_none():
    counts = np.array([[0, 5]] * 20 + [[1, 5]])
    assert error_rate_interval(counts).low == 0
    assert error_rate_interval(np.array([[1, 5]])) is None


def test_without_jiwer_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "jiwer", None)
    with pytest.raises(ImportError, match=r'jiwer: pip install "hf_distill\[speech\]"\.$'):
        word_edits(["a"], ["a"])
