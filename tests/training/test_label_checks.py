"""Labels that a student can be supervised with, and one sentence for all others."""

import datasets
import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset
from transformers import DataCollatorWithPadding, DefaultDataCollator, default_data_collator

from hf_distill import (
    CausalLM,
    MaskedLM,
    MultipleChoice,
    QuestionAnswering,
    Seq2SeqLM,
    SequenceClassification,
    TokenClassification,
)
from hf_distill.training.label_checks import Wanted, check_batch, check_labels, fault, wanted_of

SINGLE, MULTI, REGRESSION = "single_label_classification", "multi_label_classification", "regression"
ONE = SequenceClassification(3, SINGLE)
OPEN = SequenceClassification(3)
SOME = SequenceClassification(3, MULTI)
NUMBER = SequenceClassification(1)
NUMBERS = SequenceClassification(2, REGRESSION)
TOKENS = TokenClassification(3)
SPANS = QuestionAnswering()
PADDING = DataCollatorWithPadding(None)
NAN = float("nan")


def check(rows, task=OPEN, collator=default_data_collator, names=("labels",), **more):
    data = Dataset.from_dict(rows) if isinstance(rows, dict) else rows
    check_labels(data, names, collator, wanted_of(task), **more)


@pytest.mark.parametrize("column", ["labels", "label", "label_ids"])
@pytest.mark.parametrize("listed", [False, True])
def test_good_labels_pass_under_any_name(column, listed):
    rows = {column: [0, 1, 2, -100]}
    check([{column: one} for one in rows[column]] if listed else rows)


GOOD = [
    (ONE, [0, 2, -100]), (ONE, [[0], [2]]), (OPEN, [0, 2]), (OPEN, [[0.0, 1.0, 1.0], [-100.0, -100.0, -100.0]]),
    (SOME, [[0.0, 1.0, 0.5]]), (SOME, [[0, 1, 1]]), (SOME, [[True, False, True]]), (NUMBER, [0.5, NAN]),
    (NUMBER, [3, 7]), (NUMBER, [[0.5], [1.5]]), (NUMBERS, [[0.5, 1.5]]), (TOKENS, [[0, 2, -100], [1]]),
    (TOKENS, [[], [1]]), (CausalLM(), [[5, 99999, -100]]), (Seq2SeqLM(), [[5]]), (MaskedLM(), [[-100, 7]]),
    (MultipleChoice(), [3, -100]), (SPANS, [99, -100]),
]  # fmt: skip
WRONG = [
    (ONE, [0, 7], r"row 1 .* label 7, the student has 3 classes \(0 to 2, or -100 for no label\): correct the label"),
    (ONE, [0, -1], "row 1 .* label -1, the student has 3 classes"),
    (ONE, [[0], [7]], "row 1 .* label 7, the student has 3 classes"),
    (ONE, [True, False], r"row 0 .* the label True, which is no class number: make labels integers \(dataset.cast"),
    (ONE, ["good", "bad"], r"row 0 .* the label 'good', a text: number the classes \(dataset.class_encode_column"),
    (ONE, ["0", "1"], "row 0 .* the label '0', a text"),
    (ONE, [0.0, 1.0], "row 0 .* the label 0.0, which is no class number: make labels integers .* num_labels=1"),
    (OPEN, [0.0, 1.0], "row 0 .* the label 0.0, which is no class number"),
    (ONE, [0, None], "row 1 .* no label .None.: write -100, which is skipped, or leave the row out"),
    (OPEN, [None, None], "row 0 .* no label .None.: write -100"),
    (ONE, [[0, 2], [1, 1]], r"row 0 .* the labels \[0, 2\], the student is told one a row: give one number, or, for"),
    (ONE, [[0.0, 1.0, 1.0]], "row 0 .* the student is told one a row"),
    (ONE, [[1], []], r"row 1 .* the labels \[\], the student is told one a row"),
    (OPEN, [[0.0, 1.0]], r"row 0 .* the labels \[0.0, 1.0\], the student is told one a row"),
    (OPEN, [[0, 1, 1]], r"row 0 .* the labels \[0, 1, 1\]: make them floats for several classes a row, or one"),
    (OPEN, [[True, False, True]], "row 0 .* make them floats for several classes a row"),
    (OPEN, [[1.0]], "row 0 .* the label 1.0, which is no class number"),
    (SOME, [1, 2], "row 0 .* the label 1, the student has 3 outputs with a number each: give every row a list"),
    (SOME, [[0.0, 1.0, 1.0], [1.0]], r"row 1 .* the labels \[1.0\], the student has 3 outputs"),
    (SOME, [["a", "b", "c"]], "row 0 .* the label 'a', a text: make it a number"),
    (SOME, [[0.0, None, 1.0]], "row 0 .* no label .None.: write -100"),
    (NUMBER, ["3.5"], "row 0 .* the label '3.5', a text: make it a number"),
    (NUMBER, [0.5, None], "row 1 .* no label .None.: write NaN, which is skipped"),
    (NUMBER, [[0.5, 1.5]], "row 0 .* the student is told one a row"),
    (NUMBERS, [0.5], "row 0 .* the student has 2 outputs with a number each"),
    (TOKENS, [0, 1], "row 0 .* the label 0, TokenClassification takes one for each token: give a list, with -100 for"),
    (TOKENS, [[0, 1], [2, 3]], "row 1 .* label 3, the student has 3 classes"),
    (TOKENS, [["O", "B-PER"]], "row 0 .* the label 'O', a text"),
    (TOKENS, [[0, 1], [0, None]], "row 1 .* no label .None.: write -100"),
    (TOKENS, [[0, 1], None], "row 1 .* no label .None."),
    (TOKENS, [[0.0, 1.0]], "row 0 .* the label 0.0, which is no class number"),
    (TOKENS, [[True]], "row 0 .* the label True"),
    (CausalLM(), [["a"]], "row 0 .* the label 'a', a text"),
    (CausalLM(), [5], "row 0 .* CausalLM takes one for each token"),
    (MultipleChoice(), ["a"], "row 0 .* the label 'a'"),
    (SPANS, [None], "row 0 .* no label .None."),
]  # fmt: skip


@pytest.mark.parametrize(("task", "labels"), GOOD)
@pytest.mark.parametrize("listed", [False, True])
def test_what_a_task_takes_passes(task, labels, listed):
    names = task.label_names
    check([dict.fromkeys(names, one) for one in labels] if listed else dict.fromkeys(names, labels), task, names=names)


@pytest.mark.parametrize(("task", "labels", "told"), WRONG)
@pytest.mark.parametrize("listed", [False, True])
def test_what_it_does_not_take_is_one_sentence_that_names_the_row(task, labels, told, listed):
    names = task.label_names
    rows = [dict.fromkeys(names, one) for one in labels] if listed else dict.fromkeys(names, labels)
    with pytest.raises(ValueError, match=told) as raised:
        check(rows, task, names=names)
    assert str(raised.value).startswith("row ")
    assert " of the training set has " in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ([0, "bad"], "row 1 .* the label 'bad'"), ([1, 0.5], "row 1 .* the label 0.5"),
        ([0, [1, 2]], "row 1 .* the labels"), ([0, {"a": 1}], "row 1 .* as label, which is no number"),
        ([np.int64(0), np.int64(3)], "row 1 .* label 3"),
        ([torch.tensor(0), torch.tensor(5)], "row 1 .* label 5"), ([0, np.True_], "row 1 .* the label True"),
    ],
)  # fmt: skip
def test_a_list_may_mix_what_a_column_cannot(labels, told):
    with pytest.raises(ValueError, match=told):
        check([{"labels": one} for one in labels])


def test_numbers_of_torch_and_numpy_are_numbers():
    check([{"labels": one} for one in (np.int64(2), torch.tensor(1), np.int32(-100))])
    check([{"labels": one} for one in (np.array([0, 2]), torch.tensor([1]))], TOKENS)


def test_the_second_column_of_labels_is_looked_at_too():
    with pytest.raises(ValueError, match=r"row 0 .* no label"):
        check({"start_positions": [1], "end_positions": [None]}, SPANS, names=SPANS.label_names)


def test_the_default_collators_make_numbers_of_bools_under_one_name_only():
    for collator in (default_data_collator, DefaultDataCollator()):
        check({"label": [True, False]}, collator=collator)
        with pytest.raises(ValueError, match="the label True"):
            check({"labels": [True, False]}, collator=collator)
    with pytest.raises(ValueError, match="the label True"):
        check({"label": [True, False]}, collator=PADDING)


def test_missing_numbers_are_nan_where_the_data_set_makes_them_so():
    data = Dataset.from_dict({"labels": [0.5, None]})
    check(data.with_format("torch"), NUMBER)
    check(data.with_format("numpy"), NUMBER)
    with pytest.raises(ValueError, match="write NaN"):
        check(data, NUMBER)


def test_a_users_collator_may_make_the_labels():
    check({"text": ["a"]}, collator=lambda rows: rows)
    check({"labels": ["good"]}, collator=lambda rows: rows)
    check([{"labels": "good"}, {"labels": 9}], collator=lambda rows: rows)
    with pytest.raises(ValueError, match="row 0 of the training set has label 9"):
        check({"labels": [9]}, collator=lambda rows: rows)
    with pytest.raises(ValueError, match=r"has the columns \['text'\]: add a 'label' column, or set alpha=1"):
        check({"text": ["a"]})
    check({"text": ["a"]}, needed=False)


def test_a_loss_or_a_task_of_the_users_own_may_take_other_labels():
    class Mine(SequenceClassification):
        pass

    data = Dataset.from_dict({"labels": [[0.2, 0.8, 0.0, 0.0]]})
    for wanted in (
        wanted_of(ONE, own_loss=True),
        wanted_of(Mine(3)),
        wanted_of(SequenceClassification(3, own_loss=True)),
    ):
        check_labels(data, ["labels"], default_data_collator, wanted)
        check_batch({"labels": torch.tensor([[0.2]])}, ["labels"], wanted)
        with pytest.raises(ValueError, match="label 7, the student has 3 classes"):
            check_labels(Dataset.from_dict({"labels": [7]}), ["labels"], default_data_collator, wanted)


def test_class_labels_and_formats_are_read():
    data = Dataset.from_dict({"label": [0, 4]}).cast_column("label", ClassLabel(num_classes=5)).with_format("torch")
    with pytest.raises(ValueError, match="label 4"):
        check(data)
    chosen = Dataset.from_dict({"label": [9, 0, 7]}).select([1, 2])
    with pytest.raises(ValueError, match="row 1 of the training set has label 7"):
        check(chosen)


def test_other_data_sets_are_left_to_their_batches():
    check(np.zeros(3))
    check([])
    check([(1, 2)])
    check(datasets.IterableDataset.from_generator(lambda: iter([{"labels": 99}])))


def test_a_data_set_is_named():
    with pytest.raises(ValueError, match="row 0 of the evaluation set 'b' has label 9"):
        check({"labels": [9]}, which="the evaluation set 'b'")


def test_only_what_is_wrong_is_cut_short():
    assert len(fault(["x" * 500], wanted_of(ONE))) < 300


# ---- Batches ----


@pytest.mark.parametrize(
    ("task", "labels"),
    [
        (ONE, [0, 2, -100]), (ONE, [[0], [2]]), (OPEN, [1]), (OPEN, [[0.0, 1.0, 1.0]]), (SOME, [[0, 1, 1]]),
        (SOME, [[True, False, True]]), (NUMBER, [0.5, NAN]), (NUMBER, [3]), (NUMBERS, [[0.5, 1.0]]),
        (TOKENS, [[0, -100]]), (CausalLM(), [[7, -100]]),
        (TOKENS, [0]),  # of which the task says itself that it is no [B, T]
        (OPEN, [[0, 1, 1]]),  # and that it is no float
    ],
)  # fmt: skip
def test_a_batch_that_a_task_takes_passes(task, labels):
    check_batch({"labels": torch.tensor(labels)}, ["labels"], wanted_of(task))
    check_batch({}, ["labels"], wanted_of(task))


@pytest.mark.parametrize(
    ("task", "labels", "told"),
    [
        (ONE, [0, 9], "row 1 of the batch has label 9, the student has 3 cl"), (ONE, [0, -1], "row 1 .* label -1"),
        (ONE, [True, False], "row 0 of the batch has the label True"), (OPEN, [0.0, 1.0], "row 0 .* the label 0.0"),
        (OPEN, [[1.0]], "row 0 .* the label 1.0"), (ONE, [[0, 1]], r"row 0 .* the labels \[0, 1\], the student is"),
        (SOME, [1], "row 0 .* the label 1, the student has 3 outputs"), (NUMBER, [[0.5, 1.0]], "row 0 .* the labels"),
        (TOKENS, [[0, 1], [2, 7]], "row 1 .* label 7"), (TOKENS, [[0.0]], "row 0 .* the label 0.0"),
        (CausalLM(), [[0.0]], "row 0 .* the label 0.0"),
    ],
)  # fmt: skip
def test_a_batch_that_it_does_not_take_is_one_sentence(task, labels, told):
    with pytest.raises(ValueError, match=told):
        check_batch({"labels": torch.tensor(labels)}, ["labels"], wanted_of(task))


def test_labels_that_a_collator_left_as_they_were():
    with pytest.raises(ValueError, match="row 0 of the batch has the label 'good', a text"):
        check_batch({"labels": ["good", "bad"]}, ["labels"], wanted_of(ONE))


def test_the_choices_are_those_of_the_batch():
    batch = {"input_ids": torch.ones(2, 4, 5), "labels": torch.tensor([3, 4])}
    with pytest.raises(
        ValueError, match=r"row 1 .* label 4, there are 4 texts \(0 to 3, or -100 for no label\): correct"
    ):
        check_batch(batch, ["labels"], wanted_of(MultipleChoice()))
    check_batch({**batch, "labels": torch.tensor([3, -100])}, ["labels"], wanted_of(MultipleChoice()))


def test_numbers_of_numpy_and_torch_are_numbers():
    each = Wanted("TokenClassification", each=True, classes=3)
    assert fault(list(torch.tensor([0, 2, -100])), each) == ""
    assert fault(list(np.array([0, 3])), each).startswith("label 3, the student has 3 classes")
