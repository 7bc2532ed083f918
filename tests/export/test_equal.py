"""How far an export is from the model, and where."""

import pytest
import tiny
import torch

from hf_distill.export import Exported, Plan
from hf_distill.export.equal import columns_for, compared, random_batches
from hf_distill.tasks import Task


@pytest.fixture(scope="module")
def model():
    return tiny.bert().eval()


@pytest.fixture(scope="module")
def plan(model):
    return Plan.of(model, Task.of(model))


def off_by(model, plan, wrong):
    """An export that is wrong in one output of one row, by ``wrong``."""

    def run(fed):
        with torch.no_grad():
            found = model(**{name: torch.from_numpy(one) for name, one in fed.items()}).logits
        found[-1, 1] += wrong * max(1.0, float(found[-1].abs().max()))
        return [found.numpy()]

    return Exported(run, list(plan.example), plan.outputs, model.config)


def test_the_row_that_is_furthest_off_is_named(model, plan):
    batches = random_batches(model, plan)
    (found,) = compared(model, {"mine": off_by(model, plan, 1e-3)}, batches, plan).values()
    assert (found.rows, found.output) == (4, "logits")
    assert found.row in (0, 3)  # the last row of either batch
    assert found.largest == pytest.approx(1e-3, rel=1e-2)
    with pytest.raises(ValueError, match=rf"within 0.0001, and logits of row {found.row} is 0.001 off: use PyTorch"):
        found.check("onnx")


def test_no_number_is_never_equal(model, plan):
    (found,) = compared(model, {"mine": off_by(model, plan, float("nan"))}, random_batches(model, plan), plan).values()
    with pytest.raises(ValueError, match="inf off"):
        found.check("onnx")


def test_rounding_is_equal(model, plan):
    (found,) = compared(model, {"mine": off_by(model, plan, 5e-6)}, random_batches(model, plan), plan).values()
    found.check("onnx")
    assert found.largest > 0


def test_labels_and_strangers_are_not_fed(model):
    batch = {"input_ids": torch.ones(1, 2), "labels": torch.ones(1), "teacher_input_ids": torch.ones(1, 2), "n": 3}
    assert list(columns_for(model, batch)) == ["input_ids"]
