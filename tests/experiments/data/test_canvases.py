"""Canvases of digits: boxes and maps that agree, the same ones every time, no digit in two splits."""

import numpy as np
import pytest

from hf_distill.experiments.data.canvases import INK, canvases
from hf_distill.experiments.data.images import digits

COUNTS = {"train": 40, "validation": 20, "test": 20}


@pytest.fixture(scope="module")
def splits():
    return canvases(0, COUNTS)


def test_each_box_is_the_smallest_around_the_pixels_of_its_digit(splits):
    seen = set()
    for row in splits["train"]:
        objects, classes = row["objects"], np.asarray(row["map"])
        assert 1 <= len(objects["bbox"]) <= 4
        assert classes.shape == (64, 64)
        left = classes.copy()
        for (x, y, width, height), label, area in zip(
            objects["bbox"], objects["category"], objects["area"], strict=True
        ):
            inside = classes[int(y) : int(y + height), int(x) : int(x + width)]
            assert set(np.unique(inside)) <= {0, label + 1}
            assert (inside > 0).sum() == area
            assert all(edge.any() for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]))
            left[int(y) : int(y + height), int(x) : int(x + width)] = 0
            seen.add(label)
        assert not left.any()
    assert len(seen) == 10


def test_an_image_shows_its_digits_on_noise(splits):
    for row in splits["validation"]:
        image, classes = np.asarray(row["image"], dtype=float) / 255, np.asarray(row["map"])
        assert image.shape == (64, 64, 3)
        assert (image[..., 0] == image[..., 2]).all()
        # A digit's pixels are brighter than the ground; the noise between them deviates by 4 %.
        assert image[classes > 0].mean() > image[classes == 0].mean() + 0.3
        assert len(np.unique(image[classes == 0])) > 10


def test_every_object_has_a_number_of_its_own(splits):
    numbers = [one for row in splits["train"] for one in row["objects"]["id"]]
    assert numbers == list(range(len(numbers)))


def test_the_seed_alone_decides(splits):
    again, other = canvases(0, COUNTS), canvases(1, COUNTS)
    for name in COUNTS:
        assert splits[name]["objects"][:] == again[name]["objects"][:]
        assert splits[name][3]["image"].tobytes() == again[name][3]["image"].tobytes()
        assert splits[name]["objects"][:] != other[name]["objects"][:]


def test_a_split_shows_digits_of_its_own(splits):
    pools = {
        name: {outline(np.asarray(image) >= 255 * INK) for image in rows["image"][:]}
        for name, rows in digits().items()
    }
    for name in COUNTS:
        shown = [one for row in splits[name] for one in outlines(row)]
        assert all(set(one) & pools[name] for one in shown)
        other = pools["test" if name != "test" else "train"]
        assert sum(bool(set(one) & other) for one in shown) < len(shown) / 2


def outlines(row):
    """What each box may show, by how many times the digit was enlarged."""
    classes = np.asarray(row["map"]) > 0
    for x, y, width, height in np.array(row["objects"]["bbox"], dtype=int):
        inside = classes[y : y + height, x : x + width]
        yield [outline(inside[::k, ::k]) for k in (2, 3) if np.array_equal(enlarged(inside[::k, ::k], k), inside)]


def enlarged(image, times):
    return np.kron(image, np.ones((times, times), dtype=bool))


def outline(image):
    rows, columns = np.nonzero(image)
    tight = np.ascontiguousarray(image[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1])
    return tight.shape, tight.tobytes()
