"""Images by chance: the same view for both models, again in the same epoch, K of them where K were asked for."""

from io import BytesIO

import numpy as np
import pytest
import tiny
import tiny_images
import torch
from datasets import Dataset
from PIL import Image
from transformers.models.segformer.image_processing_pil_segformer import SegformerImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from hf_distill import ImageCollator
from hf_distill.augmentation.views import Crop, Flip, Shift


def processor(size=16, mean=0.5):
    return ViTImageProcessorPil(size={"height": size, "width": size}, image_mean=[mean] * 3, image_std=[0.5] * 3)


def rows(n=8, size=16, seed=0):
    draw = np.random.default_rng(seed)
    pictures = [Image.fromarray(draw.integers(0, 256, (size, size, 3), dtype=np.uint8)) for _ in range(n)]
    return Dataset.from_dict({"image": pictures, "label": [i % 3 for i in range(n)]})


def png():
    file = BytesIO()
    rows(1)[0]["image"].save(file, "png")
    return file.getvalue()


def training(epoch=0, **options):
    collate = ImageCollator(processor(), **{"views": [Shift(3), Flip()], **options}).for_training()
    collate.epoch = epoch
    return collate


def trainer(folder, collate, data=None, **parts):
    return tiny.trainer(
        folder, tiny_images.vit(), data or rows(), teacher_model=tiny_images.vit(width=24, layers=4, seed=7),
        data_collator=collate, processing_class=processor(), **parts,
    )  # fmt: skip


def test_a_view_hangs_on_the_image_and_the_epoch_alone():
    some = list(rows())
    there = training()(some)["pixel_values"]
    assert torch.equal(training()(some[::-1])["pixel_values"].flip(0), there)
    assert torch.equal(training()(some[2:3])["pixel_values"], there[2:3])
    assert not torch.equal(training(epoch=1)(some)["pixel_values"], there)
    assert not torch.equal(training(seed=1)(some)["pixel_values"], there)
    plain = ImageCollator(processor(), views=[Shift(3), Flip()])(some)["pixel_values"]
    assert torch.equal(
        plain, processor()(some[0:1] and [r["image"] for r in some], return_tensors="pt")["pixel_values"]
    )


def test_views_recur():
    some = list(rows(4))
    made = [training(epoch, recurring=3)(some)["pixel_values"] for epoch in range(6)]
    assert all(torch.equal(made[epoch], made[epoch + 3]) for epoch in range(3))
    assert not torch.equal(made[0], made[1])


@pytest.mark.parametrize("view", [Shift(3), Flip(), Crop(0.3)])
def test_a_view_is_as_large_as_its_image_and_can_be_made_again(view):
    from random import Random

    image = rows(1)[0]["image"].resize((20, 12))
    made = [view(image, Random(seed)) for seed in (1, 1, *range(2, 12))]
    assert all(one.size == image.size for one in made)
    assert made[0].tobytes() == made[1].tobytes()
    assert len({one.tobytes() for one in made}) > 1


def test_mixed_images_have_no_label_and_both_processors_mix_the_same():
    some = list(rows(4))
    collate = training(views=[], mixup=1.0, teacher_processor=processor(24, 0.0))
    batch = collate(some)
    assert batch["labels"].tolist() == [-100] * 4
    assert batch["teacher_pixel_values"].shape == (4, 3, 24, 24)
    plain = ImageCollator(processor())(some)["pixel_values"]
    assert not torch.isclose(batch["pixel_values"], plain).all()
    inside = (plain.amin(0) <= batch["pixel_values"] + 1e-6) & (batch["pixel_values"] <= plain.amax(0) + 1e-6)
    assert inside.all()


def pasted(batch, plain):
    """Which pixels of each image are its own, and of which row the others are."""
    found = []
    for row, image in enumerate(batch):
        own = (image == plain[row]).all(0)
        rest = [at for at, other in enumerate(plain) if at != row and ((image == other).all(0) | own).all()]
        found.append((own, rest))
    return found


def test_cutmix_pastes_one_rectangle_of_one_other_image():
    some = list(rows(6))
    collate = training(views=[], cutmix=1.0, teacher_processor=processor(32, 0.0))
    batch = collate(some)
    assert batch["labels"].tolist() == [-100] * 6
    plain = ImageCollator(processor(), processor(32, 0.0))(some)
    areas = []
    for name, scale in (("pixel_values", 1), ("teacher_pixel_values", 2)):
        for own, partners in pasted(batch[name], plain[name]):
            assert partners  # every pixel is its own or this one's, at the same place
            where = (~own).nonzero()
            if len(where):
                low, high = where.min(0).values, where.max(0).values + 1
                assert (high - low).prod() == len(where)  # a rectangle
            areas.append(len(where) / scale**2)
    assert areas[:6] == pytest.approx(areas[6:], abs=12)  # the same part for both models, up to the edge of a pixel
    assert len({area for area in areas[:6] if 0 < area < 256}) > 2


def test_what_is_pasted_hangs_on_the_image_and_the_epoch():
    some = list(rows(6))
    there = training(views=[], cutmix=1.0)(some)["pixel_values"]
    assert torch.equal(training(views=[], cutmix=1.0)(some)["pixel_values"], there)
    for other in (training(1, views=[], cutmix=1.0), training(views=[], cutmix=1.0, seed=1)):
        assert not torch.equal(other(some)["pixel_values"], there)
    first = training(views=[], cutmix=1.0)([some[0], *some[3:]])["pixel_values"][0]  # with other partners
    plain = ImageCollator(processor())(some)["pixel_values"][0]
    own, theirs = ((one == plain).all(0) for one in (there[0], first))
    assert torch.equal(own, theirs)


def test_with_both_each_row_goes_through_one_of_them():
    draw = np.random.default_rng(3)
    some = [{"image": Image.fromarray(draw.integers(0, 256, (16, 16, 3), dtype=np.uint8))} for _ in range(24)]
    batch = training(views=[], mixup=1.0, cutmix=1.0)(some)["pixel_values"]
    plain = ImageCollator(processor())(some)["pixel_values"]
    cut = [bool(partners) for _, partners in pasted(batch, plain)]
    assert 5 < sum(cut) < 19
    blended = [row for row, one in enumerate(cut) if not one]
    assert all((batch[row] != plain[row]).float().mean() > 0.9 for row in blended)


def test_a_student_learns_from_pasted_images(tmp_path):
    collate = ImageCollator(processor(), cutmix=1.0)
    args = {"alpha": 1.0, "max_steps": 20, "per_device_train_batch_size": 8, "learning_rate": 3e-3}
    run = trainer(tmp_path, collate, args=args)
    run.train()
    losses = tiny.losses(run, "loss/forward_kl")
    assert sum(losses[-3:]) < sum(losses[:3])
    assert set(tiny.losses(run, "teacher_cache_hits")) <= {0.0}  # no image comes twice


def test_without_a_teacher_no_image_is_mixed():
    assert ImageCollator(processor(), cutmix=1.0).for_training(taught=False) is None
    mixing = ImageCollator(processor(), mixup=0.5)
    assert mixing.for_training(taught=False) is None
    both = ImageCollator(processor(), views=[Flip()], mixup=0.5)
    assert both.for_training(taught=False)(list(rows(4)))["labels"].tolist() == [0, 1, 2, 0]
    assert both.for_training()(list(rows(4)))["labels"].tolist() == [-100] * 4


def test_a_teacher_with_the_same_processor_reads_the_same_pixels():
    assert ImageCollator(processor(), processor()).teacher_processor is None
    assert ImageCollator(processor(), processor(mean=0.2)).teacher_processor is not None


def test_only_training_batches_are_changed(tmp_path):
    run = trainer(tmp_path, ImageCollator(processor(), views=[Shift(3)]))
    batch = next(iter(run.get_train_dataloader()))
    kept = next(iter(run.get_eval_dataloader(rows())))
    assert set(batch) == set(kept) == {"pixel_values", "labels"}
    assert torch.equal(kept["pixel_values"], ImageCollator(processor())(list(rows()))["pixel_values"])
    assert not torch.equal(batch["pixel_values"].sum(), kept["pixel_values"].sum())


def test_a_kept_teacher_is_asked_once_for_each_view(tmp_path):
    collate = ImageCollator(processor(), views=[Shift(3), Flip()], recurring=2)
    args = {"num_train_epochs": 6, "max_steps": -1, "per_device_train_batch_size": 4}
    found = []
    for cache in ("off", "auto"):
        run = trainer(tmp_path / cache, collate, args={**args, "teacher_cache": cache})
        run.train()
        found.append(tiny.losses(run))
    assert found[0] == pytest.approx(found[1], rel=1e-6)
    assert tiny.losses(run, "teacher_cache_hits") == [0.0] * 4 + [1.0] * 8
    assert len(run.teacher.memory) == 16


def test_resumed_equals_uninterrupted(tmp_path):
    collate = ImageCollator(processor(), views=[Shift(3), Flip()])
    args = {"max_steps": 6, "per_device_train_batch_size": 4, "save_strategy": "steps", "save_steps": 3}
    whole = trainer(tmp_path / "whole", collate, args=args)
    whole.train()
    again = trainer(tmp_path / "whole", collate, args=args)
    again.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-3"))
    assert tiny.losses(again)[-3:] == pytest.approx(tiny.losses(whole)[-3:], rel=1e-6)


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"label": 0}, "has no 'image', only"),
        ({"image": {"bytes": b"no image"}, "label": 0}, "row 0 of a batch has an image that cannot be decoded"),
        ({"image": "a path", "label": 0}, "row 0 of a batch has an image that cannot be decoded"),
        ({"image": {"bytes": png()[:60]}, "label": 0}, "row 0 of a batch has an image that cannot be decoded"),
        ({"image": {"path": "nowhere.png"}, "label": 0}, "row 0 of a batch has an image that cannot be decoded"),
    ],
)
def test_a_row_without_an_image_is_named(row, told):
    with pytest.raises(ValueError, match=told):
        ImageCollator(processor())([row])


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"recurring": 0, "views": [Flip()]}, "give how many views"),
        ({"recurring": 2}, "nothing that could recur"),
        ({"mixup": -1.0}, "mixup=-1.0 was given: give 0, or a number above it, such as 0.2"),
        ({"cutmix": -1.0}, "cutmix=-1.0 was given: give 0, or a number above it, such as 1.0"),
        ({"cutmix": float("nan")}, "cutmix=nan was given"),
        ({"mixup": True}, "mixup=True was given"),
    ],
)
def test_options_that_say_nothing_are_refused(options, told):
    with pytest.raises(ValueError, match=told):
        ImageCollator(processor(), **options)


# ---- Maps of classes ----


def segmenters(size=(12, 20), **options):
    shape = {"height": size[0], "width": size[1]}
    return SegformerImageProcessorPil(size=shape, image_mean=[0.0] * 3, image_std=[1.0] * 3, **options)


def maps(n=6, size=(12, 20), seed=0):
    """Images that show their own maps: each class has a grey of its own."""
    draw = np.random.default_rng(seed)
    made = [
        np.kron(draw.integers(0, 5, (size[0] // 4, size[1] // 4)), np.ones((4, 4))).astype(np.uint8) for _ in range(n)
    ]
    return [{"image": Image.fromarray(40 * one).convert("RGB"), "map": Image.fromarray(one)} for one in made]


def greys(batch):
    """The classes that the images of a batch show."""
    return (batch["pixel_values"][:, 0] * 255 / 40).round().long()


def test_a_map_is_the_labels_as_it_is():
    batch = ImageCollator(segmenters(), map_column="map")(maps())
    assert batch["labels"].dtype == torch.int64
    assert torch.equal(batch["labels"], greys(batch))
    assert ImageCollator(segmenters(), map_column="map").columns == {"image", "map"}


@pytest.mark.parametrize("views", [[Shift(5)], [Flip()], [Flip(), Shift(3), Flip()]])
def test_a_map_is_moved_as_its_image_is(views):
    collate = ImageCollator(segmenters(), views=views, map_column="map").for_training()
    batch, plain = collate(maps(16)), ImageCollator(segmenters(), map_column="map")(maps(16))
    known = batch["labels"] != 255
    assert torch.equal(batch["labels"][known], greys(batch)[known])
    assert not torch.equal(batch["labels"], plain["labels"])
    assert (greys(batch)[~known] == 0).all()  # what came in from beyond the border
    assert (~known).any() == any(isinstance(view, Shift) for view in views)


def test_a_part_of_a_map_is_the_part_of_its_image_and_has_no_class_between_two_others():
    rows = [
        {"image": Image.fromarray(255 * (one > 2).astype(np.uint8)).convert("RGB"), "map": 4 * (one > 2)}
        for one in (np.asarray(row["map"]) for row in maps(16))
    ]
    batch = ImageCollator(segmenters(), views=[Crop(0.3)], map_column="map").for_training()(rows)
    assert set(batch["labels"].unique().tolist()) == {0, 4}
    inside = (batch["pixel_values"][:, 0] > 0.99) | (batch["pixel_values"][:, 0] < 0.01)  # at an edge both are mixed
    assert inside.float().mean() > 0.6
    assert torch.equal(batch["labels"][inside] == 4, batch["pixel_values"][:, 0][inside] > 0.5)


def test_the_processor_brings_both_to_its_size_and_may_take_a_class_away():
    smaller = ImageCollator(segmenters((6, 10)), map_column="map")(maps())
    assert smaller["labels"].shape == (6, 6, 10)
    assert torch.equal(
        smaller["labels"], torch.tensor(np.stack([np.asarray(row["map"])[1::2, 1::2] for row in maps()]))
    )
    reduced = ImageCollator(segmenters(do_reduce_labels=True), map_column="map")(maps())
    plain = ImageCollator(segmenters(), map_column="map")(maps())["labels"]
    assert torch.equal(reduced["labels"], torch.where(plain == 0, 255, plain - 1))


def test_a_map_may_be_an_array_have_a_palette_or_be_a_file():
    numbers = np.array([[0, 149], [255, 7]])
    palette = Image.fromarray(np.array([[0, 3], [1, 2]], dtype=np.uint8), mode="P")
    palette.putpalette([9, 9, 9] * 256)
    file = BytesIO()
    palette.save(file, "png")
    image = Image.new("RGB", (2, 2))
    for found, wanted in (
        (numbers, numbers),
        (palette, np.asarray(palette)),
        ({"bytes": file.getvalue()}, np.asarray(palette)),
    ):
        batch = ImageCollator(segmenters((2, 2)), map_column="map")([{"image": image, "map": found}])
        assert batch["labels"][0].tolist() == wanted.tolist()


def test_mixed_images_have_maps_without_a_class():
    collate = ImageCollator(segmenters(), mixup=1.0, map_column="map").for_training()
    assert (collate(maps())["labels"] == 255).all()


def test_rows_without_maps_have_no_labels():
    assert set(ImageCollator(segmenters(), map_column="map")([{"image": row["image"]} for row in maps()])) == {
        "pixel_values"
    }


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"map": Image.new("L", (4, 4))}, "row 0 of a batch has a map of 4 x 4 pixels for an image of 20 x 12: give"),
        (
            {"map": Image.new("RGB", (20, 12))},
            r"row 0 of a batch has a map of shape \[12, 20, 3\] and type uint8: give one",
        ),
        ({"map": np.ones((12, 20))}, r"a map of shape \[12, 20\] and type float64: give one channel of whole numbers"),
        ({"map": np.full((12, 20), 300)}, "row 0 of a batch has the class 300 in its map, image processors take 0 to"),
        ({"map": np.full((12, 20), -100)}, "row 0 of a batch has the class -100 in its map"),
        ({"map": {"bytes": b"no map"}}, "row 0 of a batch has a map that cannot be decoded"),
    ],
)
def test_a_map_that_is_none_is_named(changed, told):
    with pytest.raises(ValueError, match=told):
        ImageCollator(segmenters(), map_column="map")([{**maps(1)[0], **changed}])


def test_a_view_that_moves_no_map_and_a_processor_that_makes_no_labels_are_refused():
    def dark(image, draw):
        return image

    with pytest.raises(ValueError, match="the view dark was given with maps, which it cannot move as it moves their"):
        ImageCollator(segmenters(), views=[Flip(), dark], map_column="map")
    with pytest.raises(
        ValueError, match="ViTImageProcessorPil was given maps of classes, of which it makes no labels"
    ):
        ImageCollator(processor(), map_column="map")(maps())
