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


def test_oblong_grids_are_averaged_along_each_side():
    before, large = torch.full((1, 5, 1), 99.0), torch.arange(4.0 * 6).view(1, 24, 1)
    ours, theirs = on_one_grid(torch.cat((before, large), 1), torch.zeros(1, 1 + 6, 2), "a term", ((4, 6), (2, 3)))
    grid = large.view(4, 6)
    assert ours.flatten().tolist() == [
        grid[2 * row : 2 * row + 2, 2 * column : 2 * column + 2].mean().item()
        for row in range(2)
        for column in range(3)
    ]
    assert theirs.shape == (1, 6, 2)


def test_each_side_becomes_as_short_as_the_shorter_of_two():
    tall, wide = torch.arange(8.0).view(1, 8, 1), torch.arange(8.0).view(1, 8, 1)
    ours, theirs = on_one_grid(tall, wide, "a term", ((4, 2), (2, 4)))  # as many positions, on other grids
    assert ours.flatten().tolist() == [1.0, 2.0, 5.0, 6.0]
    assert theirs.flatten().tolist() == [0.5, 2.5, 4.5, 6.5]


def test_a_known_grid_comes_before_a_square_one():
    nine = torch.arange(9.0).view(1, 9, 1)  # 3 x 3, or 2 x 2 behind five that are none of it
    ours, _ = on_one_grid(nine, torch.zeros(1, 4, 1), "a term", ((2, 2), (2, 2)))
    assert ours.flatten().tolist() == [5.0, 6.0, 7.0, 8.0]


def test_where_one_grid_is_not_known_both_are_taken_for_squares():
    one, other = torch.randn(1, 17, 2), torch.randn(1, 4, 3)
    for grids in ((None, (1, 4)), ((2, 8), None)):
        for known, plain in zip(on_one_grid(one, other, "x", grids), on_one_grid(one, other, "x"), strict=True):
            assert torch.equal(known, plain)
