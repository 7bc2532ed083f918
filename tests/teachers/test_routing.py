"""Taking rows out of a batch, and putting answers together."""

import numpy as np
import pytest
import tiny_image_text
import torch

from hf_distill import ImageTextToText, LiveTeacher
from hf_distill.tasks.batches import take
from hf_distill.teachers.routing import by_row, together


def test_everything_with_the_batchs_first_size_is_cut():
    batch = {
        "ids": torch.arange(6).view(3, 2), "array": np.arange(3), "texts": ["a", "b", "c"], "pair": [1, 2],
        "scale": torch.tensor(3.0), "name": "abc",
    }  # fmt: skip
    kept = take(batch, np.array([2, 0]), 3)
    assert kept["ids"].tolist() == [[4, 5], [0, 1]]
    assert kept["array"].tolist() == [2, 0]
    assert kept["texts"] == ["c", "a"]
    assert (kept["pair"], kept["scale"], kept["name"]) == ([1, 2], torch.tensor(3.0), "abc")


def test_answers_come_back_in_the_order_of_the_batch():
    whole = torch.randn(5, 3, 2)
    rows = {"b": np.array([1, 3, 4]), "a": np.array([0, 2])}
    parts = {name: (whole[own], whole[own] > 0) for name, own in rows.items()}
    found = together(parts, rows, "hidden states")
    assert torch.equal(found[0], whole)
    assert torch.equal(found[1], whole > 0)
    assert together({"a": (), "b": ()}, rows, "masks") == ()


@torch.no_grad()
def test_each_teacher_is_shown_the_images_of_its_own_rows():
    batch = tiny_image_text.batch([2, 0, 1])  # as many images as rows, and not one each
    makers = {"a": tiny_image_text.llava(1), "b": tiny_image_text.llava(2)}
    task = ImageTextToText(placeholders={"image": tiny_image_text.IMAGE})
    teachers = {name: LiveTeacher(model, task) for name, model in makers.items()}
    shown = by_row(teachers, np.array([1, 0, 0]), batch, frozenset({"heads"})).heads["logits"].logits.tensor
    for row, name in enumerate("baa"):
        fed = {name: value for name, value in batch.items() if name != "labels"}
        torch.testing.assert_close(shown[row], makers[name](**fed).logits[row])


def test_answers_of_different_shapes_are_refused():
    parts = {"a": (torch.zeros(2, 3),), "b": (torch.zeros(1, 4),)}
    message = (
        r"the teacher a gave rows of logits of shape \[\[3\]\], the teacher b \[\[4\]\]: use teachers that answer"
    )
    with pytest.raises(ValueError, match=message):
        together(parts, {"a": np.array([0, 1]), "b": np.array([2])}, "logits")
