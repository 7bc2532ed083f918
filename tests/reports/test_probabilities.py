"""KL of two models' logits and the calibration error, against the textbook in float64."""

import numpy as np
import pytest
import reference
import torch

from hf_distill.reports import calibration, mean_kl


def logits(rows=500, classes=7, scale=3.0, seed=0):
    return scale * np.random.default_rng(seed).normal(size=(rows, classes))


def test_the_mean_kl_is_the_textbooks():
    student, teacher = logits(seed=0), logits(seed=1)
    expected = reference.forward_kl(torch.tensor(student), torch.tensor(teacher)).mean().item()
    assert mean_kl(student, teacher) == pytest.approx(expected, rel=1e-12)
    assert mean_kl(student + 1000, teacher - 1000) == pytest.approx(expected, rel=1e-9)
    assert mean_kl(teacher, teacher) == 0.0


def test_only_rows_that_count_are_in_the_kl():
    student, teacher = logits(6).reshape(2, 3, 7), logits(6, seed=1).reshape(2, 3, 7)
    rows = np.array([[True, True, False], [True, False, False]])
    assert mean_kl(student, teacher, rows) == pytest.approx(mean_kl(student[rows], teacher[rows]))
    assert mean_kl(student, teacher, rows) != pytest.approx(mean_kl(student, teacher))


def test_a_class_that_the_teacher_excludes_adds_nothing_and_one_that_the_student_excludes_everything():
    assert mean_kl([[0.0, -np.inf]], [[5.0, -np.inf]]) == 0.0
    assert mean_kl([[0.0, 0.0]], [[0.0, -np.inf]]) == pytest.approx(np.log(2))
    assert mean_kl([[0.0, -np.inf]], [[0.0, 0.0]]) == np.inf


@pytest.mark.parametrize(("classes", "bins"), [(2, 15), (15, 15), (7, 10)])
def test_the_calibration_error_is_the_textbooks(classes, bins):
    shown = logits(classes=classes)
    labels = np.random.default_rng(2).integers(0, classes, len(shown))
    found = calibration(shown, labels, bins)
    assert found.error == pytest.approx(reference.calibration_error(torch.tensor(shown), labels, bins), rel=1e-9)
    assert found.error > 0.1
    assert sum(found.rows) == len(shown)
    assert len(found.rows) == len(found.confidence) == len(found.accuracy) == bins
    for place, (rows, sure, right) in enumerate(zip(found.rows, found.confidence, found.accuracy, strict=True)):
        assert (sure is None) == (right is None) == (rows == 0)
        assert rows == 0 or place / bins <= sure <= (place + 1) / bins


def test_a_model_that_knows_how_often_it_is_right():
    shown = np.log([[0.8, 0.2]] * 10)
    found = calibration(shown, [0] * 8 + [1] * 2, bins=5)
    assert found.error == pytest.approx(0.0, abs=1e-12)
    assert found.rows == (0, 0, 0, 10, 0)  # a bin holds its upper end
    assert calibration(10 * shown, [0] * 8 + [1] * 2, bins=5).error == pytest.approx(0.2, abs=1e-3)


def test_a_model_that_diverged_has_no_calibration_and_no_warning():
    shown = logits(12)
    shown[3] = np.nan
    found = calibration(shown, np.zeros(12, dtype=int))
    assert np.isnan(found.error)
    assert sum(found.rows) == 12


def test_rows_without_a_label_do_not_count():
    shown, labels = logits(12).reshape(3, 4, 7), np.full((3, 4), -100)
    labels[:, 0] = 1
    assert calibration(shown, labels) == calibration(shown[:, 0], labels[:, 0])


def test_refusals():
    with pytest.raises(ValueError, match=r"shapes \(2, 3\) and \(2, 4\)"):
        mean_kl(np.ones((2, 3)), np.ones((2, 4)))
    with pytest.raises(ValueError, match="KL was asked of no rows"):
        mean_kl(np.ones((2, 3)), np.ones((2, 3)), [False, False])
    with pytest.raises(ValueError, match=r"logits \(2, 1\) and labels \(2,\)"):
        calibration(np.ones((2, 1)), [0, 0])
    with pytest.raises(ValueError, match="asked of no rows"):
        calibration(np.ones((2, 3)), [-100, -100])
