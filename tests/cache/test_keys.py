import pytest
import torch

from hf_distill.cache.keys import NEITHER, Padding, keys_of, rows_in
from hf_distill.tasks.batches import join, take

BOTH = Padding(right=True, left=True)


def batch(ids, mask=None, **more):
    made = {"input_ids": torch.tensor(ids), **more}
    return made if mask is None else {**made, "attention_mask": torch.tensor(mask)}


ALONE = keys_of(batch([[5, 6, 7]]))[0]


@pytest.mark.parametrize(
    ("ids", "mask", "padding"),
    [
        ([[5, 6, 7, 0, 0]], [[1, 1, 1, 0, 0]], Padding(right=True)),
        ([[0, 0, 5, 6, 7]], [[0, 0, 1, 1, 1]], Padding(left=True)),
        ([[0, 5, 6, 7, 9]], [[0, 1, 1, 1, 0]], BOTH),  # what stands under the padding does not matter
        ([[5, 6, 7]], [[1, 1, 1]], NEITHER),
        ([[5, 6, 7]], [[1, 1, 1]], BOTH),
        ([[5, 6, 7]], [[True, True, True]], NEITHER),
    ],
)
def test_the_same_row_under_padding_that_is_ignored(ids, mask, padding):
    assert keys_of(batch(ids, mask), padding) == [ALONE]


@pytest.mark.parametrize(
    ("ids", "mask", "padding"),
    [
        ([[5, 6, 7, 0]], [[1, 1, 1, 0]], NEITHER),
        ([[5, 6, 7, 0]], [[1, 1, 1, 0]], Padding(left=True)),
        ([[0, 5, 6, 7]], [[0, 1, 1, 1]], Padding(right=True)),
        ([[5, 6, 7, 0]], None, BOTH),  # nobody said that it is padding: the model attends to it
        ([[5, 9, 6, 7]], [[1, 0, 1, 1]], BOTH),  # a hole
        ([[7, 6, 5]], None, BOTH),
        ([[5, 6]], None, BOTH),
    ],
)
def test_another_row(ids, mask, padding):
    assert keys_of(batch(ids, mask), padding) != [ALONE]


def test_types_shapes_and_names_count_as_the_model_sees_them():
    ids = torch.tensor([[5, 6, 7]])
    assert keys_of({"input_ids": ids.int()}) == [ALONE]
    assert keys_of({"other": ids}) != [ALONE]
    assert keys_of({"input_ids": ids.view(1, 3, 1)}) != [ALONE]
    assert keys_of({"input_ids": ids.float()}) != [ALONE]
    assert keys_of({"input_ids": ids.double()}) != keys_of({"input_ids": ids.float()})
    floats = torch.randn(2, 3, 4)
    assert len(set(keys_of({"pixel_values": floats}) + keys_of({"pixel_values": floats.bfloat16()}))) == 4
    assert keys_of({"a": ids, "b": ids}) == keys_of({"b": ids, "a": ids})
    assert keys_of({"input_ids": ids, "token_type_ids": torch.zeros(1, 3)}) != [ALONE]


def test_every_row_has_its_key_wherever_it_stands():
    ids, mask = (
        torch.randint(5, 99, (6, 9)),
        torch.arange(9).expand(6, 9) < torch.tensor([[9], [3], [5], [1], [7], [4]]),
    )
    ids = ids * mask
    keys = keys_of({"input_ids": ids, "attention_mask": mask.long()}, BOTH)
    assert len(set(keys)) == 6
    for row in range(6):
        length = int(mask[row].sum())
        assert keys_of(batch(ids[row : row + 1, :length].tolist()), BOTH) == [keys[row]]
    order = [3, 0, 5, 1, 2, 4]
    assert keys_of(take({"input_ids": ids, "attention_mask": mask.long()}, order), BOTH) == [keys[i] for i in order]


def test_a_row_of_nothing_but_padding_is_a_row():
    keys = keys_of(batch([[0, 0], [5, 0]], [[0, 0], [1, 0]]), BOTH)
    assert len(set(keys)) == 2


def test_features_along_another_axis_keep_their_mask():
    """A mask without its features cut would make two rows one: [B, 80, T] is left whole, with its mask."""
    features = torch.randn(1, 8, 5)
    one, two = ({"input_features": features, "attention_mask": torch.tensor([m])} for m in ([1, 1, 1, 0, 0], [1] * 5))
    assert keys_of(one, BOTH) != keys_of(two, BOTH)


def test_the_decoders_positions_are_not_the_encoders():
    ids, mask = torch.tensor([[5, 6, 0]]), torch.tensor([[1, 1, 0]])
    labels = torch.tensor([[7, 8, 9]])  # as long as the ids by chance: must not be cut with them
    full = keys_of({"input_ids": ids, "attention_mask": mask, "labels": labels}, BOTH, labels != -100)
    longer = torch.tensor([[7, 8, 9, -100]])
    assert keys_of({"input_ids": ids, "attention_mask": mask, "labels": longer}, BOTH, longer != -100) == full
    other = torch.tensor([[7, 8, -100]])
    assert keys_of({"input_ids": ids, "attention_mask": mask, "labels": other}, BOTH, other != -100) != full


@pytest.mark.parametrize(
    ("inputs", "told"),
    [
        ({}, "no column that the teacher reads"),
        ({"input_ids": torch.ones(2, 3), "text": ["a", "b"]}, "'text' is a list without rows"),
        ({"input_ids": torch.ones(2, 3), "pixel_values": torch.ones(9, 4)}, "'pixel_values' has 9 entries for 2 rows"),
        ({"input_ids": torch.ones(1, 4), "position_ids": torch.tensor([[0, 1, 0, 1]])}, "packed into one row"),
    ],
)
def test_a_batch_without_rows_is_named(inputs, told):
    with pytest.raises(ValueError, match=told):
        rows_in(inputs)


def test_batches_are_joined_under_ignored_padding():
    one = {"input_ids": torch.tensor([[1, 2]]), "attention_mask": torch.ones(1, 2), "labels": torch.tensor([[1, 2]])}
    two = {"input_ids": torch.tensor([[3]]), "attention_mask": torch.ones(1, 1), "labels": torch.tensor([[3]])}
    both = join([two, one])
    assert both["input_ids"].tolist() == [[3, 0], [1, 2]]
    assert both["attention_mask"].tolist() == [[1, 0], [1, 1]]
    assert both["labels"].tolist() == [[3, -100], [1, 2]]
    keys = [keys_of({n: v for n, v in rows.items() if n != "labels"}, BOTH) for rows in (both, two, one)]
    assert keys[0] == keys[1] + keys[2]
