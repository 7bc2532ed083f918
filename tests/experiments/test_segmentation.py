"""Maps of pixels: the class that is chosen for each, what is measured of them, the models that are made here."""

import numpy as np
import pytest
import tiny
import torch
from datasets import Dataset
from PIL import Image
from tiny_segmenters import maps, segformer
from torch.nn import functional as F
from transformers import UperNetForSemanticSegmentation

from hf_distill.experiments.segmentation import (
    SegmentationModelArguments,
    SegmentationScoring,
    blank_upernet,
    chosen_classes,
    small_upernet,
)


def test_classes_are_chosen_at_the_labels_size_as_transformers_does():
    logits = torch.randn(3, 4, 5, 6, generator=torch.Generator().manual_seed(0))
    chosen = chosen_classes(logits, torch.zeros(3, 10, 18))
    larger = F.interpolate(logits, size=(10, 18), mode="bilinear", align_corners=False)
    assert chosen.dtype == torch.uint8
    assert torch.equal(chosen.long(), larger.argmax(1))
    assert torch.equal(chosen_classes((logits, None), torch.zeros(3, 10, 18)), chosen)


def test_a_model_is_measured_on_pixels_that_have_a_class():
    scoring = SegmentationScoring(["ground", "road"])
    labels = np.array([[[0, 0], [1, 255]], [[1, 1], [0, 0]]])
    said, teacher = np.array([[[0, 0], [0, 1]], [[1, 1], [0, 0]]]), np.array([[[0, 1], [0, 0]], [[1, 1], [0, 0]]])
    found = scoring.measurement(said, labels, teacher)
    assert found.figures == {
        "mean_iou": pytest.approx((4 / 5 + 2 / 3) / 2),
        "pixel_accuracy": 6 / 7,
        "agreement": 6 / 7,
    }
    assert found.each["mean_iou"].mean() == pytest.approx(found.figures["mean_iou"])
    assert scoring.details({"distilled": found}) == {
        "class_ious": {"distilled": {"ground": 4 / 5, "road": pytest.approx(2 / 3)}}
    }


@pytest.mark.parametrize("reduced", [False, True])
def test_the_floor_is_the_most_frequent_class_everywhere(reduced):
    train, test = ([[2, 2, 2, 1, 0, 255]], [[1, 1, 0, 0, 255, 255]]), ([[2, 2, 1, 0, 1, 255]],)
    rows = [
        Dataset.from_dict({"map": [Image.fromarray(np.array(one, dtype=np.uint8)) for one in split]})
        for split in (train, test)
    ]
    scoring = SegmentationScoring(["a", "b"] if reduced else ["a", "b", "c"], reduced)
    # As they stand 2, 1 and 0 are three times each, and the first of the most frequent ones is taken.
    wanted = np.mean([0, 2 / 4]) if reduced else np.mean([1 / 5, 0, 0])
    assert scoring.floor(rows[1], rows[0]) == pytest.approx(wanted)


def test_a_teacher_and_its_students_are_measured_alike(tmp_path):
    def collate(rows):
        return {name: torch.stack([torch.as_tensor(row[name]) for row in rows]) for name in rows[0]}

    rows = Dataset.from_list([{name: one.tolist() for name, one in row.items()} for row in maps(6)])
    scoring, model = SegmentationScoring(["a", "b", "c"]), segformer(seed=3)
    parts = {"data_collator": collate, "preprocess_logits_for_metrics": chosen_classes}
    run = tiny.trainer(
        tmp_path, model, rows, teacher_model=segformer(seed=3), eval_dataset=rows,
        compute_metrics=scoring.compute_metrics, args={"per_device_eval_batch_size": 4}, **parts,
    )  # fmt: skip
    found = scoring.measure({"distilled": run}, rows, run)
    assert found["teacher"].figures == found["distilled"].figures  # the same model
    assert found["teacher"].figures["agreement"] == 1.0
    told = run.evaluate()
    assert told["eval_mean_iou"] == pytest.approx(found["teacher"].figures["mean_iou"])
    batch = collate(list(rows))
    with torch.no_grad():
        own = chosen_classes(model.eval()(batch["pixel_values"]).logits, batch["labels"]).numpy()
    known = batch["labels"].numpy() != 255
    right = (own == batch["labels"].numpy())[known].mean()
    assert found["distilled"].figures["pixel_accuracy"] == pytest.approx(right)


@pytest.mark.parametrize("width", [4, 36, 64])
def test_a_model_of_any_width_that_is_allowed_can_be_made(width):
    recipe = SegmentationModelArguments(teacher_hidden_size=width, student_hidden_size=width)
    recipe.check()
    model = UperNetForSemanticSegmentation(blank_upernet(recipe, None))
    assert model.eval()(torch.zeros(1, 3, 32, 32)).logits.shape[-2:] == (32, 32)
    assert small_upernet(recipe, model).backbone_config.hidden_sizes == [width // 4, width // 2, width]


def test_a_student_of_a_teacher_of_another_kind_is_refused():
    model = torch.nn.Linear(1, 1)
    model.config = None
    with pytest.raises(ValueError, match="a student is made here of a UperNet teacher, the teacher is Linear"):
        small_upernet(SegmentationModelArguments(), model)
