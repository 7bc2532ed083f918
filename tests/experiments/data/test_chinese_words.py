"""The embedded Chinese words: their categories, their splits."""

import pytest

from hf_distill.experiments.data.chinese_words import CATEGORIES, load_words


def test_the_embedded_words():
    splits = load_words()
    sizes = {name: len(split) for name, split in splits.items()}
    assert 324_000 < sum(sizes.values()) < 326_000
    assert sizes["test"] == pytest.approx(sum(sizes.values()) / 20, rel=0.02)
    assert splits["train"].features["label"].names == list(CATEGORIES)
    texts = {name: set(split["text"][:]) for name, split in splits.items()}
    assert not texts["train"] & texts["test"]
    assert not texts["validation"] & texts["test"]
    label = {}
    for split in splits.values():
        label |= dict(zip(split["text"][:], split["label"][:], strict=True))
    assert [list(CATEGORIES)[label[word]] for word in ("一心一意", "北京大学")] == ["idiom", "organisation"]
