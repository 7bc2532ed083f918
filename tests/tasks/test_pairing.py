import logging

import pytest
import tiny
import torch
from tiny_image_text import IMAGE, batch, llava

from hf_distill import CachedTeacher, CausalLM, LiveTeacher
from hf_distill.tasks.pairing import placeholders_of, unpaired


def cached(folder, images):
    teacher = CachedTeacher(LiveTeacher(llava(1)), always=True)
    made = batch(images)
    rows = [
        {name: made[name][row] for name in ("input_ids", "attention_mask", "labels")} for row in range(len(images))
    ]
    tiny.trainer(folder, llava(0), data=rows, teacher_model=teacher, task=CausalLM())
    return teacher


def logits(teacher, asked):
    return teacher(asked, frozenset({"heads"})).heads["logits"].logits.tensor


def test_two_images_in_one_row_and_none_in_the_next_are_asked_each_time(tmp_path, caplog):
    teacher = cached(tmp_path, [2, 0])
    first, other = batch([2, 0], seed=0), batch([2, 0], seed=0)
    other["pixel_values"] = other["pixel_values"].clone()
    other["pixel_values"][1] = 0.0  # the second image of row 0 is another one, and row 1 has none
    with caplog.at_level(logging.WARNING):
        shown = [logits(teacher, asked) for asked in (first, other)]
    assert "but row 1 has no image token (39)" in caplog.text
    live = LiveTeacher(llava(1), CausalLM())
    for found, asked in zip(shown, (first, other), strict=True):
        torch.testing.assert_close(found, logits(live, asked))
    assert not torch.equal(shown[0][0], shown[1][0])


def test_one_image_in_each_row_is_kept(tmp_path):
    teacher, asked = cached(tmp_path, [1, 1]), batch([1, 1])
    first = logits(teacher, asked)
    assert len(teacher.memory) == 2
    torch.testing.assert_close(logits(teacher, asked), first, rtol=0, atol=0)


def test_a_later_batch_that_pairs_otherwise_ends_what_was_kept(tmp_path):
    teacher = cached(tmp_path, [1, 1])
    logits(teacher, batch([1, 1]))
    logits(teacher, batch([2, 0]))
    assert "no image token" in teacher.memory.off
    assert len(teacher.memory) == 0


def test_each_kind_has_its_own_token():
    ids = torch.tensor([[9, 8, 5], [9, 5, 5]])
    tokens = {"image": 9, "video": 8}
    assert unpaired({"input_ids": ids, "pixel_values": torch.ones(2, 3)}, tokens) == ""
    told = unpaired({"input_ids": ids, "pixel_values_videos": torch.ones(2, 3, 4)}, tokens)
    assert told.startswith("'pixel_values_videos' has 2 entries for 2 rows, but row 1 has no video token (8)")


@pytest.mark.parametrize(("model", "tokens"), [(llava(0), {"image": IMAGE}), (tiny.teacher(), {}), (None, {})])
def test_what_a_model_marks_is_read_from_its_configuration(model, tokens):
    assert placeholders_of(model) == tokens
