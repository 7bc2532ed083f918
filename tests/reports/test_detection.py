"""COCO's average precision against a short reference and against pycocotools, and the spread of its shares."""

import importlib.util
import sys

import numpy as np
import pytest

from hf_distill.reports import Boxes, ap_shares, average_precision, detection
from hf_distill.reports.detection import THRESHOLDS

RECALLS = np.linspace(0, 1, 101)


def overlap(one, others):
    low, high = np.maximum(one[:2], others[:, :2]), np.minimum(one[2:], others[:, 2:])
    both = (high - low).clip(0).prod(axis=1)
    return both / ((one[2:] - one[:2]).prod() + (others[:, 2:] - others[:, :2]).prod(axis=1) - both)


def reference(predicted, truths, classes):
    """AP of each class at each overlap, [10, C]; NaN where there is none of the class."""
    found = np.full((len(THRESHOLDS), classes), np.nan)
    for label in range(classes):
        there = [image.corners[np.asarray(image.labels) == label] for image in truths]
        if not (total := sum(map(len, there))):
            continue
        said = [
            (score, number, box)
            for number, image in enumerate(predicted)
            for box, one, score in zip(image.corners, image.labels, image.scores, strict=True)
            if one == label
        ]
        said.sort(key=lambda one: -one[0])
        for i, threshold in enumerate(THRESHOLDS):
            free, hits = [np.ones(len(boxes), dtype=bool) for boxes in there], []
            for _, number, box in said:
                overlaps = np.where(free[number], overlap(box, there[number]), -1)
                hit = overlaps.size > 0 and overlaps.max() >= threshold
                if hit:
                    free[number][overlaps.argmax()] = False
                hits.append(hit)
            right = np.cumsum(hits)
            precision, recall = right / np.arange(1, len(hits) + 1), right / total
            found[i, label] = np.mean([precision[recall >= least].max(initial=0.0) for least in RECALLS])
    return found


def images(draw, count, classes, fewer=0):
    """Boxes that are there, and what a model of middling skill says: moved, missed, made up, mistaken."""
    truths, predicted = [], []
    for _ in range(count):
        n = draw.integers(0, 6)
        start = draw.uniform(0, 60, (n, 2))
        corners = np.concatenate([start, start + draw.uniform(5, 30, (n, 2))], axis=1)
        labels = draw.integers(0, classes - fewer, n)
        truths.append(Boxes(corners, labels))
        kept = draw.random(n) < 0.8
        moved = corners[kept] + draw.normal(0, 1.5, (kept.sum(), 4))
        mistaken = np.where(draw.random(kept.sum()) < 0.1, draw.integers(0, classes, kept.sum()), labels[kept])
        more = draw.integers(0, 4)
        start = draw.uniform(0, 60, (more, 2))
        made_up = np.concatenate([start, start + draw.uniform(5, 30, (more, 2))], axis=1)
        scores = np.concatenate([draw.beta(4, 2, kept.sum()), draw.beta(2, 4, more)])
        found = np.concatenate([mistaken, draw.integers(0, classes, more)])
        predicted.append(Boxes(np.concatenate([moved, made_up]), found, scores))
    return predicted, truths


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_average_precision_is_that_of_the_reference(seed):
    predicted, truths = images(np.random.default_rng(seed), 30, 5, fewer=1)
    found, expected = average_precision(predicted, truths, 5), reference(predicted, truths, 5)
    assert 0.1 < found.ap < found.ap50 < 0.9
    assert found.ap == pytest.approx(np.nanmean(expected), abs=1e-9)
    assert found.ap50 == pytest.approx(np.nanmean(expected[0]), abs=1e-9)
    assert found.ap75 == pytest.approx(np.nanmean(expected[5]), abs=1e-9)
    np.testing.assert_allclose(found.classes[:4], expected.mean(axis=0)[:4], atol=1e-9)
    assert np.isnan(found.classes[4])  # no image shows it; it does not count, though it is said


@pytest.mark.skipif(importlib.util.find_spec("pycocotools") is None, reason="pycocotools is not installed")
def test_pycocotools_finds_the_same(monkeypatch):
    predicted, truths = images(np.random.default_rng(0), 30, 5, fewer=1)
    ours = average_precision(predicted, truths, 5)
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    assert detection._package()[0].__module__.startswith("pycocotools")
    theirs = average_precision(predicted, truths, 5)
    assert (theirs.ap, theirs.ap50, theirs.ap75) == pytest.approx((ours.ap, ours.ap50, ours.ap75), abs=1e-9)
    np.testing.assert_allclose(theirs.classes, ours.classes, atol=1e-9)


def test_a_hundred_boxes_of_an_image_count_the_surest_ones():
    truths = [Boxes([[0, 0, 10, 10]], [0])]
    corners = [[20, 20, 30, 30]] * 100 + [[0, 0, 10, 10]]
    late = [Boxes(corners, [0] * 101, np.linspace(1, 0.5, 101))]
    assert average_precision(late, truths, 1).ap == 0
    assert average_precision([Boxes(corners[1:], [0] * 100, np.linspace(1, 0.5, 100))], truths, 1).ap > 0


def test_perfect_boxes_and_none():
    truths = [Boxes([[0, 0, 4, 4], [4, 4, 9, 9]], [0, 1]), Boxes([], [])]
    perfect = [Boxes(one.corners, one.labels, np.ones(len(one.labels))) for one in truths]
    assert average_precision(perfect, truths, 2).ap == 1
    nothing = [Boxes([], [], []), Boxes([], [], [])]
    assert average_precision(nothing, truths, 2).ap == 0


def test_shares_have_ap_for_a_mean_and_are_what_ap_lacks_without_a_block():
    predicted, truths = images(np.random.default_rng(3), 30, 3)
    shares, whole = ap_shares(predicted, truths, 3, blocks=7), average_precision(predicted, truths, 3).ap
    assert shares.shape == (7,)
    assert shares.mean() == pytest.approx(whole, abs=1e-12)
    kept = [[number for number in range(30) if number % 7 != block] for block in range(7)]
    without = np.array([reference([predicted[n] for n in some], [truths[n] for n in some], 3).mean() for some in kept])
    np.testing.assert_allclose(shares, whole + 6 * (without.mean() - without), atol=1e-9)


@pytest.mark.slow
def test_their_standard_error_is_the_spread_of_ap_over_samples_of_images():
    draw, found, errors = np.random.default_rng(4), [], []
    for _ in range(100):
        shares = ap_shares(*images(draw, 30, 1), 1, blocks=5)
        found.append(shares.mean())
        errors.append(shares.std(ddof=1) / np.sqrt(len(shares)))
    # Of 100 samples a deviation is known within 7 %; of 200, with two classes and ten blocks, it was 1 % off.
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(np.std(found, ddof=1), rel=0.2)


def test_one_image_has_no_spread():
    there, said = [Boxes([[0, 0, 4, 4]], [0])], [Boxes([[0, 0, 4, 4]], [0], [0.5])]
    assert ap_shares(said, there, 1).tolist() == [1.0]


def test_a_block_without_the_only_box_is_no_number_less():
    there = [Boxes([[0, 0, 4, 4]], [0]), Boxes([], [])]
    said = [Boxes([[0, 0, 4, 4]], [0], [0.5]), Boxes([], [], [])]
    assert ap_shares(said, there, 1).tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("predicted", "truths", "told"),
    [
        ([], [Boxes([[0, 0, 1, 1]], [0])], "predictions of 0 images and the boxes of 1: give both"),
        ([Boxes([[0, 0, 1, 1]], [0])], [Boxes([[0, 0, 1, 1]], [0])], "boxes without scores: say"),
        ([Boxes([[0, 0, 1, 1]], [2], [1.0])], [Boxes([[0, 0, 1, 1]], [0])], "of class 2 and there are 2: number"),
        ([Boxes([], [], [])], [Boxes([[0, 0, 1, 1]], [-1])], "of class -1 and there are 2: number"),
        ([Boxes([], [], [])], [Boxes([], [])], "images without any box: give some"),
    ],
)
def test_what_cannot_be_measured_is_refused(predicted, truths, told):
    for measure in (average_precision, ap_shares):
        with pytest.raises(ValueError, match=told):
            measure(predicted, truths, 2)


def test_boxes_without_as_many_labels_are_refused():
    with pytest.raises(ValueError, match="with 1 boxes, 2 labels: give as many of each"):
        Boxes([[0, 0, 1, 1]], [0, 1])


def test_without_a_package_the_extra_is_named(monkeypatch):
    for name in ("faster_coco_eval", "pycocotools.coco"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r'faster-coco-eval: pip install "hf_distill\[vision\]"\.$'):
        average_precision([Boxes([], [], [])], [Boxes([[0, 0, 1, 1]], [0])], 1)
