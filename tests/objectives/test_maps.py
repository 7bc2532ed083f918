"""Two grids become one: prefix tokens go, the larger grid is averaged, nothing is moved."""

import pytest
import torch

from hf_distill.objectives.maps import on_one_grid


def test_positions_of_one_number_are_left_as_they_are():
    one, other = torch.randn(2, 5, 3), torch.randn(2, 5, 4)
    assert on_one_grid(one, other, "a term") == (one, other)


def test_a_larger_grid_is_averaged_where_it_stands():
    small, large = torch.randn(1, 1 + 4, 2), torch.arange(16.0).view(1, 16, 1)
    ours, theirs = on_one_grid(small, torch.cat((torch.full((1, 2, 1), 99.0), large), 1), "a term")
    assert torch.equal(ours, small[:, 1:])  # the class token is no place in the image
    grid = large.view(4, 4)
    assert theirs.flatten().tolist() == [
        grid[rows, columns].mean().item() for rows in (slice(2), slice(2, 4)) for columns in (slice(2), slice(2, 4))
    ]
    turned = on_one_grid(torch.cat((torch.full((1, 2, 1), 99.0), large), 1), small, "a term")
    assert torch.equal(turned[0], theirs)
    assert torch.equal(turned[1], ours)


def test_gradients_reach_every_position_of_a_grid():
    large = torch.randn(1, 9, 2, requires_grad=True)
    on_one_grid(large, torch.zeros(1, 4, 2), "a term")[0].sum().backward()
    assert (large.grad > 0).all()


def test_positions_that_are_no_square_are_refused():
    for oblong in (3 * 4, 3 * 5, 4 * 5):
        message = f"compares position with position, the student shows 4 and the teacher {oblong}, which are no"
        with pytest.raises(ValueError, match=message):
            on_one_grid(torch.zeros(1, 4, 2), torch.zeros(1, oblong, 2), "a term")
