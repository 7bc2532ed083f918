"""The assignment of queries that costs least."""

import itertools
import sys

import pytest
import torch

from hf_distill.models.boxes import corners, generalized_iou
from hf_distill.tasks.matching import assigned, most_confident


def some(seed, queries=5):
    generator = torch.Generator().manual_seed(seed)
    boxes = torch.rand(2, queries, 4, generator=generator) * 0.4 + 0.2
    return torch.rand(2, queries, 3, generator=generator), boxes


def test_no_other_assignment_costs_less():
    (ours, our_boxes), (theirs, their_boxes) = some(1), some(2)
    sure = theirs.amax(-1)
    found = assigned(ours, theirs, (our_boxes, their_boxes), sure)
    for image in range(2):

        def cost(order, image=image):
            total = 0.0
            for query, partner in enumerate(order):
                box, other = our_boxes[image, query], their_boxes[image, partner]
                pair = -(ours[image, query] * theirs[image, partner]).sum() + 5 * (box - other).abs().sum()
                pair -= 2 * generalized_iou(corners(box), corners(other))
                total += pair * (sure[image, partner] + 0.01)
            return total.item()

        best = min(map(cost, itertools.permutations(range(5))))
        assert cost(found[image].tolist()) == pytest.approx(best, abs=1e-5)
        assert sorted(found[image].tolist()) == list(range(5))


def test_a_student_that_diverged_is_assigned_somehow():
    (ours, our_boxes), (theirs, their_boxes) = some(1), some(2)
    ours[0], our_boxes[0] = float("nan"), float("inf")
    found = assigned(ours, theirs, (our_boxes, their_boxes), theirs.amax(-1))
    assert sorted(found[0].tolist()) == list(range(5))


def test_the_most_confident_are_chosen_and_the_least_stands_for_those_that_lack():
    sure = torch.tensor([[0.3, 0.1, 0.9], [0.5, 0.6, 0.2]])
    assert most_confident(sure, 2).sort(1).values.tolist() == [[0, 2], [0, 1]]
    assert most_confident(sure, 5).tolist() == [[0, 1, 2, 1, 1], [0, 1, 2, 2, 2]]


def test_without_scipy_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    one = torch.rand(1, 2, 3)
    with pytest.raises(ImportError, match=r'pip install "hf_distill\[vision\]"'):
        assigned(one, one, None, one.amax(-1))
