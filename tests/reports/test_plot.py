"""The picture is drawn, is not empty, and names its models."""

import math

import numpy as np
import pytest
from matplotlib import image

from hf_distill.reports import mean_interval, plot_comparison

ROWS = [
    {"name": "teacher", "accuracy": 0.9, "samples_per_second": 100.0, "parameters": 4_000_000},
    {
        "name": "student alone",
        "accuracy": 0.8,
        "accuracy_error": 0.01,
        "samples_per_second": 900.0,
        "parameters": 600_000,
    },
    {
        "name": "distilled",
        "accuracy": 0.85,
        "accuracy_error": 0.01,
        "samples_per_second": 900.0,
        "parameters": 600_000,
    },
]
MODELS = [{**row, "accuracy_error": 0.01} for row in ROWS]


def test_a_picture_is_saved(tmp_path):
    plot_comparison(MODELS, tmp_path / "report.png", "did the teacher help?")
    picture = image.imread(tmp_path / "report.png")
    assert picture.shape[1] > 2 * picture.shape[0]
    assert len({tuple(p) for p in picture[::7, ::7, :3].reshape(-1, 3).round(2)}) > 4  # three colours, white and ink


def test_another_score_is_drawn_under_its_name(tmp_path):
    rows = [{"name": row["name"], "f1": row["accuracy"], "f1_error": 0.02} for row in MODELS]
    rows = [{**row, "samples_per_second": 9.0, "parameters": 10} for row in rows]
    plot_comparison(rows, tmp_path / "f1.png", "entities", "f1", "test F1")
    plot_comparison(MODELS, tmp_path / "accuracy.png", "entities")
    assert (tmp_path / "f1.png").read_bytes() != (tmp_path / "accuracy.png").read_bytes()
    with pytest.raises(KeyError, match="accuracy"):
        plot_comparison(rows, tmp_path / "none.png", "entities")


@pytest.mark.parametrize("right", [0, 13])
def test_a_model_that_is_always_right_or_never_is_drawn(tmp_path, right):
    rows = [{**row, "accuracy": right / 13, "accuracy_interval": mean_interval([right / 13] * 13)} for row in MODELS]
    plot_comparison(rows, tmp_path / "report.png", "13 rows")
    rows = [{**row, "accuracy": 1 / 3, "accuracy_interval": (1 / 3 + 1e-16, 0.4)} for row in MODELS]  # added otherwise
    plot_comparison(rows, tmp_path / "rounded.png", "rounded")
    assert all(image.imread(tmp_path / f"{name}.png").shape[1] > 500 for name in ("report", "rounded"))


@pytest.mark.parametrize("broken", [1, 2, 3])
def test_a_model_that_diverged_is_named_and_the_others_are_drawn(tmp_path, broken):
    nothing = {"accuracy": math.nan, "accuracy_interval": [math.nan, math.nan]}
    rows = [*MODELS[: 3 - broken], *({**row, **nothing} for row in MODELS[3 - broken :])]
    plot_comparison(rows, tmp_path / "report.png", "did the teacher help?")
    assert image.imread(tmp_path / "report.png").shape[1] > 500


def test_the_floor_is_a_line_where_the_models_are_not_far_from_it(tmp_path):
    drawn = []
    for floor in (None, 0.82, 0.1):
        plot_comparison(MODELS, tmp_path / "floor.png", "did the teacher help?", floor=floor)
        drawn.append(image.imread(tmp_path / "floor.png")[..., :3])
    assert drawn[0].shape == drawn[2].shape
    assert (drawn[0] == drawn[2]).all()  # a line far away would press all models together
    line = drawn[1][(drawn[0] != drawn[1]).any(axis=-1)]
    assert len(line) > 100
    assert np.ptp(line[line.min(axis=-1) < 0.6], axis=-1).max() < 0.02  # grey
