"""Rows without a label beside the training rows: who learns from them, and who never meets them."""

import json

import pytest
import text_data
import three_models
import torch
from test_bert_chinese import TEXTS, rows, run, write
from transformers import AutoTokenizer


def unlabeled(n, start=0):
    return [{"text": f"{TEXTS[i % 5]}第{i}天"} for i in range(start, start + n)]


def files(folder, n=40):
    made = {"train": rows(60), "validation": rows(6), "test": rows(6), "unlabeled": unlabeled(n)}
    return [f"--{name}_file={write(folder / f'{name}.jsonl', data)}" for name, data in made.items()]


def load(folder, data, train=None, **arguments):
    paths = {"train": train or rows(60), "test": [{"text": "只在测试里", "label": "好"}, *rows(3)], "unlabeled": data}
    paths = {f"{name}_file": write(folder / f"{name}.jsonl", own) for name, own in paths.items()}
    return text_data.load_text(text_data.TextDataArguments(**paths, **arguments), seed=0)


def test_each_text_once_and_none_that_is_measured_or_taught_already(tmp_path):
    data = [*unlabeled(9), *unlabeled(4), {"text": "只在测试里"}, {"text": rows(1)[0]["text"]}]
    train = [{"text": f"训练{i}", "label": ("好", "差")[i % 2]} for i in range(40)]
    splits = load(tmp_path, [*data, {"text": "训练1"}], train)
    assert splits["unlabeled"]["text"] == [row["text"] for row in unlabeled(9)]
    assert set(splits["unlabeled"]["label"]) == {-100}
    said = text_data.described(splits)
    assert "9 unlabeled rows; of 16 unlabeled rows " in said
    in_validation = "训练1" in splits["validation"]["text"]
    assert f"{2 + in_validation} were left out that are validation or test rows too" in said
    assert f"and {5 - in_validation} that are training rows or occur twice" in said


def test_rows_that_are_not_measured_today_are_left_out_too(tmp_path):
    splits = load(tmp_path, [*unlabeled(3), {"text": "只在测试里"}], max_eval_samples=1)
    assert len(splits["test"]) == 1
    assert len(splits["unlabeled"]) == 3


def test_training_rows_that_are_left_out_can_be_the_unlabeled_ones(tmp_path):
    train = [{"text": f"训练{i}", "label": ("好", "差")[i % 2]} for i in range(40)]
    splits = load(tmp_path, train, train, max_train_samples=10)
    labelled, rest = set(splits["train"]["text"]), set(splits["unlabeled"]["text"])
    assert len(labelled) == 10
    assert not rest & (labelled | set(splits["validation"]["text"]))
    assert len(rest | labelled | set(splits["validation"]["text"])) == 40


def test_they_are_put_behind_the_training_rows_for_a_student_with_a_teacher(tmp_path):
    splits = load(tmp_path, unlabeled(5))
    both = text_data.with_unlabeled(splits, 0.9)["train"]
    n = len(splits["train"])
    assert both["label"] == [*splits["train"]["label"], *[-100] * 5]
    assert both["text"][n:] == splits["unlabeled"]["text"]
    assert both.features["label"] == splits["train"].features["label"]
    assert len(splits["train"]) == n
    with pytest.raises(ValueError, match="unlabeled_file was given with alpha=0"):
        text_data.with_unlabeled(splits, 0.0)
    del splits["unlabeled"]
    assert text_data.with_unlabeled(splits, 0.0) is splits


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([{"title": "好"}], r"have the columns \['title'\], \['text'\] was asked for: name them with --text_column"),
        (rows(5), "has 5 rows, all of which are rows of the other files"),
    ],
)
def test_bad_rows_are_refused_in_a_sentence(tmp_path, data, message):
    with pytest.raises(ValueError, match=message) as caught:
        load(tmp_path, data)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("augmentation", [[], ["--augmentation", '{"mask": 0.2, "crop": 0.5}']])
def test_the_recipe_teaches_them_and_trains_the_student_alone_for_as_many_steps(
    tmp_path, monkeypatch, capsys, augmentation
):
    trainers, train = [], three_models.train

    def watched(trainer, resume=None):
        train(trainer, resume)
        trainers.append(trainer)

    monkeypatch.setattr(three_models, "train", watched)
    flags = [*files(tmp_path), *augmentation, "--max_steps", "-1", "--num_train_epochs", "2"]
    report = run(tmp_path, *flags, "--per_device_train_batch_size", "20")
    teacher, student, alone = trainers
    assert [len(one.train_dataset) for one in trainers] == [60, 100, 60]
    assert set(student.train_dataset["label"][60:]) == {-100}
    assert [one.state.global_step for one in trainers] == [6, 10, 10]
    assert [one.copies for one in trainers] == [0, 1 if augmentation else 0, 0]
    assert teacher.alpha == alone.alpha == 0
    assert report["rows"] == {"train": 60, "validation": 6, "test": 6, "unlabeled": 40}
    assert json.loads((tmp_path / "run" / "report.json").read_text(encoding="utf-8"))["rows"] == report["rows"]
    shown = capsys.readouterr().out
    assert "60 train, 6 validation, 6 test, 40 unlabeled rows; of 40 unlabeled rows 0 were left out" in shown
    assert "training the student alone, on the labelled rows, for as many steps" in shown
    vocabulary = AutoTokenizer.from_pretrained(tmp_path / "run").get_vocab()
    assert {"第", "天"} <= vocabulary.keys()  # only unlabelled rows have them
    assert all(torch.isfinite(value).all() for value in student.model.state_dict().values())


def test_alpha_0_is_refused_before_anything_is_trained(tmp_path):
    with pytest.raises(ValueError, match="unlabeled_file was given with alpha=0"):
        run(tmp_path, *files(tmp_path), "--alpha", "0")
    assert not list(tmp_path.rglob("*.safetensors"))
