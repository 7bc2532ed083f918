"""Detectors that are made here, and checkpoints of other classes."""

from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForObjectDetection, BertConfig, RTDetrForObjectDetection

from hf_distill.experiments.detectors import DetectorArguments, blank_detector, small_detector
from hf_distill.experiments.models import ModelKind


def test_detectors_are_made_as_large_as_asked_for():
    asked = DetectorArguments(teacher_hidden_size=16, teacher_layers=2, student_hidden_size=8, queries=7)
    kind = ModelKind(AutoModelForObjectDetection, "", ["a", "b"], blank=blank_detector, small=small_detector)
    teacher = RTDetrForObjectDetection(kind.labelled(blank_detector(asked, None)))
    student = RTDetrForObjectDetection(kind.labelled(small_detector(asked, teacher)))
    for model, width, layers in ((teacher, 16, 2), (student, 8, 1)):
        with torch.no_grad():
            shown = model.eval()(pixel_values=torch.zeros(1, 3, 64, 64))
        assert shown.logits.shape == (1, 7, 2)
        assert (model.config.d_model, model.config.decoder_layers) == (width, layers)
        assert model.config.id2label == {0: "a", 1: "b"}
    with pytest.raises(ValueError, match="the teacher is SimpleNamespace: name a student with --student"):
        small_detector(asked, SimpleNamespace(config=BertConfig()))


def test_a_checkpoint_of_other_classes_is_trained_on(tmp_path):
    asked = DetectorArguments(teacher_hidden_size=8, teacher_layers=1)
    kind = ModelKind(AutoModelForObjectDetection, "", ["a", "b"], blank=blank_detector, other_classes=True)
    before = RTDetrForObjectDetection(kind.labelled(blank_detector(asked, None)))
    before.save_pretrained(tmp_path)
    kind.names = list("xyz")
    after = kind.load(tmp_path)
    assert after.config.id2label == {0: "x", 1: "y", 2: "z"}
    assert after.model.enc_score_head.out_features == 3
    torch.testing.assert_close(after.model.enc_output[0].weight, before.model.enc_output[0].weight)
    kind.other_classes = False
    with pytest.raises(RuntimeError, match="mismatch"):
        kind.load(tmp_path)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"lora_rank": 4}, "lora_rank=4 was given, which this recipe does not do"),
        ({"student_from_teacher": True}, "student_from_teacher=True was given, which this recipe does not do"),
        ({"queries": 0}, "queries=0 was given, .* of which there are 336 at image_size=64: give 1 to 336"),
        ({"queries": 85, "image_size": 32}, "queries=85 was given, .*: give 1 to 84"),
        ({"image_size": 48}, "image_size=48 was given: give a multiple of 32"),
        ({"student_hidden_size": 12}, "student_hidden_size=12 was given: give a multiple of 8"),
        ({"teacher_epochs": 0}, "teacher_epochs=0 was given"),
    ],
)
def test_settings_that_cannot_be(given, told):
    with pytest.raises(ValueError, match=told):
        DetectorArguments(**given).check()
    DetectorArguments().check()
