import pytest
import tiny
import torch
from datasets import Dataset
from transformers import DataCollatorWithPadding

from hf_distill import CachedTeacher, LiveTeacher, SequenceClassification
from hf_distill.cache.prefill import batches, fill

COLLATOR = DataCollatorWithPadding(tiny.tokenizer())


def cached(folder=None):
    task = SequenceClassification(num_labels=3, problem_type=tiny.SINGLE)
    teacher = CachedTeacher(LiveTeacher(tiny.teacher().eval(), task), folder)
    teacher.memory.meet({"teacher": "tiny", "precision": "float32"}, positions=False)
    return teacher


@pytest.mark.parametrize("tokens", [1, 7, 40, 10**6])
def test_a_batch_holds_no_more_tokens_than_it_may(tokens):
    lengths = [9, 9, 8, 5, 5, 5, 2, 1, 1]
    made = list(batches(range(9), lengths, tokens))
    assert [index for some in made for index in some] == list(range(9))
    assert all(len(some) == 1 or len(some) * lengths[some[0]] <= tokens for some in made)
    assert len(made) == {1: 9, 7: 7, 40: 2, 10**6: 1}[tokens]


@pytest.mark.parametrize("kind", [list, Dataset.from_list])
def test_every_row_is_asked_for_once(kind):
    rows = [
        {name: value for name, value in row.items() if name != "labels"} for row in [*tiny.rows(30), *tiny.rows(5)]
    ]
    teacher = cached()
    assert fill(teacher, kind(rows), COLLATOR, tokens=40) == 30
    assert len(teacher.memory) == 30
    assert fill(teacher, kind(rows), COLLATOR, tokens=40) == 0
    assert not teacher.always


def test_ranks_cover_all_rows_whatever_one_of_them_has_seen_already(tmp_path):
    """A rank may list the folder after another one has written to it: the parts must not depend on that."""
    rows = tiny.rows(40)
    asked = []
    for rank in range(3):  # one after the other, so each finds what the earlier ones wrote
        teacher = cached(tmp_path)
        teacher.memory.store.rank = rank
        asked.append(fill(teacher, rows, COLLATOR, tokens=40, rank=rank, ranks=3))
    assert sum(asked) == 40
    assert all(asked)
    assert len(cached(tmp_path).memory) == 40


def test_a_teacher_whose_answers_cannot_be_kept_is_refused():
    teacher = cached()
    rows = [{"input_ids": [5, 6, 5, 6], "position_ids": [0, 1, 0, 1]}]
    with pytest.raises(ValueError, match="cannot be kept: several texts are packed into one row"):
        fill(teacher, rows, lambda some: {name: torch.tensor([row[name] for row in some]) for name in some[0]})
