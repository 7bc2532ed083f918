"""What auto stands for, pair by pair."""

import json
import logging

import pytest
import tiny
import tiny_tasks
import torch
from datasets import Dataset

from hf_distill import DistillationTrainingArguments, Several
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
        "loss/hard", *(f"loss/{name}" for name in run.distillation.objective.terms)
    }  # fmt: skip
    return set(run.distillation.objective.terms)


def test_two_models_with_layers_are_compared_inside_too(tmp_path):
    assert terms(tmp_path) == WHOLE


def test_tags_take_their_turn_after_the_hidden_states(tmp_path):
    args = {"objective": "auto", "max_steps": 4, "teacher_cache": "off"}
    run = tiny_tasks.trainer(tmp_path, "tokens", args=args)
    run.train()
    told = run.distillation.objective.told
    assert told == {"hidden_mse": "1 from 0 until 0.5", "forward_kl": "1 from 0.5 until 1.0"}
    shown = [{name for name in WHOLE if log.get(f"loss/{name}")} for log in run.state.log_history[:4]]
    assert shown == [{"hidden_mse"}, {"hidden_mse"}, {"forward_kl"}, {"forward_kl"}]


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
        assert set(run.distillation.objective.terms) == {"forward_kl"}
        return
    teacher = look_up if case == "function" else [tiny.teacher(), tiny.bert(layers=2, seed=9)]
    assert terms(tmp_path, teacher_model=teacher) == {"forward_kl"}


# ---- Answers that were kept ----


def with_folder(folder, teacher=None, objective="auto", **args):
    cache = {"teacher_cache": str(folder / "answers")} if teacher is not None else {}
    teacher = teacher if teacher is not None else str(folder / "answers")
    run = tiny.trainer(
        folder / "out", data=tiny.rows(8), teacher_model=teacher, objective=objective,
        args={"max_steps": 4, "per_device_train_batch_size": 4, **cache, **args},
    )  # fmt: skip
    run.train()
    return run


def test_a_folder_that_training_fills_keeps_what_auto_needs(tmp_path):
    first = with_folder(tmp_path, tiny.teacher())
    assert set(first.distillation.objective.terms) == WHOLE
    header = json.loads((tmp_path / "answers" / "teacher.json").read_text())
    assert header["needs"] == ["heads", "hidden"]
    expected = tiny.losses(first)
    live = with_folder(tmp_path / "b", tiny.teacher(), teacher_cache="off")
    assert tiny.losses(live) == pytest.approx(expected, rel=1e-5)  # its rows stood beside others, padded otherwise
    for teacher in (tiny.teacher(), None):
        again = with_folder(tmp_path, teacher)
        assert set(again.distillation.objective.terms) == WHOLE
        assert tiny.losses(again) == expected
        assert tiny.losses(again, "teacher_cache_hits") == [1.0] * 4


@pytest.mark.parametrize("chosen", [False, True])
def test_beside_a_live_teacher_a_folder_of_logits_alone_is_refused(tmp_path, chosen):
    def teacher():
        return Several([tiny.teacher()], choose="source") if chosen else tiny.teacher()

    data = Dataset.from_list([{**row, "source": 0} for row in tiny.rows()])
    parts = dict(data=data, args={"max_steps": 4, "teacher_cache": str(tmp_path / "answers")})
    tiny.trainer(tmp_path, teacher_model=teacher(), objective="forward_kl", **parts).train()
    told = (
        r"objective=auto is \{'forward_kl': 1.0, 'hidden_mse': 1.0\} for these two models, the folder of answers "
        r"holds logits alone: keep hidden states too \(hf-distill cache --hidden_states, into another folder\), or "
        r"set objective=forward_kl\.$"
    )
    with pytest.raises(ValueError, match=told):
        tiny.trainer(tmp_path, teacher_model=teacher(), objective="auto", **parts)


def test_without_a_teacher_auto_uses_what_a_folder_has_and_says_so_once(tmp_path, caplog):
    with_folder(tmp_path, tiny.teacher(), "forward_kl")
    with caplog.at_level(logging.WARNING, logger="hf_distill"):
        run = with_folder(tmp_path)
        run.train()
    assert run.distillation.objective.told == {"forward_kl": 1.0}
    assert [record.getMessage()[:85] for record in caplog.records] == [
        "objective=auto is {'forward_kl': 1.0} here, and not {'forward_kl': 1.0, 'hidden_mse':"
    ]


def test_the_mean_of_several_folders_lacks_nothing_that_it_could_have(tmp_path, caplog):
    models = {"a": tiny.teacher(), "b": tiny.bert(layers=2, seed=9)}
    folders = {name: str(tmp_path / "answers" / name) for name in models}
    with_folder(tmp_path, models)
    with caplog.at_level(logging.WARNING, logger="hf_distill"):
        run = tiny.trainer(tmp_path, teacher_model=folders, objective="auto")
    assert set(run.distillation.objective.terms) == {"forward_kl"}
    assert [record for record in caplog.records if record.name.startswith("hf_distill")] == []


def test_it_is_a_value_of_the_arguments(tmp_path):
    assert DistillationTrainingArguments(str(tmp_path), objective="auto", use_cpu=True).objective == "auto"
