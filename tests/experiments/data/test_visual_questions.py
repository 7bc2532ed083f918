"""Questions about pictures of digits, their answers, and those that a student is not told."""

import numpy as np
import pytest
from datasets import Dataset, DatasetDict, Value

from hf_distill.experiments.data import visual_questions
from hf_distill.experiments.data.few_labels import everything
from hf_distill.experiments.data.visual_questions import (
    CELL,
    VisualQuestionArguments,
    load_visual_questions,
    questions_about_digits,
)

FEW = {"train": 150, "validation": 20, "test": 20}


@pytest.fixture(scope="module")
def drawn():
    return questions_about_digits(seed=3, counts=FEW)


@pytest.fixture(scope="module")
def pools():
    found = visual_questions._pools()
    assert {name: len(rows) for name, rows in found.items()} == {"train": 1150, "validation": 197, "test": 450}
    return {name: (np.stack([i for i, _ in rows]), [one for _, one in rows]) for name, rows in found.items()}


def read(image, pool):
    """What is in each cell, by the digit of a pool that is nearest: (row, column) -> digit, and how far it is."""
    pixels, (shapes, labels) = np.asarray(image) / 255, pool
    found, worst = {}, 0.0
    for place in np.ndindex(2, 2):
        top, left = (CELL * one for one in place)
        cell = (pixels[top : top + CELL, left : left + CELL] - visual_questions.PAPER) / visual_questions.CONTRAST
        if cell.max() < 0.5:
            continue
        far = ((shapes - cell) ** 2).mean(axis=(1, 2))
        found[place], worst = labels[far.argmin()], max(worst, far.min())
    return found, worst


@pytest.mark.parametrize("split", FEW)
def test_each_answer_is_what_is_on_the_picture_and_digits_are_those_of_the_split(drawn, pools, split):
    places = {f"{r} {c}": (i, j) for i, r in enumerate(("top", "bottom")) for j, c in enumerate(("left", "right"))}

    def right(kind, words, seen):
        if kind == "which":
            return str(seen[places[" ".join(words[3:5])]])
        if kind == "there":
            return "yes" if int(words[3]) in seen.values() else "no"
        return str({"count": len(seen), "largest": max(seen.values()), "sum": sum(seen.values())}[kind])

    for row in drawn[split]:
        seen, far = read(row["image"], pools[split])
        assert far < 0.02
        assert row["answer"] == right(row["kind"], row["question"].split(), seen)


def test_digits_of_the_test_are_on_no_training_picture(drawn, pools):
    strangers = [read(row["image"], pools["train"])[1] for row in drawn["test"]]
    assert np.mean([far > 0.005 for far in strangers]) > 0.9
    assert {len(read(row["image"], pools["train"])[0]) for row in drawn["train"]} == {2, 3, 4}


def test_the_seed_draws_the_pictures(drawn):
    again, other = (questions_about_digits(seed=seed, counts={**FEW, "train": 20})["train"] for seed in (3, 4))
    assert again["question"][:] == drawn["train"]["question"][:20]
    assert again[7]["image"].tobytes() == drawn["train"][7]["image"].tobytes()
    assert other["answer"][:] != again["answer"][:]


def load(**asked):
    return load_visual_questions(VisualQuestionArguments(**asked), seed=1)


def test_answers_are_hidden_and_a_teacher_knows_them():
    splits = load(max_train_samples=30, max_eval_samples=5, labeled_samples=10)
    assert {name: len(rows) for name, rows in splits.items()} == {
        "train": 10, "validation": 5, "test": 5, "unlabeled": 20,
    }  # fmt: skip
    taught, known = everything(splits, "answer")
    assert sum(one is None for one in taught["answer"]) == 20
    assert None not in known["answer"][:]
    assert known["answer"][10:] == splits["unlabeled"]["hidden_answer"][:]
    assert taught["question"][:] == known["question"][:]
    whole = load(max_train_samples=30, max_eval_samples=5)
    assert everything(whole, "answer") == (whole["train"], whole["train"])
    answers = dict(zip(zip(whole["train"]["question"], map(str, whole["train"]["image"]), strict=True),
                       whole["train"]["answer"], strict=True))  # fmt: skip
    assert all(answers[row["question"], str(row["image"])] == row["answer"] for row in known)


def test_rows_without_an_answer_are_taught_in_training_and_left_out_of_the_test(monkeypatch):
    rows = questions_about_digits(counts={"train": 6, "validation": 4, "test": 1})
    lists = {
        "train": [["a", "b"], [], None, [" c "], ["d"], [""]],
        "validation": [["a"], None, ["b"], ["c"]],
        "test": [["x"]],
    }
    made = {
        name: rows[name].remove_columns("answer").add_column("answer", told, feature=[Value("string")])
        for name, told in lists.items()
    }
    monkeypatch.setattr(visual_questions, "questions_about_digits", lambda *_: DatasetDict(made))
    splits = load()
    assert splits["train"]["answer"][:] == ["a", "c", "d"]
    assert splits["unlabeled"]["answer"][:] == [None] * 3
    assert splits["validation"]["answer"][:] == ["a", "b", "c"]
    taught, known = everything(splits, "answer")
    assert (len(taught), len(known)) == (6, 3)


def test_a_number_is_an_answer_also_nought(monkeypatch):
    rows = questions_about_digits(counts={"train": 3, "validation": 1, "test": 1})
    made = {n: one.remove_columns("answer").add_column("answer", [0, 1, 2][: len(one)]) for n, one in rows.items()}
    monkeypatch.setattr(visual_questions, "questions_about_digits", lambda *_: DatasetDict(made))
    assert load()["train"]["answer"][:] == ["0", "1", "2"]


@pytest.mark.parametrize("asked", [0, 30])
def test_as_many_answers_as_there_are_is_no_few(asked):
    with pytest.raises(ValueError, match=f"labeled_samples={asked} was given for 30 training questions"):
        load(max_train_samples=30, max_eval_samples=5, labeled_samples=asked)


def test_a_row_whose_path_is_missing_is_named(monkeypatch):
    told = {name: ["1", "2"] for name in ("question", "answer", "kind")}
    rows = Dataset.from_dict({"image": ["a.png", None], **told})
    monkeypatch.setattr(visual_questions, "questions_about_digits", lambda *_: DatasetDict({"train": rows}))
    with pytest.raises(ValueError, match=r"row 0 of the train rows of .* names the image a\.png, there is no such"):
        load()
