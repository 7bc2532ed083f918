"""Rows put together to a batch again."""

import numpy as np
import pytest
import torch

from hf_distill.cache.block import Block, gather

BLOCK = Block.of({"tokens": torch.arange(1, 5)}, {"tokens"}, np.array([0, 1, 4]))


def test_rows_stand_where_the_batch_has_them():
    found = gather([(BLOCK, 1), (BLOCK, 0)], np.array([[0, 0, 3], [1, 2, 3]]), (2, 3))["tokens"]
    assert found.tolist() == [[2, 3, 4], [0, 0, 1]]


@pytest.mark.parametrize("row", [0, 1])
def test_a_row_with_other_positions_than_its_place_is_refused_and_never_repeated(row):
    have = (1, 3)[row]
    with pytest.raises(ValueError, match=f"has {have} positions, the row that it belongs to has 2: its folder is dam"):
        gather([(BLOCK, row)], np.array([[0, 0, 2]]), (1, 3))
