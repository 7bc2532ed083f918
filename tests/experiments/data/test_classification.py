"""Texts with a class each, from files and data sets, and rows without a label beside them."""

import pytest
from datasets import ClassLabel
from recipe_runs import rows, unlabeled, write

from hf_distill.experiments.data import classification
from hf_distill.experiments.data.files import described


def load(folder, data, train=None, **arguments):
    paths = {"train": train or rows(60), "test": [{"text": "只在测试里", "label": "好"}, *rows(3)], "unlabeled": data}
    paths = {f"{name}_file": write(folder / f"{name}.jsonl", own) for name, own in paths.items()}
    return classification.load_text(classification.TextDataArguments(**paths, **arguments), seed=0)


def test_each_text_once_and_none_that_is_measured_or_taught_already(tmp_path):
    data = [*unlabeled(9), *unlabeled(4), {"text": "只在测试里"}, {"text": rows(1)[0]["text"]}]
    train = [{"text": f"训练{i}", "label": ("好", "差")[i % 2]} for i in range(40)]
    splits = load(tmp_path, [*data, {"text": "训练1"}], train)
    assert splits["unlabeled"]["text"] == [row["text"] for row in unlabeled(9)]
    assert set(splits["unlabeled"]["label"]) == {-100}
    said = described(splits)
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
    both = classification.with_unlabeled(splits, 0.9)["train"]
    n = len(splits["train"])
    assert both["label"] == [*splits["train"]["label"], *[-100] * 5]
    assert both["text"][n:] == splits["unlabeled"]["text"]
    assert both.features["label"] == splits["train"].features["label"]
    assert len(splits["train"]) == n
    with pytest.raises(ValueError, match="unlabeled_file was given with alpha=0"):
        classification.with_unlabeled(splits, 0.0)
    del splits["unlabeled"]
    assert classification.with_unlabeled(splits, 0.0) is splits


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


@pytest.mark.parametrize("kind", [".json", ".jsonl", ".jsonl.gz", ".csv", ".parquet"])
def test_own_files(tmp_path, kind):
    path = write(tmp_path / f"train{kind}", rows(60))
    splits = classification.load_text(classification.TextDataArguments(train_file=path), seed=0)
    assert {name: len(split) for name, split in splits.items()} == {"train": 57, "validation": 3, "test": 3}
    assert splits["train"].features["label"].names == ["好", "差"]


def test_a_data_set_by_name_brings_its_own_splits_and_class_names(tmp_path):
    names = ClassLabel(names=["差", "好"])
    for split, n in (("train", 40), ("test", 12)):
        made = classification.Dataset.from_list(rows(n)).cast_column("label", names)
        made.to_parquet(tmp_path / "data" / f"{split}.parquet")
    splits = classification.load_text(classification.TextDataArguments(dataset_name=str(tmp_path / "data")), seed=0)
    assert {name: len(split) for name, split in splits.items()} == {"train": 38, "validation": 2, "test": 12}
    assert splits["test"].features["label"].names == ["差", "好"]
    assert splits["test"][0] == {"text": rows(1)[0]["text"], "label": 0}
