"""Mean intersection over union: against a confusion matrix, with an error that drawing images anew finds too."""

import numpy as np
import pytest

from hf_distill.reports import class_ious, gap_closed, iou_shares, pixel_counts, segmentation_scores

CLASSES = 4


def maps(n=60, seed=0, right=0.7, size=(6, 8)):
    """Labels of classes 0 to 2, a tenth of them without a class, and what somebody says who is right that often."""
    draw = np.random.default_rng(seed)
    labels = draw.choice(3, (n, *size), p=[0.6, 0.3, 0.1])
    labels[: n // 2][labels[: n // 2] == 2] = 0  # a class that is on every other image
    said = np.where(draw.random(labels.shape) < right, labels, draw.integers(0, 3, labels.shape))
    return said, np.where(draw.random(labels.shape) < 0.1, 255, labels)


def confusion(said, labels):
    matrix = np.zeros((CLASSES, CLASSES))
    for one, right in zip(said.ravel(), labels.ravel(), strict=True):
        if right != 255:
            matrix[right, one] += 1
    return matrix


def test_scores_are_those_of_the_confusion_matrix():
    said, labels = maps()
    matrix = confusion(said, labels)
    union = matrix.sum(0) + matrix.sum(1) - matrix.diagonal()
    counts = pixel_counts(said, labels, CLASSES)
    assert counts.shape == (60, CLASSES, 3)
    assert class_ious(counts)[:3] == pytest.approx((matrix.diagonal() / np.maximum(union, 1))[:3])
    assert np.isnan(class_ious(counts)[3])  # nowhere, and said nowhere
    scores = segmentation_scores(counts)
    assert scores["mean_iou"] == pytest.approx(np.mean((matrix.diagonal() / np.maximum(union, 1))[:3]))
    assert scores["pixel_accuracy"] == pytest.approx(matrix.trace() / matrix.sum())


def test_maps_may_have_sizes_of_their_own():
    said, labels = maps(4)
    cut = [slice(0, stop) for stop in (2, 6, 1, 4)]
    each = pixel_counts(
        [one[c] for one, c in zip(said, cut, strict=True)], [m[c] for m, c in zip(labels, cut, strict=True)], 3
    )
    wanted = [confusion(one[c], m[c]) for one, m, c in zip(said, labels, cut, strict=True)]
    assert each[:, :, 0].tolist() == [matrix.diagonal()[:3].tolist() for matrix in wanted]
    assert each[:, :, 2].sum(1).tolist() == [matrix.sum() for matrix in wanted]


def test_the_images_shares_have_the_mean_for_a_mean_and_its_error_for_a_spread():
    counts = pixel_counts(*maps(400), CLASSES)
    shares = iou_shares(counts)
    assert shares.mean() == pytest.approx(segmentation_scores(counts)["mean_iou"])
    again = np.random.default_rng(0)
    drawn = [segmentation_scores(counts[again.integers(0, 400, 400)])["mean_iou"] for _ in range(500)]
    assert shares.std(ddof=1) / 20 == pytest.approx(np.std(drawn), rel=0.1)


def test_the_gap_is_that_of_the_mean():
    counts = [pixel_counts(*maps(right=right), CLASSES) for right in (0.5, 0.7, 0.9)]
    gap = gap_closed(*map(iou_shares, counts))
    scores = [segmentation_scores(each)["mean_iou"] for each in counts]
    assert gap.gain == pytest.approx(scores[1] - scores[0])
    assert gap.gap == pytest.approx(scores[2] - scores[0])


def test_a_class_that_is_nowhere_and_was_said_costs():
    labels = np.zeros((1, 2, 2), dtype=int)
    assert segmentation_scores(pixel_counts(labels, labels, 2)) == {"mean_iou": 1.0, "pixel_accuracy": 1.0}
    said = np.array([[[0, 0], [0, 1]]])
    assert segmentation_scores(pixel_counts(said, labels, 2)) == {"mean_iou": 0.375, "pixel_accuracy": 0.75}


def test_pixels_without_a_class_count_in_nothing():
    said, labels = maps(2)
    counts = pixel_counts(said, np.full_like(labels, 255), CLASSES)
    assert not counts.any()
    assert segmentation_scores(counts) == {"mean_iou": 0.0, "pixel_accuracy": 0.0}
    assert iou_shares(counts).tolist() == [0.0, 0.0]
    assert pixel_counts([], [], 3).shape == (0, 3, 3)


@pytest.mark.parametrize(
    ("said", "labels", "told"),
    [
        (np.zeros((2, 3)), np.zeros((3, 2)), r"image 0 has a map of \[2, 3\], and labels of \[3, 2\]: bring the map"),
        (np.full((2, 2), 5), np.zeros((2, 2)), "image 0 has the class 5, and there are 4: give classes of 0 to 3"),
        (np.zeros((2, 2)), np.full((2, 2), -1), "image 0 has the class -1, and there are 4"),
    ],
)
def test_maps_that_cannot_be_compared_are_refused(said, labels, told):
    with pytest.raises(ValueError, match=told):
        pixel_counts([said], [labels], CLASSES)
