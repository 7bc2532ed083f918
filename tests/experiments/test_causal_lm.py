"""Perplexity on the way, of what is kept of the logits."""

import numpy as np
import pytest
import torch
from transformers import EvalPrediction

from hf_distill.experiments.causal_lm import perplexity, token_losses


def test_metrics_of_evaluation_are_those_of_float64():
    logits, labels = torch.randn(3, 7, 11), torch.randint(0, 11, (3, 7))
    labels[0, 5:], labels[2, :4] = -100, -100
    found = perplexity(EvalPrediction(token_losses((logits,), labels).numpy(), labels.numpy()))
    pairs = [(logits[b, t].double(), labels[b, t + 1]) for b in range(3) for t in range(6) if labels[b, t + 1] != -100]
    losses = [-one.log_softmax(-1)[label].item() for one, label in pairs]
    assert found["perplexity"] == pytest.approx(np.exp(np.mean(losses)), rel=1e-5)
    assert found["accuracy"] == pytest.approx(np.mean([one.argmax() == label for one, label in pairs]))
