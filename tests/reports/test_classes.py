"""Each class's recall and F1, and which won and lost."""

import numpy as np
import pytest

from hf_distill.reports import ClassificationMetric, class_changes, class_table


def models(rows=2000, classes=6):
    generator = np.random.default_rng(0)
    labels = generator.integers(0, classes, rows)
    sure = {"teacher": 0.9, "student alone": 0.6, "distilled": 0.75}
    wrong = {name: generator.integers(0, classes, rows) for name in sure}
    return {n: np.where(generator.random(rows) < share, labels, wrong[n]) for n, share in sure.items()}, labels


def test_the_figures_are_the_textbooks():
    said, labels = models()
    found = class_changes(said, labels)
    assert [one.name for one in found] != ["0", "1", "2", "3", "4", "5"]
    for model, chosen in said.items():
        macro = ClassificationMetric().compute(predictions=chosen, references=labels)["macro_f1"]
        assert np.mean([one.f1[model] for one in found]) == pytest.approx(macro)
        for one in found:
            assert one.recall[model] == pytest.approx(np.mean(chosen[labels == one.number] == one.number))
    assert sum(one.rows for one in found) == len(labels)
    changes = [one.change for one in found]
    assert changes == sorted(changes)
    assert changes == [one.f1["distilled"] - one.f1["student alone"] for one in found]


def test_the_error_of_a_change_is_that_of_rows_drawn_anew():
    said, labels = models(rows=600, classes=3)
    one, generator, drawn = class_changes(said, labels)[0], np.random.default_rng(1), []
    for _ in range(400):
        rows = generator.integers(0, 600, 600)
        again = class_changes({name: chosen[rows] for name, chosen in said.items()}, labels[rows])
        drawn.append(next(each.change for each in again if each.number == one.number))
    assert one.change_error == pytest.approx(np.std(drawn), rel=0.15)


def test_a_class_without_rows_comes_last_and_shows_no_figure():
    said = {"student alone": [0, 0, 3], "distilled": [0, 1, 1]}
    found = class_changes(said, [0, 1, 1], ["a", "b", "nowhere", "only said"])
    assert [one.name for one in found] == ["a", "b", "nowhere", "only said"]
    nowhere, said_once = found[2:]
    assert nowhere.f1 == {"student alone": None, "distilled": None}
    assert (nowhere.change, nowhere.change_error, nowhere.rows) == (None, None, 0)
    assert said_once.f1 == {"student alone": 0.0, "distilled": None}
    assert said_once.recall["student alone"] is None
    assert "| nowhere   |    0 |" in class_table(found)


def test_rows_without_a_label_do_not_count():
    said = {"student alone": np.array([0, 1, 9]), "distilled": np.array([0, 1, 9])}
    assert [one.number for one in class_changes(said, np.array([0, 1, -100]))] == [0, 1]


def test_the_table_shows_both_ends_and_counts_what_lies_between():
    said, labels = models(classes=12)
    found = class_changes(said, labels, [f"class {i}" for i in range(12)])
    lines = class_table(found, most=3).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == [
        *(one.name for one in found[:3]), "(6 between)", *(one.name for one in found[-3:])
    ]  # fmt: skip
    assert len(class_table(found, most=6).splitlines()) == 14
    assert lines[0].count("|") == lines[5].count("|") == 10


def test_refusals():
    said = {"teacher": [0, 1], "distilled": [0, 1]}
    with pytest.raises(ValueError, match="from 'student alone' to 'distilled' was asked for, and there are"):
        class_changes(said, [0, 1])
    with pytest.raises(ValueError, match="'teacher' have the shape"):
        class_changes({"teacher": np.ones((2, 5)), "distilled": [0, 1]}, [0, 1], before="teacher")
    with pytest.raises(ValueError, match="class 1 occurs and 1 classes have names"):
        class_changes(said, [0, 1], ["a"], before="teacher")
    with pytest.raises(ValueError, match="there are none"):
        class_table([])
