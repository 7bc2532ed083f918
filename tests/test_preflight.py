"""What is asked of data sets and folders before the first step."""

import logging
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
import tiny_language
from datasets import ClassLabel, Dataset
from transformers import DataCollatorForLanguageModeling, default_data_collator

from hf_distill.preflight import check_labels, check_output_dir, check_parallelism


def check(rows, classes=3, collator=default_data_collator):
    check_labels(Dataset.from_dict(rows), ["labels"], collator, classes)


@pytest.mark.parametrize("column", ["labels", "label", "label_ids"])
def test_good_labels_pass_under_any_name(column):
    check({column: [0, 1, 2, -100]})


def test_floats_and_lists_are_not_class_numbers():
    check({"labels": [0.5, 7.5]})
    check({"labels": [[0.0, 1.0], [1.0, 1.0]]})
    check({"labels": [9, 9]}, classes=None)


def test_a_users_collator_may_make_the_labels():
    check({"text": ["a"]}, collator=lambda rows: rows)
    with pytest.raises(ValueError, match=r"has the columns \['text'\]: add a 'label' column, or set alpha=1"):
        check({"text": ["a"]})


def test_the_first_wrong_row_is_named():
    with pytest.raises(ValueError, match=r"row 2 of the training set has label 7, the student has 3 classes \(0 to 2"):
        check({"labels": [0, 1, 7, 9]})


def test_class_labels_and_formats_are_read():
    data = Dataset.from_dict({"label": [0, 4]}).cast_column("label", ClassLabel(num_classes=5)).with_format("torch")
    with pytest.raises(ValueError, match="label 4"):
        check_labels(data, ["labels"], default_data_collator, 3)


def test_other_data_sets_are_left_to_their_batches():
    check_labels([{"labels": 99}], ["labels"], default_data_collator, 3)
    check_labels(np.zeros(3), ["labels"], default_data_collator, 3)


@pytest.mark.parametrize("name", ["report.json", "model.safetensors", "adapter_model.safetensors"])
def test_a_finished_run_is_not_written_over(tmp_path, name):
    check_output_dir(tmp_path, None)
    check_output_dir(tmp_path / "new", None)
    (tmp_path / name).write_text("kept")
    with pytest.raises(ValueError, match=f"finished run \\({name}\\): choose another --output_dir, or continue"):
        check_output_dir(tmp_path, None)
    check_output_dir(tmp_path, "true")
    assert (tmp_path / name).read_text() == "kept"


@pytest.mark.parametrize(
    ("gpus", "sizes", "message"),
    [
        (2, None, r"2 GPUs were found in one process \(DataParallel\).*accelerate launch or torchrun"),
        (
            1,
            {"cp_size": 2, "sp_size": 1},
            "each rank a part of each row, but the teacher reads whole rows: set cp_size",
        ),
        (1, {"cp_size": 1, "sp_size": 4}, "context or sequence parallelism was asked for"),
    ],
)
def test_a_batch_split_where_no_teacher_can_follow_is_refused(gpus, sizes, message):
    config = None if sizes is None else SimpleNamespace(**sizes)
    trainer = SimpleNamespace(args=SimpleNamespace(n_gpu=gpus), accelerator=SimpleNamespace(parallelism_config=config))
    with pytest.raises(ValueError, match=message):
        check_parallelism(trainer)


def test_an_objective_is_refused_without_a_teacher(tmp_path):
    with pytest.raises(ValueError, match="objective='reverse_kl' was given without a teacher to learn from: pass"):
        tiny.trainer(tmp_path, objective="reverse_kl")


@pytest.mark.parametrize(("args", "told"), [({}, 1), ({"alpha": 0.0}, 0)])
def test_an_objective_in_the_arguments_without_a_teacher_is_told_once(tmp_path, caplog, args, told):
    with caplog.at_level(logging.WARNING):
        tiny.trainer(tmp_path, args={"objective": "reverse_kl", **args})
    assert caplog.text.count("but there is no teacher: this is plain training") == told


@pytest.mark.parametrize("told", [1, 0])
def test_a_token_that_ends_and_pads_is_told_once(tmp_path, caplog, told):
    tokenizer = tiny_language.tokenizer()
    if told:
        tokenizer.pad_token = tokenizer.eos_token
    rows = [{"input_ids": row["input_ids"]} for row in tiny_language.texts()]
    with caplog.at_level(logging.WARNING):
        tiny.trainer(
            tmp_path, tiny_language.llama(), rows, teacher_model=tiny_language.teacher(), args={"alpha": 1.0},
            data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
        )  # fmt: skip
    assert caplog.text.count("both ends and pads texts") == told
