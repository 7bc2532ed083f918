"""Batches of images and boxes: labels as a detector's processor makes them, turned over with their images."""

import numpy as np
import torch
from PIL import Image
from transformers.models.rt_detr.image_processing_pil_rt_detr import RTDetrImageProcessorPil

from hf_distill import BoxCollator

OBJECTS = [{"bbox": [[2, 1, 4, 2], [0, 0, 16, 8]], "category": [3, 0]}, {"bbox": [], "category": []}]


def rows():
    draw = np.random.default_rng(0)
    pictures = [Image.fromarray(draw.integers(0, 256, (8, 16, 3), dtype=np.uint8)) for _ in OBJECTS]
    return [{"image": picture, "objects": one} for picture, one in zip(pictures, OBJECTS, strict=True)]


def processor(side=32):
    return RTDetrImageProcessorPil(size={"height": side, "width": side})


def test_boxes_become_parts_of_the_image():
    batch = BoxCollator(processor())(rows())
    assert batch.keys() == {"pixel_values", "labels"}
    assert batch["pixel_values"].shape == (2, 3, 32, 32)
    first, second = batch["labels"]
    assert first["class_labels"].tolist() == [3, 0]
    torch.testing.assert_close(first["boxes"], torch.tensor([[0.25, 0.25, 0.25, 0.25], [0.5, 0.5, 1, 1]]))
    assert second["boxes"].shape == (0, 4)


def test_without_objects_there_are_no_labels():
    assert BoxCollator(processor())([{"image": one["image"]} for one in rows()]).keys() == {"pixel_values"}


def test_a_teacher_that_prepares_images_in_another_way_has_its_own():
    own = processor(64)
    collator = BoxCollator(processor(), own)
    batch = collator(rows())
    assert (batch["pixel_values"].shape[-1], batch["teacher_pixel_values"].shape[-1]) == (32, 64)
    torch.testing.assert_close(BoxCollator(own)(rows())["pixel_values"], batch["teacher_pixel_values"])
    assert BoxCollator(processor(), processor()).teacher_processor is None


def test_an_image_is_turned_over_with_its_boxes():
    plain, seen = BoxCollator(processor())(rows()), []
    turning = BoxCollator(processor(), flip=True, seed=1).for_training()
    assert BoxCollator(processor()).for_training() is None
    for turning.epoch in range(6):
        batch = turning(rows())
        again = turning(rows())
        torch.testing.assert_close(batch["pixel_values"], again["pixel_values"])  # chance hangs on the epoch alone
        turned = not torch.equal(batch["pixel_values"][0], plain["pixel_values"][0])
        expected = plain["pixel_values"][0].flip(-1) if turned else plain["pixel_values"][0]
        torch.testing.assert_close(batch["pixel_values"][0], expected, atol=0.02, rtol=0)
        boxes = plain["labels"][0]["boxes"].clone()
        boxes[:, 0] = 1 - boxes[:, 0] if turned else boxes[:, 0]
        torch.testing.assert_close(batch["labels"][0]["boxes"], boxes)
        seen.append(turned)
    assert set(seen) == {True, False}
    assert OBJECTS[0]["bbox"][0] == [2, 1, 4, 2]  # the rows themselves stay as they are
