"""Images that are none, of other colours or sizes, and processors of other models: one sentence each."""

import json
from io import BytesIO

import datasets
import numpy as np
import pytest
import tiny
import tiny_images
import torch
from datasets import Dataset, Features, IterableDataset, Value
from PIL import Image
from transformers import default_data_collator
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from hf_distill import ImageCollator
from hf_distill.training.image_checks import size_of

PICTURES = Features({"image": datasets.Image(), "label": Value("int64")})
RAW = {"remove_unused_columns": False}


def processor(size=16, **options):
    return ViTImageProcessorPil(size={"height": size, "width": size}, **options)


def png(mode="RGB", seed=0):
    draw = np.random.default_rng(seed)
    file = BytesIO()
    Image.fromarray(draw.integers(0, 256, (16, 16, 3), dtype=np.uint8)).convert(mode).save(file, "png")
    return file.getvalue()


def pictures(n=8, bad=None, content=b"", path=None, label=lambda i: i % 3):
    """A data set of pictures, one of which holds something else."""
    held = [{"bytes": content if i == bad else png(seed=i), "path": path if i == bad else None} for i in range(n)]
    return Dataset.from_dict({"image": held, "label": [label(i) for i in range(n)]}, features=PICTURES)


def pixels(batch):
    made = processor()(batch["image"], return_tensors="pt")["pixel_values"]
    return {"pixel_values": made, "labels": batch["label"]}


def trainer(folder, data, student=None, teacher=None, args=None, collator=default_data_collator, **parts):
    return tiny.trainer(
        folder, student or tiny_images.vit(), data, teacher_model=teacher or tiny_images.vit(width=24, seed=7),
        data_collator=collator, args={"max_steps": 2, **(args or {})}, **parts,
    )  # fmt: skip


TORN = [png()[:40], png()[:120], b"no image", b""]


# ---- An image that cannot be decoded ----


@pytest.mark.parametrize("content", TORN, ids=range(len(TORN)))
@pytest.mark.parametrize("how", ["collator", "transform"])
def test_the_row_and_the_file_of_a_torn_image_are_told(tmp_path, how, content):
    data = pictures(bad=5, content=content, path="photos/x.png")
    told = r"^row 5 of the {} has an image that cannot be decoded \(photos/x.png: .*\): correct the file, or leave"
    parts = {"collator": ImageCollator(processor())} if how == "collator" else {"args": RAW}
    good, data = (one if how == "collator" else one.with_transform(pixels) for one in (pictures(), data))
    with pytest.raises(ValueError, match=told.format("training set")):
        trainer(tmp_path, data, **parts).train()
    with pytest.raises(ValueError, match=told.format("evaluation set")):
        trainer(tmp_path, good, **parts).evaluate(data)


@pytest.mark.slow
def test_a_worker_of_the_loader_tells_it_too(tmp_path):
    data = pictures(bad=5, content=TORN[0])
    args = {"dataloader_num_workers": 1}
    with pytest.raises(ValueError, match=r"^row 5 of the training set has an image that cannot be decoded"):
        trainer(tmp_path, data, collator=ImageCollator(processor()), args=args).train()


def test_a_file_that_is_gone_is_told(tmp_path):
    held = [{"bytes": png(), "path": None}, {"bytes": None, "path": str(tmp_path / "gone.png")}]
    data = Dataset.from_dict({"image": held, "label": [0, 1]}, features=PICTURES)
    with pytest.raises(ValueError, match=r"^row 1 of the training set has .*gone.png"):
        trainer(tmp_path, data, collator=ImageCollator(processor())).train()


def test_what_is_wrong_in_another_way_is_left_as_it_is(tmp_path):
    def broken(batch):
        raise OSError("my own fault")

    def stream():
        yield {"image": TORN[2], "label": 0}

    with pytest.raises(OSError, match=r"^my own fault$"):
        trainer(tmp_path, pictures().with_transform(broken), args=RAW).train()
    data = IterableDataset.from_generator(stream)
    with pytest.raises(ValueError, match=r"^row 0 of a batch has an image that cannot be decoded"):
        trainer(tmp_path, data, collator=ImageCollator(processor()), args=RAW).train()


# ---- Pictures of which nobody makes pixels ----


@pytest.mark.parametrize("args", [{}, RAW])
def test_pictures_without_a_transform_are_refused(tmp_path, args):
    told = "has pictures under 'image', of which nothing makes pixel_values: pass data_collator=ImageCollator"
    with pytest.raises(ValueError, match=f"^the training set {told}"):
        trainer(tmp_path, pictures(), args=args)
    with pytest.raises(ValueError, match=f"^the evaluation set 'b' {told}"):
        trainer(tmp_path, tiny_images.images(4), eval_dataset={"b": pictures()}, args=args)


def test_columns_that_are_taken_away_before_they_are_read_are_told(tmp_path):
    def collate(rows):
        return pixels({name: [row[name] for row in rows] for name in ("image", "label")}) | {
            "labels": torch.tensor([row["label"] for row in rows])
        }

    told = "remove_unused_columns=True takes away before "
    with pytest.raises(ValueError, match=f"'image', which {told}the data_collator: set remove_unused_columns=False"):
        trainer(tmp_path, pictures(), collator=collate)
    with pytest.raises(ValueError, match=rf"{told}it \(image\): set remove_unused_columns=False"):
        trainer(tmp_path, pictures().with_transform(pixels))
    for data, collator in ((pictures(), collate), (pictures().with_transform(pixels), default_data_collator)):
        assert trainer(tmp_path, data, collator=collator, args=RAW).train().global_step == 2


# ---- Other colours, other sizes ----


def channels(n):
    return [{**row, "pixel_values": torch.randn(n, 16, 16)} for row in tiny_images.images(8)]


@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_gray_images_for_a_model_of_colours_and_the_reverse(tmp_path, kind):
    make, name = tiny_images.KINDS[kind], {"vit": "ViT", "resnet": "ResNet"}[kind] + "ForImageClassification"
    told = "^the batch has images of {}, the {} " + name + " reads {}: convert pictures before they become pixels "
    colours, gray = (lambda: make(seed=7), lambda: make(seed=7, num_channels=1))
    cases = [  # model, teacher, channels of the batch, what is told
        (colours, colours, 1, ("1 channel", "teacher", 3)),
        (gray, gray, 3, ("3 channels", "student" if kind == "vit" else "teacher", 1)),
        (gray, colours, 1, ("1 channel", "teacher", 3)),
        (colours, gray, 3, ("3 channels", "teacher", 1)),
    ]
    for student, teacher, n, words in cases:
        words = (words[0], "(teacher|student)", words[2])
        with pytest.raises(ValueError, match=told.format(*words) + r"\(image.convert"):
            trainer(tmp_path, channels(n), student(), teacher()).train()
    run = trainer(tmp_path, channels(1), gray(), gray())
    assert run.train().global_step == 2
    with pytest.raises(ValueError, match=told.format("3 channels", "student", 1)):
        run.evaluate(tiny_images.images(8))


@pytest.mark.parametrize("mode", ["L", "LA", "P"])
def test_a_picture_of_other_colours_that_a_processor_refuses_is_named(tmp_path, mode):
    data = pictures(bad=5, content=png(mode))
    told = (
        rf'^row 5 of the training set has a picture of the mode {mode!r}, of which no pixels .*image.convert\("RGB"\)'
    )
    with pytest.raises(ValueError, match=told):
        trainer(tmp_path, data.with_transform(pixels), args=RAW).train()
    assert trainer(tmp_path, data, collator=ImageCollator(processor())).train().global_step == 2


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            lambda x: x.permute(1, 2, 0),
            r"images of the shape \[16, 16, 3\], the \w+ ViT\w+ reads channels first: turn",
        ),
        (lambda x: x[0], r"images of the shape \[16, 16\], the \w+ ViT\w+ reads channels, height and width: give"),
        (lambda x: x.repeat(1, 2, 2), r"images of 32 x 32 pixels, the \w+ ViT\w+ was made for 16 x 16 \(.*: resize"),
    ],
)
def test_images_of_another_form(tmp_path, change, told):
    data = [{**row, "pixel_values": change(row["pixel_values"])} for row in tiny_images.images(8)]
    with pytest.raises(ValueError, match=f"^the batch has {told}"):
        trainer(tmp_path, data).train()
    with pytest.raises(ValueError, match=f"^the batch has {told.replace(chr(92) + 'w+ ViT', 'student ViT', 1)}"):
        trainer(tmp_path, tiny_images.images(8)).evaluate(data)


def test_a_network_of_convolutions_reads_every_size(tmp_path):
    pair = tiny_images.resnet(), tiny_images.resnet(seed=7)
    assert trainer(tmp_path, tiny_images.images(8, size=48), *pair).train().global_step == 2


def test_several_sizes_in_one_batch(tmp_path):
    data = [*tiny_images.images(4), *tiny_images.images(4, size=24)]
    pair = tiny_images.resnet(), tiny_images.resnet(seed=7)
    with pytest.raises(
        ValueError, match=r"^images of the training set have several sizes in one batch .*: resize them"
    ):
        trainer(tmp_path, data, *pair).train()


# ---- A processor of another model ----


def test_a_tokenizer_in_the_place_of_a_processor(tmp_path):
    told = "processing_class is a BertTokenizer, which reads texts, the student ViTForImageClassification reads images"
    for collator in (default_data_collator, None):
        with pytest.raises(ValueError, match=told):
            trainer(tmp_path, tiny_images.images(4), processing_class=tiny.tokenizer(), collator=collator)
    with pytest.raises(
        TypeError, match=r"^ImageCollator was given a BertTokenizer, which reads texts: pass the image"
    ):
        ImageCollator(tiny.tokenizer())


def test_a_processor_of_other_sizes_is_told_before_the_first_step(tmp_path):
    told = "makes images of 32 x 32 pixels, the student ViTForImageClassification was made for 16 x 16"
    with pytest.raises(
        ValueError, match=f"^the processing_class {told}.*or leave processing_class out if it is meant"
    ):
        trainer(tmp_path, tiny_images.images(4), processing_class=processor(32))
    with pytest.raises(ValueError, match=f"^the data_collator's processor {told}"):
        trainer(tmp_path, pictures(), collator=ImageCollator(processor(32)))
    pair = tiny_images.resnet(), tiny_images.resnet(seed=7)
    trainer(tmp_path, tiny_images.images(4), *pair, processing_class=processor(32))
    whole = processor(32, do_resize=False)
    assert (size_of(whole), size_of(processor(16)), size_of(tiny.tokenizer())) == (None, (16, 16), None)
    trainer(tmp_path, tiny_images.images(4), processing_class=whole)


# ---- Classes, libraries ----


@pytest.mark.parametrize("label", [3, -1])
def test_a_class_that_is_not_there(tmp_path, label):
    told = f"label {label}, the student has 3 classes"
    bad = {"label": lambda i: label if i == 5 else 0}
    with pytest.raises(ValueError, match=f"row 5 of the training set has {told}"):
        trainer(tmp_path, pictures(**bad), collator=ImageCollator(processor()))
    run = trainer(tmp_path, pictures(**bad).with_transform(pixels), args=RAW)
    with pytest.raises(ValueError, match=f"row . of the batch has {told}"):
        run.train()
    assert run.state.global_step == 0


def test_a_teacher_with_a_backbone_of_timm_is_told(tmp_path):
    config = {"architecture": "resnet18", "model_type": "timm_wrapper", "num_classes": 3}
    (tmp_path / "config.json").write_text(json.dumps(config))
    told = r"^the teacher at .* has a backbone of timm, which is not installed: pip install timm, or use a checkpoint"
    with pytest.raises(ImportError, match=told):
        trainer(tmp_path / "run", tiny_images.images(4), teacher=str(tmp_path))
