"""What a detector found in Trainer's predictions, and how that is measured."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from transformers.models.detr.image_processing_pil_detr import DetrImageProcessorPil

from hf_distill import BoxCollator
from hf_distill.experiments.detection import DetectionScoring, boxes_of
from hf_distill.experiments.detectors import made_processor
from hf_distill.reports import average_precision

SCRIPT = Path(__file__).with_name("detecting_ranks.py")
OBJECTS = [{"bbox": [[2, 1, 4, 2], [0, 0, 16, 8]], "category": [3, 0]}, {"bbox": [], "category": []}]


def rows():
    draw = np.random.default_rng(0)
    pictures = [Image.fromarray(draw.integers(0, 256, (8, 16, 3), dtype=np.uint8)) for _ in OBJECTS]
    return [{"image": picture, "objects": one} for picture, one in zip(pictures, OBJECTS, strict=True)]


def script():
    spec = importlib.util.spec_from_file_location("detecting_ranks", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def predicted(collator, batches, classes=5):
    """Predictions of a detector that finds every object, and is sure of it, as Trainer gives them."""
    found, labels = [], []
    for batch in batches:
        made = collator(batch)["labels"]
        logits, boxes = np.full((len(batch), 4, classes), -9.0, np.float32), np.full((len(batch), 4, 4), 0.1)
        for number, one in enumerate(made):
            n = len(one["class_labels"])
            logits[number, np.arange(n), one["class_labels"]] = 9.0
            boxes[number, :n] = one["boxes"]
        found.append(({"loss_ce": np.zeros(())}, logits, boxes.astype(np.float32), [np.zeros(3)]))
        labels.append([{name: value.numpy() for name, value in one.items()} for one in made])
    return SimpleNamespace(predictions=found, label_ids=labels)


def test_predictions_of_trainer_become_boxes_in_pixels():
    collator = BoxCollator(made_processor(32))
    found, truths = boxes_of(predicted(collator, [rows(), rows()[::-1]]), collator.processor)
    assert [len(one.labels) for one in truths] == [2, 0, 0, 2]
    np.testing.assert_allclose(truths[0].corners, [[2, 1, 6, 3], [0, 0, 16, 8]], atol=1e-5)
    sure = found[3].scores > 0.5
    assert sorted(found[3].labels[sure].tolist()) == [0, 3]
    assert average_precision(found, truths, 5).ap == pytest.approx(1)
    scores = DetectionScoring(collator, list("abcde")).compute_metrics(predicted(collator, [rows()]))
    assert scores == pytest.approx({"ap": 1, "ap50": 1, "ap75": 1})


def test_a_softmax_model_is_read_by_its_own_processor():
    collator = BoxCollator(DetrImageProcessorPil(size={"height": 32, "width": 32}))
    given = predicted(collator, [rows()], classes=6)  # the last is: no object
    for outputs in given.predictions:
        outputs[1][..., 5] = 0.0
    found, truths = boxes_of(given, collator.processor)
    assert average_precision(found, truths, 5).ap == pytest.approx(1)
    assert max(found[1].scores) < 0.5


def test_batches_that_would_be_put_together_are_refused():
    scoring = DetectionScoring(BoxCollator(made_processor(32)), list("ab"))
    with pytest.raises(ValueError, match="eval_do_concat_batches=True was given, which puts the boxes of one batch's"):
        scoring.for_training(SimpleNamespace(eval_do_concat_batches=True, world_size=1))
    assert scoring.for_training(SimpleNamespace(eval_do_concat_batches=False, world_size=2)) == {}


@pytest.mark.slow
def test_the_teacher_is_asked_once_for_the_same_rows(tmp_path, monkeypatch):
    trainer, scoring, rows = script().made(tmp_path)
    asked, answer = [], type(trainer.teacher).__call__
    monkeypatch.setattr(type(trainer.teacher), "__call__", lambda *args: asked.append(1) or answer(*args))
    first = scoring.evaluate({"distilled": trainer}, rows, trainer)
    assert len(asked) == 3
    again = scoring.evaluate({"other": trainer}, rows, trainer)
    assert len(asked) == 3
    assert again["teacher"] is first["teacher"]
    np.testing.assert_array_equal(again["other"][0][0].corners, first["distilled"][0][0].corners)
    scoring.evaluate({}, rows.select([0]), trainer)
    assert len(asked) == 4


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two_ranks")
    found = subprocess.run(
        [*f"{sys.executable} -m torch.distributed.run --nproc_per_node 2 --standalone".split(), SCRIPT, folder],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr[-4000:]
    return [np.load(folder / f"{rank}.npz") for rank in (0, 1)]


@pytest.mark.slow
def test_two_ranks_find_what_one_process_finds(tmp_path, two_ranks):
    _, measured = script().found_by(tmp_path)
    one = script().arrays(measured)
    for rank in two_ranks:
        assert rank["world_size"] == 2  # an unnoticed single process would prove nothing
        assert set(rank) == {"world_size", *one}  # five images: one of the last batches is there twice
        for name, expected in one.items():
            np.testing.assert_allclose(rank[name], expected, rtol=1e-5, atol=1e-5, err_msg=name)
    assert sum(name.startswith("teacher found") and name.endswith("scores") for name in one) == 5
    assert any((one[f"teacher found {i} corners"] != one[f"distilled found {i} corners"]).any() for i in range(5))
