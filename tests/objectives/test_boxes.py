"""Distance and overlap of boxes, weighed by what a teacher is sure of."""

import pytest
import torch
from transformers.loss.loss_for_object_detection import generalized_box_iou

from hf_distill import Signals, Value
from hf_distill.models.boxes import corners
from hf_distill.objectives import build
from hf_distill.objectives.boxes import Boxes


def shown(boxes, rows=None, weights=None):
    rows = torch.ones(boxes.shape[:2], dtype=torch.bool) if rows is None else rows
    return Signals({}, values={"boxes": Value(boxes, rows, weights)})


def some(seed, images=3, queries=5):
    return torch.rand(images, queries, 4, generator=torch.Generator().manual_seed(seed)) * 0.4 + 0.2


def test_it_is_what_detr_takes_of_a_pair():
    ours, theirs = some(1), some(2)
    weights = torch.rand(3, 5, generator=torch.Generator().manual_seed(3))
    wanted = 0.0
    for image in range(3):
        over = generalized_box_iou(corners(ours[image]), corners(theirs[image])).diagonal()
        wanted += (weights[image] * (5 * (ours - theirs)[image].abs().sum(-1) + 2 * (1 - over))).sum()
    found = Boxes()(shown(ours), shown(theirs, weights=weights), {})
    assert found.total.item() == pytest.approx(wanted.item(), rel=1e-5)
    assert found.count.item() == 3


def test_without_weights_each_box_that_counts_weighs_the_same():
    ours, theirs = some(1), some(2)
    rows = torch.ones(3, 5, dtype=torch.bool)
    rows[0, 2:] = False
    theirs[0, 2:] = float("nan")
    term = Boxes(l1=1.0, giou=0.0)
    gap = (ours - theirs).abs().sum(-1)
    wanted = gap[0, :2].mean() + gap[1].mean() + gap[2].mean()
    ours.requires_grad_(True)
    found = term(shown(ours), shown(theirs, rows), {}).total
    assert found.item() == pytest.approx(wanted.item(), rel=1e-5)
    found.backward()
    assert ours.grad.isfinite().all()


def test_boxes_of_other_queries_are_refused():
    with pytest.raises(
        ValueError, match=r"boxes was asked to compare boxes, of shape \[3, 5, 4\], with the teacher's"
    ):
        Boxes()(shown(some(1)), shown(some(2, queries=6)), {})


@pytest.mark.parametrize("weights", [{"l1": 0.0, "giou": 0.0}, {"l1": -1.0}, {"giou": float("nan")}])
def test_bad_weights_are_refused(weights):
    with pytest.raises(ValueError, match="were given to boxes: give numbers of at least 0, not both 0"):
        build({"boxes": weights})
