"""A teacher that would be given images prepared for another model."""

import pytest
import tiny
import tiny_images
import tiny_language
import tiny_vision_language
from transformers import LlavaProcessor, default_data_collator
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


def llavas(mean=0.5, words=()):
    """A processor of pictures and texts."""
    tokenizer = tiny_language.tokenizer()
    tokenizer.add_tokens(["<image>", *words], special_tokens=True)
    return LlavaProcessor(processor(mean=mean), tokenizer, patch_size=4, image_token="<image>")


@pytest.mark.parametrize(
    ("theirs", "told"),
    [
        ({"mean": 0.25}, r"gives image_mean=.0.5, 0.5, 0.5.: give the teacher columns of its own \(teacher_input_ids"),
        ({"words": ["more"]}, None),
        ({}, None),
    ],
)
def test_of_a_processor_of_pictures_and_texts_both_halves_are_compared(tmp_path, theirs, told):
    tiny_vision_language.model("llava", 7).save_pretrained(tmp_path / "teacher")
    llavas(**theirs).save_pretrained(tmp_path / "teacher")

    def started(ours, **columns):
        rows = [{**row, **columns} for row in tiny_vision_language.rows("llava")]
        return tiny.trainer(
            tmp_path / "run", tiny_vision_language.model("llava"), rows, teacher_model=str(tmp_path / "teacher"),
            processing_class=ours, data_collator=default_data_collator, args={"remove_unused_columns": False},
        )  # fmt: skip

    if told is None:
        assert started(llavas()).teacher is not None
        with pytest.raises(ValueError, match="but 1 of the student's 33 tokens have another id or none"):
            started(llavas(words=["other"]))
        return
    with pytest.raises(ValueError, match=told):
        started(llavas())
    assert started(llavas(), teacher_input_ids=[1, 2]).teacher is not None


def test_a_processor_that_was_saved_prepares_the_same(tmp_path):
    from transformers import AutoImageProcessor

    processor().save_pretrained(tmp_path)
    assert prepares(AutoImageProcessor.from_pretrained(tmp_path)) == prepares(processor())
