"""Recall over a whole set, and classes named by texts: against a plain count, ties, equal images and texts."""

import numpy as np
import pytest
from transformers import EvalPrediction

from hf_distill.reports import class_vectors, pair_hits, recall_metrics, retrieval, zero_shot_logits


def drawn(count, seed=0, width=5):
    return np.random.default_rng(seed).normal(size=(count, width))


def plain(queries, candidates, k):
    """Pairs that are all different."""
    near = (queries / np.linalg.norm(queries, axis=1)[:, None]) @ (
        candidates / np.linalg.norm(candidates, axis=1)[:, None]
    ).T
    return np.mean([row in np.argsort(-near[row])[:k] for row in range(len(near))])


@pytest.mark.parametrize("block", [3, 1024])
def test_recall_agrees_with_a_plain_count_however_it_is_cut(monkeypatch, block):
    monkeypatch.setattr(retrieval, "BLOCK", block)
    images, numbers = drawn(20), np.stack([np.arange(20), np.arange(20) + 100], axis=1)
    texts = images + drawn(20, 1)
    found = recall_metrics((1, 5))(EvalPrediction(predictions=(images, texts), label_ids=numbers))
    wanted = {
        f"{name}_recall@{k}": plain(*both, k)
        for name, both in (("image_to_text", (images, texts)), ("text_to_image", (texts, images))) for k in (1, 5)
    }  # fmt: skip
    assert {name: value for name, value in found.items() if name != "recall"} == pytest.approx(wanted)
    assert found["recall"] == pytest.approx(np.mean(list(wanted.values())))
    assert 0 < found["recall"] < 1


def test_equal_texts_are_one_text_and_any_of_its_images_is_right():
    images, texts = np.eye(4), np.eye(4)[[0, 1, 0, 3]]
    numbers = np.array([[1, 7], [2, 8], [3, 7], [4, 9]])
    assert pair_hits(images, texts, numbers, 1, (1,)).ravel().tolist() == [True, True, False, True]
    assert pair_hits(texts, images, numbers, 0, (1,)).ravel().tolist() == [True, True, True]  # three texts


def test_vectors_that_are_all_alike_find_nothing():
    numbers = np.stack([np.arange(6), np.arange(6)], axis=1)
    found = recall_metrics((1, 5))(EvalPrediction(predictions=(np.ones((6, 3)), np.ones((6, 3))), label_ids=numbers))
    assert set(found.values()) == {0.0}


def test_a_class_is_the_mean_of_its_texts_directions_whatever_their_length():
    texts = np.array([[9.0, 0.0], [0.0, 1.0], [0.0, -4.0], [0.0, -1.0]])
    classes = class_vectors(texts, templates=2)
    assert classes == pytest.approx(np.array([[0.5**0.5, 0.5**0.5], [0.0, -1.0]]))
    logits = zero_shot_logits(np.array([[3.0, 3.0], [0.0, -2.0]]), classes, scale=10.0)
    assert logits.argmax(-1).tolist() == [0, 1]
    assert logits.max(-1) == pytest.approx([10.0, 10.0])
