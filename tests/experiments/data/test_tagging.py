"""The embedded newspaper: where in its word each character is."""

import numpy as np
import pytest

from hf_distill.experiments.data import tagging


def test_the_newspaper():
    splits = tagging.newspaper()
    sizes = {name: len(split) for name, split in splits.items()}
    assert sizes["train"] > 40_000
    assert sizes["test"] == pytest.approx(sum(sizes.values()) / 20, rel=0.05)
    texts = {name: {"".join(tokens) for tokens in split["tokens"]} for name, split in splits.items()}
    assert sum(map(len, texts.values())) == sum(sizes.values())  # none is there twice
    assert not texts["train"] & texts["test"]
    row = next(r for r in splits["train"] if "".join(r["tokens"]).startswith("中共中央总书记"))
    assert [tagging.BMES[tag] for tag in row["tags"][:7]] == ["B", "M", "M", "E", "B", "M", "E"]
    assert np.mean([len(tokens) for tokens in splits["test"]["tokens"]]) < 60
