"""Rows and their augmented copies, whatever the workers, the order, the padding and the user's own collator."""

import pickle

import numpy as np
import pytest
import tiny
import torch
from torch.utils.data import DataLoader
from transformers import DataCollatorWithPadding, DefaultDataCollator, default_data_collator

from hf_distill.augmentation import AugmentingCollator, Crop, Mask, Mix

PADDING = DataCollatorWithPadding(tiny.tokenizer())
BOTH = [Crop(0.4), Mask(0.3)]


def collator(augmentations=BOTH, copies=1, own=PADDING, seed=0, epoch=0, **parts):
    made = AugmentingCollator(own, augmentations, copies, seed=seed, tokenizer=tiny.tokenizer(), **parts)
    made.epoch = epoch
    return made


def texts(batch):
    """The rows of a batch without their padding."""
    pairs = zip(batch["input_ids"].tolist(), batch["attention_mask"].tolist(), strict=True)
    return [tuple(one for one, there in zip(ids, mask, strict=True) if there) for ids, mask in pairs]


def wrapped(n=8):
    return [
        {"input_ids": [2, *row["input_ids"], 3], "attention_mask": [1, 1, *row["attention_mask"]], "labels": 1}
        for row in tiny.rows(n)
    ]


def test_the_rows_come_first_as_they_are_then_copies_without_a_label():
    rows = wrapped()
    batch = collator(copies=2)(rows)
    found = texts(batch)
    assert found[:8] == [tuple(row["input_ids"]) for row in rows]
    assert batch["labels"].tolist() == [1] * 8 + [-100] * 16
    assert len(found) == 24
    assert len(set(found[8:16]) & set(found[16:])) < 4  # the second copy is another one
    assert batch["attention_mask"].sum(1).tolist() == [len(row) for row in found]
    assert rows == wrapped()  # nothing of the data set was changed


def test_chance_hangs_on_seed_epoch_and_content_not_on_order_or_company():
    rows = wrapped()
    whole = texts(collator()(rows))[8:]
    backwards = texts(collator()(rows[::-1]))[8:]
    halves = [text for half in (rows[:4], rows[4:]) for text in texts(collator()(half))[4:]]
    assert whole == backwards[::-1] == halves == texts(collator()(rows))[8:]
    assert texts(collator(epoch=1)(rows))[8:] != whole
    assert texts(collator(seed=1)(rows))[8:] != whole


def test_a_mixed_rows_partner_hangs_on_the_rows_of_the_micro_batch_not_on_their_order():
    rows = wrapped()
    whole = texts(collator([Mix()])(rows))[8:]
    assert texts(collator([Mix()])(rows[::-1]))[8:] == whole[::-1]
    assert texts(collator([Mix()])(rows + rows))[16:] == whole + whole  # a text twice is no other text
    assert whole != texts(collator([Mix()])(rows[:4]))[4:] + texts(collator([Mix()])(rows[4:]))[4:]
    assert texts(collator([Mix()])(rows[:1])) == [tuple(rows[0]["input_ids"])] * 2


def test_workers_make_the_same_batches():
    rows, found = wrapped(), []
    for workers in (0, 2):
        made = collator([*BOTH, Mix()])
        loader = DataLoader(rows, batch_size=3, collate_fn=made, num_workers=workers)
        epochs = []
        for made.epoch in range(2):
            epochs.append([text for batch in loader for text in texts(batch)])
        assert epochs[0] != epochs[1]
        found.append(epochs)
    assert found[0] == found[1]
    sent = pickle.loads(pickle.dumps(made))  # as to a worker that is spawned and not forked
    assert [text for at in range(0, 8, 3) for text in texts(sent(rows[at : at + 3]))] == found[0][1]


def test_no_random_state_but_its_own_is_touched():
    torch.manual_seed(1)
    np.random.seed(1)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    collator([*BOTH, Mix()], copies=3)(wrapped())
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])


@pytest.mark.parametrize("side", ["right", "left"])
def test_padding_is_never_masked_or_cropped_and_stays_on_its_side(side):
    def padded(row, width=12):
        fill = width - len(row["input_ids"])
        made = {"input_ids": [0] * fill, "attention_mask": [0] * fill, "token_type_ids": [0] * fill}
        types = [1] * len(row["input_ids"])
        own = {**row, "token_type_ids": types}
        return {
            name: [*own[name], *filling] if side == "right" else [*filling, *own[name]]
            for name, filling in made.items()
        } | {"labels": row["labels"]}

    rows = [padded(row) for row in wrapped()]
    batch = collator(BOTH, own=default_data_collator)(rows)
    assert batch["input_ids"].shape == (16, 12)  # nobody pads again
    assert texts(batch) == texts(collator()(wrapped()))  # padding is no part of a row
    mask = batch["attention_mask"].bool()
    assert not batch["input_ids"][~mask].any()
    assert torch.equal(mask, batch["token_type_ids"].bool())
    ends = mask[:, 0] if side == "right" else mask[:, -1]
    assert ends.all()
    assert {text[0] for text in texts(batch)} == {2}
    assert {text[-1] for text in texts(batch)} == {3}


@pytest.mark.parametrize("own", [default_data_collator, DefaultDataCollator()])
def test_a_collator_that_cannot_pad_is_given_rows_as_long_as_they_were(own):
    rows = [{"input_ids": [2, 7, 8, 9, 10, 3], "attention_mask": [1] * 6, "labels": i % 2} for i in range(4)]
    batch = collator([Crop(0.2)], own=own)(rows)
    assert batch["input_ids"].shape == (8, 6)
    assert batch["attention_mask"].sum(1).min() < 6


@pytest.mark.parametrize("kind", [torch.tensor, np.array])
def test_tensors_and_arrays_stay_what_they_are(kind):
    rows = [{"input_ids": kind([2, 7, 8, 9, 3]), "attention_mask": kind([1] * 5), "label": 1} for _ in range(2)]
    batch = collator([Mask(0.5)], own=default_data_collator)(rows)
    expected = default_data_collator(rows)
    for name, values in expected.items():
        assert torch.equal(batch[name][:2], values), name
        assert batch[name].dtype == values.dtype
    assert batch["labels"][2:].tolist() == [-100, -100]


def test_rows_without_a_mask_segments_or_labels_are_given_none():
    rows = [{"input_ids": [2, 7, 8, 9, 3], "source": 1}]
    made = collator([Mask(1.0)], own=lambda rows: rows)(rows)
    assert made == [*rows, {"input_ids": [2, 4, 4, 4, 3], "source": 1}]


@pytest.mark.parametrize("row", [[2, 3], [2], [7], [2, 7, 3]])
def test_the_shortest_rows(row):
    made = collator([Crop(0.5), Mix(), Mask(0.5)], copies=5, own=lambda rows: rows)([{"input_ids": row}])
    for one in made:
        assert len(one["input_ids"]) == len(row)
        assert [a for a in one["input_ids"] if a != 4] == [a for a in row if a in one["input_ids"]]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"pixel_values": [1.0]}, r"changes the tokens of a row, the rows have \['pixel_values'\]"),
        ([1, 2, 3], "the rows have a list"),
        ({"input_ids": [2, 3], "teacher_input_ids": [4]}, "teacher_input_ids are the teacher's own of the same text"),
        ({"input_ids": [2, 7, 3], "position_ids": [0, 1, 2]}, "column 'position_ids' has an entry for each token"),
    ],
)
def test_rows_that_cannot_be_augmented_are_refused_in_a_sentence(row, message):
    with pytest.raises(ValueError, match=message) as caught:
        collator()([row])
    assert "\n" not in str(caught.value)


def test_nothing_to_do_and_a_tokenizer_that_cannot_mask_are_refused():
    with pytest.raises(ValueError, match="0 augmentations and copies=1 were given"):
        collator([])
    with pytest.raises(ValueError, match="1 augmentations and copies=0 were given"):
        collator([Mix()], copies=0)
    tokenizer = tiny.tokenizer()
    tokenizer.mask_token = tokenizer.unk_token = None
    with pytest.raises(ValueError, match="mask hides tokens, the tokenizer has no mask token and no unknown token"):
        AugmentingCollator(PADDING, [Mask()], seed=0, tokenizer=tokenizer)
    AugmentingCollator(PADDING, [Crop(), Mix()], seed=0, tokenizer=tokenizer)
