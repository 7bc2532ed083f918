import pytest
import tiny
import torch
from tiny_image_text import IMAGE, batch, llava

from hf_distill import CachedTeacher, ImageTextToText, LiveTeacher
from hf_distill.cache.keys import keys_of
from hf_distill.tasks.batches import take
from hf_distill.tasks.pairing import check_images, owners_of, placeholders_of


def cached(folder, images):
    teacher = CachedTeacher(LiveTeacher(llava(1)), always=True)
    made = batch(images)
    rows = [
        {name: made[name][row] for name in ("input_ids", "attention_mask", "labels")} for row in range(len(images))
    ]
    tiny.trainer(folder, llava(0), data=rows, teacher_model=teacher)
    return teacher


def logits(teacher, asked):
    return teacher(asked, frozenset({"heads"})).heads["logits"].logits.tensor


def test_two_images_in_one_row_and_none_in_the_next_are_kept_each_with_its_own(tmp_path):
    teacher = cached(tmp_path, [2, 0])
    first, other = batch([2, 0], seed=0), batch([2, 0], seed=0)
    other["pixel_values"] = other["pixel_values"].clone()
    other["pixel_values"][1] = 0.0  # the second image of row 0 is another one, and row 1 has none
    shown = [logits(teacher, asked) for asked in (first, other, first)]
    assert (teacher.memory.off, len(teacher.memory)) == ("", 3)  # the row without an image was asked once
    live = LiveTeacher(llava(1), ImageTextToText(placeholders={"image": IMAGE}))
    for found, asked in zip(shown, (first, other, first), strict=True):
        torch.testing.assert_close(found, logits(live, asked))
    assert not torch.equal(shown[0][0], shown[1][0])


def test_one_image_in_each_row_is_kept(tmp_path):
    teacher, asked = cached(tmp_path, [1, 1]), batch([1, 1])
    first = logits(teacher, asked)
    assert len(teacher.memory) == 2
    torch.testing.assert_close(logits(teacher, asked), first, rtol=0, atol=0)


def test_a_row_without_an_image_is_the_same_beside_others_and_alone(tmp_path):
    teacher, asked = cached(tmp_path, [2, 0]), batch([2, 0])
    logits(teacher, asked)
    alone = {name: value[1:] for name, value in asked.items() if name != "pixel_values"}
    found = logits(teacher, alone)
    assert len(teacher.memory) == 2
    torch.testing.assert_close(found, logits(LiveTeacher(llava(1), teacher.task), alone))


def test_images_that_go_into_no_row_end_what_was_kept(tmp_path):
    teacher = cached(tmp_path, [1, 1])
    logits(teacher, batch([1, 1]))
    odd = batch([2, 1])
    odd["input_ids"][0, 0] = 5  # a place was cut off
    assert not teacher.check(odd, frozenset({"heads"}))
    assert "'pixel_values' has 3 entries for 2 rows with [7, 4] image tokens, which do not go" in teacher.memory.off
    assert len(teacher.memory) == 0


PLACE = 9
"""The image token of the rows below."""


@pytest.mark.parametrize(
    ("ids", "columns", "owners"),
    [
        # As many entries as places, or places an entry: LLaVA, Gemma 3, tiles of InternVL.
        ([[PLACE, PLACE, PLACE, PLACE], [PLACE, PLACE, 5, 5]], {"pixel_values": torch.ones(3, 3, 8, 8)}, [0, 0, 1]),
        ([[5, 5, 5, 5], [PLACE, PLACE, PLACE, PLACE]], {"pixel_values": torch.ones(2, 3, 8, 8)}, [1, 1]),
        # Images of other sizes, a run each: LLaVA-NeXT.
        ([[PLACE, 5, PLACE, PLACE], [PLACE, PLACE, PLACE, 5]], {"pixel_values": torch.ones(3, 2, 3, 8, 8)}, [0, 0, 1]),
        # As many images as rows, and yet not one each.
        ([[PLACE, 5, PLACE, PLACE], [5, 5, 5, 5]], {"pixel_values": torch.ones(2, 2, 3, 8, 8)}, [0, 0]),
        # Patches, and grids that say how many there are: two of 1 x 2 x 4 and 1 x 2 x 2 beside one of 1 x 2 x 2.
        (
            [[PLACE, PLACE, 5, PLACE], [5, 5, PLACE, 5]],
            {"pixel_values": torch.ones(16, 6), "image_grid_thw": torch.tensor([[1, 2, 4], [1, 2, 2], [1, 2, 2]])},
            [0] * 12 + [1] * 4,
        ),
    ],
)  # fmt: skip
def test_each_entry_has_its_row(ids, columns, owners):
    found = owners_of({"input_ids": torch.tensor(ids), **columns}, {"image": PLACE})
    assert found["pixel_values"].tolist() == owners
    if "image_grid_thw" in columns:
        assert found["image_grid_thw"].tolist() == [0, 0, 1]


def test_images_of_a_row_that_are_filled_up_with_empty_ones_are_the_rows():
    ids, pixels = torch.tensor([[PLACE, PLACE], [5, 5], [PLACE, 5]]), torch.ones(3, 2, 3, 8, 8)
    pixels[1], pixels[2, 1] = 0.0, 0.0  # as Idefics has it
    batch = {"input_ids": ids, "pixel_values": pixels, "pixel_attention_mask": pixels[:, :, 0]}
    owners = owners_of(batch, {"image": PLACE})
    assert owners["pixel_values"].tolist() == [[True, True], [False, False], [True, False]]
    assert owners["pixel_attention_mask"] is owners["pixel_values"]
    assert "pixel_values" not in take(batch, [1], owners=owners)
    assert take(batch, [2, 1], owners=owners)["pixel_values"].shape == (2, 1, 3, 8, 8)
    full = {name: value[:, :1] if name != "input_ids" else value for name, value in batch.items()}
    keys = keys_of(batch, owners=owners)
    assert keys[1:] == keys_of(full, owners=owners_of(full, {"image": PLACE}))[1:]


def test_each_kind_has_its_own_token():
    ids, tokens = torch.tensor([[9, 8, 5], [9, 5, 5]]), {"image": 9, "video": 8}
    assert owners_of({"input_ids": ids, "pixel_values": torch.ones(2, 3, 4)}, tokens)["pixel_values"].tolist() == [
        0,
        1,
    ]
    found = owners_of({"input_ids": ids, "pixel_values_videos": torch.ones(2, 3, 4)}, tokens)
    assert found["pixel_values_videos"].tolist() == [0, 0]


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({}, r"row 1 has a place for an image \(token 9\), but the batch has no images: let the collator give them"),
        (
            {"pixel_values": torch.ones(1, 3), "pixel_values_videos": torch.ones(1, 3)},
            r"the batch has videos \(pixel_values_videos\), but no text has a place for one \(token 8\)",
        ),
    ],
)
def test_places_without_images_and_images_without_places_are_refused(columns, told):
    with pytest.raises(ValueError, match=told):
        check_images({"input_ids": torch.tensor([[5, 5], [9, 5]]), **columns}, {"image": 9, "video": 8})


@pytest.mark.parametrize(("model", "tokens"), [(llava(0), {"image": IMAGE}), (tiny.teacher(), {}), (None, {})])
def test_what_a_model_marks_is_read_from_its_configuration(model, tokens):
    assert placeholders_of(model) == tokens
