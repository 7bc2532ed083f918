import datasets
import pytest

from hf_distill.tasks.lengths import length_of, lengths_of

ROWS = datasets.Dataset.from_dict({"input_ids": [[5, 6, 7], [8], [9, 9]]})


def test_rows_that_were_chosen_or_sorted_have_their_own_lengths():
    assert lengths_of(ROWS).tolist() == [3, 1, 2]
    assert lengths_of(ROWS.select([2, 0])).tolist() == [2, 3]
    assert lengths_of(ROWS.filter(lambda row: len(row["input_ids"]) > 1, load_from_cache_file=False)).tolist() == [
        3,
        2,
    ]


@pytest.mark.parametrize(
    "rows",
    [
        [{"input_ids": [5]}],
        datasets.Dataset.from_dict({"text": ["a"]}),
        datasets.Dataset.from_dict({"input_ids": [5]}),
        ROWS.select([]),
        ROWS.with_transform(lambda rows: rows),
        ROWS.add_column("position_ids", [[0, 0, 1], [0], [0, 1]]),
    ],
    ids=["list", "texts", "numbers", "empty", "transform", "packed"],
)
def test_who_does_not_say_is_not_asked(rows):
    assert lengths_of(rows) is None


def test_a_row_of_a_teachers_own_tokens_is_as_long_as_these():
    assert length_of({"teacher_input_ids": [1, 2]}) == 2
    assert length_of({"input_ids": []}) == 1
