"""What auto stands for, pair by pair."""

import pytest
import tiny
import torch
from datasets import Dataset

from hf_distill import DistillationTrainingArguments
from hf_distill.objectives.presets import INSIDE

WHOLE = {"forward_kl", *INSIDE}


def look_up(batch):
    return torch.zeros(len(batch["input_ids"]), 3)


def terms(folder, **parts):
    run = tiny.trainer(
        folder, args={"objective": "auto", "max_steps": 1}, **{"teacher_model": tiny.teacher(), **parts}
    )
    run.train()
    assert {key for key in run.state.log_history[0] if key.startswith("loss/")} == {
        "loss/hard", *(f"loss/{name}" for name in run.distillation.terms)
    }  # fmt: skip
    return set(run.distillation.terms)


def test_two_models_with_layers_are_compared_inside_too(tmp_path):
    assert terms(tmp_path) == WHOLE


def test_regression_keeps_its_own_loss(tmp_path):
    parts = dict(student=tiny.bert(problem=tiny.REGRESSION), teacher_model=tiny.teacher(tiny.REGRESSION))
    assert terms(tmp_path, data=tiny.rows(problem=tiny.REGRESSION), **parts) == {"logit_mse", *INSIDE}


@pytest.mark.parametrize("case", ["function", "several", "other tokens"])
def test_where_the_inside_cannot_be_compared_the_logits_are(tmp_path, case):
    if case == "other tokens":
        rows = [{**row, "teacher_input_ids": row["input_ids"]} for row in tiny.rows()]
        data = Dataset.from_list(rows).select_columns(["input_ids", "labels", "teacher_input_ids"])
        run = tiny.trainer(
            tmp_path, data=data, objective="auto", teacher_model=tiny.teacher(), args={"max_steps": 1}
        )  # fmt: skip
        assert set(run.distillation.terms) == {"forward_kl"}
        return
    teacher = look_up if case == "function" else [tiny.teacher(), tiny.bert(layers=2, seed=9)]
    assert terms(tmp_path, teacher_model=teacher) == {"forward_kl"}


def test_it_is_a_value_of_the_arguments(tmp_path):
    assert DistillationTrainingArguments(str(tmp_path), objective="auto", use_cpu=True).objective == "auto"
