"""A teacher that would be given images prepared for another model."""

import pytest
import tiny
import tiny_images
from transformers import default_data_collator
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from hf_distill import ImageCollator
from hf_distill.tasks.processors import prepares


def processor(size=16, mean=0.5):
    return ViTImageProcessorPil(size={"height": size, "width": size}, image_mean=[mean] * 3, image_std=[0.5] * 3)


def trainer(folder, teacher, ours, collator=default_data_collator):
    return tiny.trainer(
        folder / "run", tiny_images.vit(), tiny_images.images(4), teacher_model=str(teacher), data_collator=collator,
        processing_class=ours,
    )  # fmt: skip


@pytest.fixture
def teacher(tmp_path):
    tiny_images.vit(width=24, seed=7).save_pretrained(tmp_path / "teacher")
    processor(mean=0.25).save_pretrained(tmp_path / "teacher")
    return tmp_path / "teacher"


def test_what_differs_is_told(tmp_path, teacher):
    told = "was made for images of image_mean=.0.25, 0.25, 0.25., the student's processor gives image_mean=.0.5"
    with pytest.raises(ValueError, match=told):
        trainer(tmp_path, teacher, processor())


def test_the_same_processor_is_none_of_our_business(tmp_path, teacher):
    for ours in (processor(mean=0.25), None):
        assert trainer(tmp_path, teacher, ours).teacher is not None


def test_a_collator_gives_each_its_own(tmp_path, teacher):
    run = trainer(tmp_path, teacher, processor(), ImageCollator(processor(), processor(mean=0.25)))
    assert list(run.data_collator.teacher_processor.image_mean) == [0.25] * 3


def test_a_processor_that_was_saved_prepares_the_same(tmp_path):
    from transformers import AutoImageProcessor

    processor().save_pretrained(tmp_path)
    assert prepares(AutoImageProcessor.from_pretrained(tmp_path)) == prepares(processor())
