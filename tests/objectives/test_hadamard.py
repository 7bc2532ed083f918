"""Hadamard matrices of the widths that models have."""

import pytest
import torch

from hf_distill.objectives.hadamard import hadamard


@pytest.mark.parametrize("size", [1, 2, 4, 8, 12, 20, 24, 28, 36, 76, 104, 256, 384])
def test_rows_are_signs_and_orthogonal(size):
    made = hadamard(size)
    assert (made.abs() == 1).all()
    assert torch.equal(made @ made.T, size * torch.eye(size, dtype=torch.float64))


@pytest.mark.parametrize("size", [768, 1024, 1152, 1280, 1408, 1664])
def test_usual_widths_have_one(size):
    made = hadamard(size)[:: size // 16]
    assert torch.equal(made @ made.T, size * torch.eye(len(made), dtype=torch.float64))


@pytest.mark.parametrize("size", [0, -4, 3, 6, 10, 92])
def test_where_none_is_known_it_is_said(size):
    with pytest.raises(ValueError, match=f"of {size} rows was asked for"):
        hadamard(size)
