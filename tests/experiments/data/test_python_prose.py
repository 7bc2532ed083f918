"""The embedded English sentences: each once, in one split."""

import pytest

from hf_distill.experiments.data import python_prose


def test_the_embedded_texts():
    splits = python_prose.load_sentences()
    sizes = {name: len(split) for name, split in splits.items()}
    assert sizes["train"] > 5_000
    assert sizes["test"] == pytest.approx(sum(sizes.values()) / 20, rel=0.2)
    texts = {name: set(split["text"]) for name, split in splits.items()}
    assert sum(map(len, texts.values())) == sum(sizes.values())
    assert not texts["train"] & texts["test"]
