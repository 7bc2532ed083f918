"""Labels as files have them: which classes they are, whose number is whose, and what is refused."""

import pytest
from datasets import ClassLabel, Dataset
from recipe_runs import write

from hf_distill.experiments.data import class_labels, classification

SAID = "give each row one class, as a name or a whole number"


def labelled(labels):
    return [{"text": f"第{i}句", "label": label} for i, label in enumerate(labels)]


def load(folder, train, test=None, order=None, kind="jsonl"):
    paths = {"train_file": write(folder / f"train.{kind}", labelled(train))}
    if test is not None:
        paths["test_file"] = write(folder / f"test.{kind}", labelled(test))
    return classification.load_text(classification.TextDataArguments(**paths), 0, order)


def classes(rows):
    return rows.features["label"].int2str(rows["label"][:])


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_classes_that_are_digits_are_the_same_in_every_file(tmp_path, kind):
    test = ["1", "2", "1"] if kind == "parquet" else [1, 2, 1]
    splits = load(tmp_path, ["1", "2", "x"] * 14, test, kind=kind)
    assert classes(splits["test"]) == ["1", "2", "1"]
    assert splits["train"].features["label"] == splits["test"].features["label"]
    assert splits["train"].features["label"].names == ["1", "2", "x"]


def test_a_test_file_of_other_class_numbers_is_read_by_its_names(tmp_path):
    train, test = Dataset.from_list(labelled([0, 1] * 20)), Dataset.from_list(labelled([0, 0, 1]))
    train = train.cast_column("label", ClassLabel(names=["差", "好"]))
    test = test.cast_column("label", ClassLabel(names=["好", "差"]))
    numbered = class_labels.number_labels({"train": train, "test": test})
    assert classes(numbered["test"]) == ["好", "好", "差"]
    assert numbered["test"]["label"][:] == [1, 1, 0]
    plain = class_labels.number_labels({"train": train, "test": Dataset.from_list(labelled([1, "好"][:1]))})
    assert classes(plain["test"]) == ["好"]  # numbers of names are the places in their list


def test_numbered_classes_are_found_by_their_digits_and_never_by_their_place(tmp_path):
    train = Dataset.from_list(labelled([0, 1] * 20)).cast_column("label", ClassLabel(names=["1", "2"]))
    numbered = class_labels.number_labels({"train": train, "test": Dataset.from_list(labelled([2, 1]))})
    assert classes(numbered["test"]) == ["2", "1"]
    with pytest.raises(ValueError, match="row 0 of the test rows has label 0, the training rows have 1, 2: correct"):
        class_labels.number_labels({"train": train, "test": Dataset.from_list(labelled([0, 1]))})


GOOD = {
    "0 to n - 1": ([0, 1, 2] * 14, ["LABEL_0", "LABEL_1", "LABEL_2"]),
    "numbers with gaps": ([0, 100_000] * 20, ["0", "100000"]),
    "stars": ([1, 2, 3, 4, 10] * 8, ["1", "2", "3", "4", "10"]),
    "truth values": ([True, False] * 20, ["False", "True"]),
    "whole fractions": ([0.0, 1.0] * 20, ["LABEL_0", "LABEL_1"]),
    "numbers and names": ([1, "x"] * 20, ["1", "x"]),
    "names that look like nothing": (["NA", "None", "null"] * 14, ["NA", "None", "null"]),
    "codes": (["007", "012"] * 20, ["007", "012"]),
}


@pytest.mark.parametrize("what", GOOD)
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_classes_are_those_that_occur(tmp_path, what, kind):
    labels, names = GOOD[what]
    splits = load(tmp_path, labels, labels[:2], kind=kind)
    assert splits["train"].features["label"].names == names
    assert splits["train"].features["label"].num_classes == len(names)
    numbered = dict(zip(splits["train"]["text"], splits["train"]["label"], strict=True))
    order = {name: number for number, name in enumerate(names)}
    for text, number in numbered.items():
        label = labels[int(text[1:-1])]
        name = str(label if isinstance(label, (bool, str)) else int(label))
        assert number == order.get(name, order.get(f"LABEL_{name}"))


BAD = {
    "none in training": (
        [0, None] * 20,
        None,
        rf"a training row has the label None: {SAID} \(row 1, 20 in all; .*--un",
    ),
    "none in a test": ([0, 1] * 20, [0, None, 1], "1 of 3 test rows have no label, the first is row 1: give each row"),
    "a list": ([[1, 2], [0]] * 20, None, rf"a training row has the label \[1, 2\]: {SAID} \(row 0\)"),
    "a list in a test": (
        ["a", "b"] * 20,
        [["a"]],
        r"row 0 of the test rows has label \['a'\], the training rows have a",
    ),
    "a mapping": ([{"a": 1}] * 20, None, rf"a training row has the label {{'a': 1}}: {SAID}"),
    "a fraction": ([1, 0.5] * 20, None, rf"a training row has the label 0\.5: {SAID} \(row 1\)"),
    "below zero": ([1, -1] * 20, None, r"a training row has the label -1: number the classes from 0, .*\(row 1"),
    "a single class": (["好"] * 40, None, "all training rows have the class 好, so there is nothing to learn"),
    "a truth value among numbers": ([0, 1] * 20, [True], "row 0 of the test rows has label True, the training rows"),
}


@pytest.mark.parametrize("what", BAD)
def test_what_is_no_class_is_refused_with_its_row(tmp_path, what):
    train, test, message = BAD[what]
    with pytest.raises(ValueError, match=message) as caught:
        load(tmp_path, train, test)
    assert "\n" not in str(caught.value)


def test_cells_of_a_csv_are_refused_as_numbers_are(tmp_path):
    for labels, message in (
        (["0.5", "1.5"], r"the label 0\.5: give each row one class"),
        (["-1", "1"], "the label -1: number the classes from 0"),
        (["", "1"], rf"the label None: {SAID} \(row 0, 20 in all"),
    ):
        with pytest.raises(ValueError, match=message):
            load(tmp_path, labels * 20, kind="csv")
    splits = load(tmp_path, ["1.0", "0.0"] * 20, ["1", "0", "1"], kind="csv")
    assert splits["test"]["label"][:] == [1, 0, 1]


@pytest.mark.parametrize(
    ("labels", "order", "names"),
    [
        (["差", "好"], {"差": 1, "好": 0}, ["好", "差"]),
        (["Good", "Bad"], {"Good": 0, "Bad": 1}, ["Good", "Bad"]),
        ([0, 1], {"LABEL_0": 1, "LABEL_1": 0}, ["LABEL_1", "LABEL_0"]),
        ([0, 2], {"LABEL_0": 0, "LABEL_1": 1, "LABEL_2": 2}, ["LABEL_0", "LABEL_1", "LABEL_2"]),
        ([0, 1], {"1": 0, "0": 1}, ["1", "0"]),
        ([0, 100_000], {"100000": 0, "0": 1}, ["100000", "0"]),
        ([0, 5], {"LABEL_0": 0, "LABEL_1": 1}, ["0", "5"]),
        (["差", "好"], {"LABEL_0": 0, "LABEL_1": 1}, ["好", "差"]),
    ],
)
def test_a_teachers_numbers_are_taken_over_where_it_has_these_classes(tmp_path, labels, order, names):
    splits = load(tmp_path, labels * 20, labels, order)
    assert splits["train"].features["label"].names == names
    found = classes(splits["test"])
    assert [name.removeprefix("LABEL_") for name in found] == [str(label) for label in labels]


def test_a_file_is_of_the_kind_of_its_last_suffix(tmp_path):
    path = write(tmp_path / "rows.csv.jsonl", labelled([0, 1] * 20))
    assert (
        classification.load_text(classification.TextDataArguments(train_file=path), 0)["train"].features["label"].names
    )
    assert classification.TextDataArguments(train_file="a.csv.gz", test_file=path).cells == ["train"]


def test_rows_are_counted_as_the_file_does(tmp_path):
    labels = [["a", "b"][i % 2] for i in range(40)]
    labels[37] = None
    with pytest.raises(ValueError, match=r"the label None: .*\(row 37; rows without"):
        load(tmp_path, labels)
