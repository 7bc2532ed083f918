"""The grid of an image model's positions is known of the model, or of the image, or not at all."""

import pytest
import tiny_images
import torch

from hf_distill.models.grids import PREFIXES, grid_of, grids_of
from hf_distill.models.meta import flat

WIDE = {"image_size": (32, 64)}
KINDS = {
    "vit": (lambda: tiny_images.vit(**WIDE), [(8, 16)] * 3),
    "deit": (lambda: tiny_images.deit(**WIDE, patch=8), [(4, 8)] * 3),
    "resnet": (tiny_images.resnet, [(8, 16), (8, 16), (4, 8)]),
    "convnext": (tiny_images.convnext, [(16, 32), (16, 32), (8, 16)]),
    "swin": (tiny_images.swin, [(16, 32), (8, 16), (8, 16)]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_grids_of_oblong_images_are_those_of_each_hidden_state(kind):
    make, wanted = KINDS[kind]
    model = make().eval()
    with torch.no_grad():
        shown = model(pixel_values=torch.zeros(1, 3, 32, 64), output_hidden_states=True).hidden_states
    assert list(grids_of(model, shown, (32, 64))) == wanted
    if shown[0].ndim == 3:  # answers that were kept: positions alone, and the images
        assert list(grids_of(None, map(flat, shown), (32, 64))) == wanted
        assert grids_of(model, shown, None) == (None,) * len(shown)


def test_patches_that_do_not_fill_an_image_are_those_of_the_configuration():
    model = tiny_images.vit(patch=10, image_size=(36, 64))
    with torch.no_grad():
        shown = model(pixel_values=torch.zeros(1, 3, 36, 64), output_hidden_states=True).hidden_states
    assert set(grids_of(model, shown, (36, 64))) == {(3, 6)}
    pair = tiny_images.vit(patch=(4, 8), image_size=(16, 16))
    with torch.no_grad():
        shown = pair(pixel_values=torch.zeros(1, 3, 16, 16), output_hidden_states=True).hidden_states
    assert set(grids_of(pair, shown, (16, 16))) == {(4, 2)}


def test_positions_of_a_square_image_are_a_square_or_not_known():
    for side in range(2, 40):
        for before in PREFIXES:
            assert grid_of(side**2 + before, (224, 224)) in {(side, side), None}
    assert grid_of(9, (224, 224)) is None  # three by three, or two by two behind a class token and four registers


@pytest.mark.parametrize("positions", [1 + 1, 2 + 1, 12, 15])
def test_what_is_no_grid_of_an_image_is_not_known(positions):
    assert grid_of(positions, (32, 32)) is None
