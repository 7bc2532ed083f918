"""Figures of hidden tokens: on the way, and of who knows only how often each token stands; a teacher made here."""

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification, EvalPrediction

from hf_distill.experiments.masked_lm import (
    WINDOW,
    MaskedScoring,
    blank_modern_bert,
    hidden_losses,
    hidden_perplexity,
)
from hf_distill.experiments.models import ModelArguments, ModelKind, small_like
from hf_distill.experiments.tokenizers import character_tokenizer


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


def made_here(width=128, layers=2):
    tokenizer = character_tokenizer(["天地玄黄宇宙洪荒"] * 2)
    recipe = ModelArguments(teacher_layers=layers, teacher_hidden_size=width, student_hidden_size=64)
    torch.manual_seed(0)
    shape = blank_modern_bert(recipe, tokenizer)
    return recipe, shape, AutoModelForMaskedLM.from_config(shape).eval()


def reached(model, length=40, place=20):
    """Where a token's change moves the logits, counted from it."""
    ids = torch.full((1, length), 6)
    other = ids.clone()
    other[0, place] = 7
    with torch.no_grad():
        moved = (model(input_ids=ids).logits - model(input_ids=other).logits).abs().amax(-1)[0]
    return {int(one) - place for one in (moved > 1e-6).nonzero()}


@pytest.mark.parametrize("layers", [1, 2])
def test_each_layer_of_a_teacher_made_here_sees_half_a_window_further(layers):
    half = layers * WINDOW // 2
    assert reached(made_here(layers=layers)[2]) == set(range(max(-20, -half), min(19, half) + 1))


def test_the_weights_of_a_teacher_made_here_are_drawn_as_wide_as_its_width_needs():
    for width in (64, 256):
        words = made_here(width, 1)[2].get_input_embeddings().weight[4:]
        assert words.std().item() == pytest.approx(0.02 * (768 / width) ** 0.5, rel=0.15)


def test_a_student_of_it_looks_around_too_and_classifies_by_the_whole_text():
    recipe, _, teacher = made_here()
    config = small_like(recipe, teacher)
    assert (config.num_hidden_layers, config.hidden_size, config.num_attention_heads) == (1, 64, 1)
    student = AutoModelForMaskedLM.from_config(config).eval()
    assert max(reached(student)) == WINDOW // 2
    kind = ModelKind(AutoModelForSequenceClassification, "SEQ_CLS", ["bad", "good"])
    classifier = AutoModelForSequenceClassification.from_config(kind.labelled(config)).eval()
    ids = torch.full((1, 40), 6)
    far = ids.clone()
    far[0, -1] = 7
    with torch.no_grad():
        assert not torch.equal(classifier(input_ids=ids).logits, classifier(input_ids=far).logits)
