"""Corners and overlap of boxes."""

import torch
from transformers.image_transforms import center_to_corners_format
from transformers.loss.loss_for_object_detection import generalized_box_iou

from hf_distill.models.boxes import corners, generalized_iou


def some(n=40, seed=1):
    return torch.rand(n, 4, generator=torch.Generator().manual_seed(seed)) * 0.5 + 0.1


def test_corners_and_overlap_are_those_of_transformers():
    one, other = some(), some(seed=2)
    assert torch.allclose(corners(one), center_to_corners_format(one))
    found = generalized_iou(corners(one).unsqueeze(1), corners(other).unsqueeze(0))
    assert torch.allclose(found, generalized_box_iou(corners(one), corners(other)), atol=1e-6)
    assert found.min() < 0 < found.max()


def test_a_box_without_an_area_has_a_gradient():
    nothing = torch.tensor([0.5, 0.5, 0.0, 0.0], requires_grad=True)
    generalized_iou(corners(nothing), corners(nothing)).backward()
    assert nothing.grad.isfinite().all()


def test_the_same_box_overlaps_whole():
    assert torch.allclose(generalized_iou(corners(some()), corners(some())), torch.ones(40), atol=1e-5)
