"""Pairs as batches: pixels and tokens for both models, captions by chance, bad rows in a sentence."""

import numpy as np
import pytest
import tiny
import tiny_clip
import torch
from PIL import Image
from transformers import BertTokenizer, VisionTextDualEncoderProcessor
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from hf_distill import ImageTextCollator
from hf_distill.augmentation.views import Shift


def processor(size=8, words=("a", "b", "c"), std=0.5):
    tokens = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words])}
    images = ViTImageProcessorPil(size={"height": size, "width": size}, image_std=[std] * 3, image_mean=[0.5] * 3)
    return VisionTextDualEncoderProcessor(images, BertTokenizer(tokens))


def rows(texts, column="text"):
    draw = np.random.default_rng(0)
    pixels = draw.integers(0, 256, (len(texts), 8, 8, 3), dtype=np.uint8)
    return [{"image": Image.fromarray(one), column: text} for one, text in zip(pixels, texts, strict=True)]


def test_one_processor_makes_no_columns_of_the_teachers():
    collate = ImageTextCollator(processor(), processor())
    batch = collate(rows(["a", "b c"]))
    assert sorted(batch) == ["attention_mask", "input_ids", "pixel_values"]
    assert batch["input_ids"].tolist() == [[2, 5, 3, 0], [2, 6, 7, 3]]
    assert (collate.teacher_columns, collate.columns) == ((), {"image", "text"})


@pytest.mark.parametrize("other", [{"words": ("c", "b", "a")}, {"std": 0.25}, {"size": 12}])
def test_a_teacher_of_another_processor_has_pixels_and_tokens_of_its_own(other):
    collate = ImageTextCollator(processor(), processor(**other))
    batch, theirs = collate(rows(["a", "b c"])), ImageTextCollator(processor(**other))(rows(["a", "b c"]))
    for name in ("pixel_values", "input_ids", "attention_mask"):
        assert torch.equal(batch[f"teacher_{name}"], theirs[name])
    assert collate.teacher_columns == ("teacher_pixel_values", "teacher_input_ids")


def test_a_teacher_of_another_processor_teaches(tmp_path):
    collate = ImageTextCollator(processor(), processor(words=("z", "a", "b", "c")))
    run = tiny.trainer(
        tmp_path, tiny_clip.model("chinese_clip", seed=1), rows(["a", "b c", "c", "a b"] * 2), data_collator=collate,
        teacher_model=tiny_clip.model("chinese_clip"), processing_class=processor(),
        args={"per_device_train_batch_size": 4, "num_train_epochs": 2, "max_steps": -1},
    )  # fmt: skip
    run.train()
    hits = tiny.losses(run, "teacher_cache_hits")
    assert (sum(hits[:2]), hits[2:]) == (4 / 8, [1, 1])  # of 16 images and texts, four are a caption that was there
    read = run.teacher.inputs(collate(rows(["a", "b c"])))
    assert read["input_ids"].tolist() == [[2, 6, 3, 0], [2, 7, 8, 3]]


def test_a_tokenizer_that_differs_is_refused_where_the_teacher_would_read_the_students_tokens(tmp_path):
    teacher = tiny_clip.model("chinese_clip")
    teacher.save_pretrained(tmp_path / "teacher")
    processor(words=("z", "a", "b", "c")).save_pretrained(tmp_path / "teacher")
    with pytest.raises(ValueError, match="the student read the same input_ids, but 3 of the student's 8 tokens"):
        tiny.trainer(
            tmp_path, tiny_clip.model("chinese_clip", seed=1), rows(["a", "b"] * 4),
            data_collator=ImageTextCollator(processor()), teacher_model=str(tmp_path / "teacher"),
            processing_class=processor(), args={"remove_unused_columns": False},
        )  # fmt: skip


def test_chance_takes_a_caption_by_pair_and_epoch_and_the_first_in_evaluation():
    texts = [["a", "b", "c"]] * 12
    collate = ImageTextCollator(processor(), recurring=2, views=[Shift(2)])
    training = collate.for_training()

    def epoch(number, some=None):
        training.epoch = number
        return training(rows(texts) if some is None else some)

    first = epoch(0)
    assert len(set(first["input_ids"][:, 1].tolist())) > 1
    for name, one in epoch(2).items():
        assert torch.equal(one, first[name])
    assert not torch.equal(epoch(1)["input_ids"], first["input_ids"])
    backwards = epoch(0, rows(texts)[::-1])
    assert torch.equal(backwards["input_ids"].flip(0), first["input_ids"])
    assert set(collate(rows(texts))["input_ids"][:, 1].tolist()) == {5}


@pytest.mark.parametrize("views", [0, True, 1.5])
def test_a_number_of_views_that_is_none_is_refused(views):
    with pytest.raises(ValueError, match="give how many views a pair has, at least 1"):
        ImageTextCollator(processor(), recurring=views)


@pytest.mark.parametrize("text", [None, [], 3, [None]])
def test_a_row_without_a_text_is_named(text):
    with pytest.raises(ValueError, match="row 1 of a batch has no text under 'text', only"):
        ImageTextCollator(processor())([*rows(["a"]), *rows([text])])


def test_a_row_without_an_image_is_named():
    with pytest.raises(ValueError, match="row 0 of a batch has no 'picture'"):
        ImageTextCollator(processor(), image_column="picture")(rows(["a"]))


def test_a_tokenizer_alone_is_no_processor():
    with pytest.raises(TypeError, match="was given a BertTokenizer, which does not hold both"):
        ImageTextCollator(tiny.tokenizer())
