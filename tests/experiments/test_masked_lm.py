"""Figures of hidden tokens: on the way, and of who knows only how often each token stands."""

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import EvalPrediction

from hf_distill.experiments.masked_lm import MaskedScoring, hidden_losses, hidden_perplexity


def test_metrics_of_evaluation_are_those_of_float64():
    logits, labels = torch.randn(3, 7, 11), torch.full((3, 7), -100)
    labels[0, 2], labels[1, 0], labels[2, 6] = 4, 0, 9
    found = hidden_perplexity(EvalPrediction(hidden_losses((logits,), labels).numpy(), labels.numpy()))
    pairs = [(logits[b, t].double(), labels[b, t]) for b, t in ((0, 2), (1, 0), (2, 6))]
    losses = [-one.log_softmax(-1)[label].item() for one, label in pairs]
    assert found["perplexity"] == pytest.approx(np.exp(np.mean(losses)), rel=1e-5)
    assert found["accuracy"] == pytest.approx(np.mean([one.argmax() == label for one, label in pairs]))


def test_the_floor_knows_how_often_each_token_stands_and_its_row_says_the_commonest():
    learnt = Dataset.from_dict({"input_ids": [[2, 7, 7, 8, 3], [2, 7, 3]]})  # 2 and 3 are special
    asked = Dataset.from_dict({"labels": [[-100, 7, -100], [-100, 8, 9]]})
    scoring = MaskedScoring([2, 3])
    floor = scoring.floor(asked, learnt)
    shares = np.array([3 + 1, 1 + 1, 0 + 1]) / (4 + 3)  # of 7, of 8, and of 9, which no training row has
    assert floor == pytest.approx(-np.log(shares).mean())
    row = scoring.floor_row(floor)
    assert (row["accuracy"], row["perplexity"]) == (pytest.approx(1 / 3), pytest.approx(np.exp(floor)))
    assert scoring.counted(asked) == "3 hidden tokens of 2 rows"
    hidden = Dataset.from_dict({"input_ids": [[4]], "labels": [[7]]})  # hidden once: the labels tell
    assert scoring.counted_tokens(hidden).tolist() == [0] * 7 + [1]
