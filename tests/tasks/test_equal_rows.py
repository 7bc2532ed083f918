"""Numbers of rows: equal rows have equal ones, whatever their padding, dtype and company; others have others."""

import torch

from hf_distill.tasks.equal_rows import row_numbers


def test_padding_on_either_side_changes_nothing():
    right = row_numbers(torch.tensor([[5, 6, 7, 0, 0]]), torch.tensor([[1, 1, 1, 0, 0]]))
    left = row_numbers(torch.tensor([[0, 5, 6, 7]]), torch.tensor([[0, 1, 1, 1]]))
    assert right == left == row_numbers(torch.tensor([[5, 6, 7]], dtype=torch.int32))


def test_without_a_mask_padding_is_a_part_of_a_row():
    assert row_numbers(torch.tensor([[5, 6, 0]])) != row_numbers(torch.tensor([[5, 6]]))


def test_other_rows_have_other_numbers():
    """All texts of three tokens out of sixteen, the same tokens in another order among them."""
    texts = torch.cartesian_prod(*[torch.arange(16)] * 3)
    assert len(row_numbers(texts).unique()) == 16**3


def test_images_that_differ_in_one_pixel_by_one_rounding_are_others():
    images = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)).repeat(3, 1, 1, 1)
    images[1, 2, 7, 7] = torch.nextafter(images[1, 2, 7, 7], torch.tensor(9.0))
    one, other, same = row_numbers(images).tolist()
    assert one == same != other
    assert row_numbers(images[2:].to(torch.float64)).item() == one
