"""Directions of vectors of any size."""

import pytest
import torch

from hf_distill.objectives.unit_vectors import unit_vectors


@pytest.mark.parametrize("size", [1e30, 1.0, 1e-13, 1e-30])
def test_a_direction_does_not_depend_on_the_size(size):
    vectors = (size * torch.tensor([[3.0, 4.0, 0.0]])).requires_grad_()
    unit_vectors(vectors)[0, 0].backward()
    assert torch.allclose(unit_vectors(vectors), torch.tensor([[0.6, 0.8, 0.0]]), rtol=1e-6)
    assert torch.allclose(size * vectors.grad, torch.tensor([[0.128, -0.096, 0.0]]), rtol=1e-5)  # (1 - 0.36) / 5, ...


def test_a_vector_without_length_has_no_direction():
    vectors = torch.tensor([[3.0, 4.0], [0.0, 0.0], [1e-40, 1e-41]], requires_grad=True)
    unit_vectors(vectors).sum().backward()
    assert (vectors.grad[1:] == 0).all()
    assert vectors.grad[0].abs().max() > 0.01


def test_a_difference_that_is_rounding_has_no_direction():
    numbers = torch.tensor([[1.0, 1.0 + 2**-23], [1.0, 1.0 + 2**-20]])
    found = unit_vectors(numbers - numbers[:, :1], numbers)
    assert found.tolist() == [[0.0, 0.0], [0.0, 1.0]]
