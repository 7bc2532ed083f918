"""What a run's data sets must hold, looked at when the trainer is made; where that cannot be, in the first batch."""

import random

import numpy as np
import pytest
import tiny
import torch
from datasets import Dataset, IterableDataset


def rows(*label, at=5, n=8):
    made = [dict(row) for row in tiny.rows(n)]
    if label:
        (made[at]["labels"],) = label
    return made


def made(folder, data=None, **parts):
    return tiny.trainer(folder, data=data if data is not None else rows(), teacher_model=tiny.teacher(), **parts)


@pytest.mark.parametrize("label", [3, "good", True, None, 1.0])
def test_a_wrong_label_in_a_list_is_found_before_the_first_step(tmp_path, label):
    with pytest.raises(ValueError, match=r"row 5 of the training set has (the |no )?label"):
        made(tmp_path, rows(label))


@pytest.mark.parametrize("kind", [list, Dataset.from_list])
@pytest.mark.parametrize("label", [3, -1])
def test_and_in_an_evaluation_set_or_one_of_several(tmp_path, kind, label):
    bad = kind(rows(label))
    with pytest.raises(ValueError, match=f"row 5 of the evaluation set has label {label}, the student has 3 classes"):
        made(tmp_path, eval_dataset=bad)
    with pytest.raises(ValueError, match=f"row 5 of the evaluation set 'b' has label {label}"):
        made(tmp_path, eval_dataset={"a": kind(rows()), "b": bad})


def test_an_evaluation_set_needs_no_labels_and_with_the_teacher_alone_none_are_looked_at(tmp_path):
    without = Dataset.from_list(rows()).remove_columns("labels")
    assert made(tmp_path, eval_dataset=without).predict(without).predictions.shape == (8, 3)
    made(tmp_path, rows("good"), args={"alpha": 1.0})
    made(tmp_path, eval_dataset=rows(9), args={"alpha": 1.0})


def stream(some):
    def give():
        yield from some

    return IterableDataset.from_generator(give)


class Plain(torch.utils.data.Dataset):
    def __init__(self, some):
        self.rows = some

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return self.rows[index]


def transformed(some):
    """The table holds no labels that could be read: the transform makes them."""
    labels = [row["labels"] for row in some]
    data = Dataset.from_list([{k: v for k, v in row.items() if k != "labels"} for row in some])
    data = data.add_column("labels", [8] * len(some)).add_column("label_ids", range(len(some)))

    def read(batch):
        return {
            **{n: batch[n] for n in ("input_ids", "attention_mask")},
            "labels": [labels[i] for i in batch["label_ids"]],
        }

    return data.with_transform(read)


@pytest.mark.parametrize("kind", [stream, Plain, transformed])
@pytest.mark.parametrize("label", [3, -1])
def test_what_only_a_batch_shows_is_a_sentence_too(tmp_path, kind, label):
    run = made(tmp_path, kind(rows(label)), args={"max_steps": 2})
    with pytest.raises(ValueError, match=f"row . of the batch has label {label}, the student has 3 classes"):
        run.train()
    assert run.state.global_step == 0
    run = made(tmp_path)
    with pytest.raises(ValueError, match=f"row 5 of the batch has label {label}"):
        run.evaluate(kind(rows(label)))


@pytest.mark.parametrize("label", ["good", None, True, 1.0])
def test_a_wrong_label_of_the_first_row_behind_a_transform_is_found_before_the_first_step(tmp_path, label):
    with pytest.raises(ValueError, match=r"row 0 of the training set has (the|no) label"):
        made(tmp_path, transformed(rows(label, at=0)))


def test_the_table_behind_a_transform_says_nothing_of_its_labels(tmp_path):
    assert made(tmp_path, transformed(rows()), args={"max_steps": 2}).train().global_step == 2


# ---- Transforms that read other columns ----


def texts(n=8):
    """Rows of words, which a transform tokenises when they are read."""
    words = [" ".join(f"w{i - 5}" for i in row["input_ids"][:3]) for row in tiny.rows(n)]
    return Dataset.from_dict({"text": words, "note": range(n), "label": [i % 3 for i in range(n)]})


def tokenise(batch):
    return {**tiny.tokenizer()(batch["text"]), "labels": batch["label"]}


@pytest.mark.parametrize("how", ["with_transform", "set_transform"])
def test_a_transform_whose_columns_would_be_taken_away_is_refused_in_a_sentence(tmp_path, how):
    data = texts()
    data = data.with_transform(tokenise) if how == "with_transform" else data.set_transform(tokenise) or data
    told = (
        r"^the transform of the {} reads columns that remove_unused_columns=True takes away before it \(text, note\): "
        r"set remove_unused_columns=False\.$"
    )
    with pytest.raises(ValueError, match=told.format("training set")):
        made(tmp_path, data)
    with pytest.raises(ValueError, match=told.format("evaluation set")):
        made(tmp_path, eval_dataset=data)
    with pytest.raises(ValueError, match=told.format("evaluation set 'b'")):
        made(tmp_path, eval_dataset={"a": tiny.rows(4), "b": data})
    run = made(tmp_path, data, eval_dataset=data, args={"remove_unused_columns": False, "max_steps": 2})
    assert run.train().global_step == 2
    assert run.evaluate()["eval_loss"] > 0


def test_so_is_one_whose_columns_are_all_taken_away_and_one_that_fails_in_its_own_way(tmp_path):
    data = texts().remove_columns(["label", "note"])
    with pytest.raises(ValueError, match=r"takes away before it \(text\): set remove_unused_columns=False"):
        made(tmp_path, data.with_transform(lambda batch: tiny.tokenizer()(batch["text"])), args={"alpha": 1.0})
    softly = texts().with_transform(lambda batch: tiny.tokenizer()(batch.get("text"), text_target=batch.get("text")))
    with pytest.raises(ValueError, match=r"takes away before it \(text, note\): set remove_unused_columns=False"):
        made(tmp_path, softly)


def test_a_transform_that_fails_by_itself_is_the_users_and_one_that_finds_its_columns_is_fine(tmp_path):
    def broken(batch):
        raise RuntimeError("my own fault")

    run = made(tmp_path, texts().with_transform(broken))
    with pytest.raises(RuntimeError, match="my own fault"):
        run.train()
    fine = Dataset.from_list([{**row, "note": 1} for row in tiny.rows()]).with_transform(lambda batch: batch)
    assert made(tmp_path, fine, args={"max_steps": 1}).train().global_step == 1
    made(tmp_path, Dataset.from_list(tiny.rows()), eval_dataset=texts().select([]).with_transform(tokenise))


def test_no_random_number_is_moved_by_the_look(tmp_path):
    def noisy(batch):
        drawn.append((random.random(), np.random.rand(), torch.rand(()).item()))
        return batch

    def states():
        return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()

    drawn, found = [], []
    for data in (Dataset.from_list(tiny.rows()), Dataset.from_list(tiny.rows()).with_transform(noisy)):
        made(tmp_path, data)
        found.append(states())
    assert len(drawn) == 1
    assert found[0] == found[1]
