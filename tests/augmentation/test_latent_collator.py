"""Latents are drawn by the collator: they hang on a row and an epoch alone; real ones stand beside them."""

import pickle

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from hf_distill import LatentCollator, latent_rows

DRAWS = {"z": (3,), "noise": (2, 2)}


def collator(**options):
    return LatentCollator(**{"draws": DRAWS, "columns": {"class_labels": "label"}, **options})


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_row_has_its_own_latents_in_whatever_company_and_epoch_after_epoch_others():
    rows, training = list(latent_rows(8, classes=3)), collator().for_training()
    batch = training(rows)
    assert batch["class_labels"].tolist() == [0, 1, 2, 0, 1, 2, 0, 1]
    alone = [training([row]) for row in reversed(rows)]
    assert equal(batch, {name: torch.cat([one[name] for one in reversed(alone)]) for name in batch})
    assert len(batch["z"].unique(dim=0)) == 8  # also of rows of one class
    training.epoch = 1
    again = training(rows)
    assert not any(torch.equal(*pair) for pair in zip(batch["z"], again["z"], strict=True))
    assert not torch.equal(collator(seed=1).for_training()(rows)["z"], batch["z"])
    assert equal(pickle.loads(pickle.dumps(training))(rows), again)  # in a worker


def test_latents_are_normal():
    drawn = LatentCollator({"z": (200,)}).for_training()(latent_rows(200))["z"]
    assert drawn.mean().abs() < 0.02
    assert abs(drawn.std() - 1) < 0.02


def test_k_latents_recur_where_a_teacher_is_heard():
    rows, training, seen = latent_rows(4, classes=2), collator(recurring=3).for_training(), []
    for epoch in range(6):
        training.epoch = epoch
        seen.append(training(rows))
    assert all(equal(*pair) for pair in zip(seen[:3], seen[3:], strict=True))
    assert not torch.equal(seen[0]["z"], seen[1]["z"])
    alone = collator(recurring=1).for_training(taught=False)
    first = alone(rows)
    alone.epoch = 1
    assert not torch.equal(alone(rows)["z"], first["z"])


def test_an_evaluation_has_one_latent_a_row():
    rows, one = latent_rows(4, classes=2), collator()
    first = one(rows)
    one.epoch = 5
    assert equal(one(rows), first)
    assert not torch.equal(one.for_training()(rows)["z"], first["z"])


def test_what_is_read_is_the_same_in_every_epoch():
    rows = [{"mel": torch.ones(2, 3) * number} for number in range(3)]
    one = LatentCollator(columns={"spectrogram": "mel"})
    assert not one.always_new
    assert collator().always_new
    assert one.columns == {"mel"}
    assert collator(target="wave").columns == {"label", "row", "wave"}
    assert torch.equal(one(rows)["spectrogram"], torch.stack([row["mel"] for row in rows]))


def test_pictures_go_from_minus_1_to_1_and_a_row_without_one_is_nan():
    picture = np.array([[[0, 255, 0], [255, 0, 0]]], dtype=np.uint8)
    rows = [{"row": 0, "image": Image.fromarray(picture)}, {"row": 1, "image": None}, {"row": 2, "image": picture}]
    batch = LatentCollator({"z": (1,)}, target="image")(rows)
    assert batch["target"].shape == (3, 3, 1, 2)
    assert batch["target"][0].tolist() == batch["target"][2].tolist() == [[[-1, 1]], [[1, -1]], [[-1, -1]]]
    assert batch["target"][1].isnan().all()
    assert LatentCollator({"z": (1,)}, target="image")(rows[1:2])["target"].isnan().all()
    kinds = datasets.Features({"row": datasets.Value("int64"), "image": datasets.Image(decode=False)})
    held = datasets.Dataset.from_list(rows[:2], features=kinds)  # as a file holds it, not decoded yet
    assert torch.equal(LatentCollator({"z": (1,)}, target="image")(held)["target"][0], batch["target"][0])


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"recurring": 0}, "recurring=0 was given: give how many latents a row has"),
        ({"draws": None, "columns": None}, "was given neither draws nor columns: say what the generator reads"),
        ({"draws": {"z": ()}}, r"the shape \(\) was given for z: give the sizes of one row"),
        ({"draws": {"z": (2.0,)}}, r"the shape \(2.0,\) was given for z"),
        ({"columns": {"z": "label"}}, "z was to be drawn and to be read of a column"),
    ],
)
def test_settings_that_cannot_be_are_refused_in_one_sentence(options, told):
    with pytest.raises(ValueError, match=told):
        collator(**options)


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([{"label": 1}], r"row 0 of a batch has no 'row', by which its latents are drawn, only \['label'\]"),
        ([{"row": 1}], r"row 0 of a batch has no 'label', only \['row'\]: name its column"),
        ([{"row": 1, "label": [1]}, {"row": 2, "label": [1, 2]}], r"'label' has the shapes \[1\], \[2\] in one batch"),
        ([{"row": 1, "label": 1, "real": torch.ones(number)} for number in (2, 3)], r"'real' has the shapes \[2\], "),
        ([{"row": 1, "label": 1, "real": b"no picture"}], "row 0 of a batch has a picture that cannot be decoded"),
    ],
)
def test_rows_that_cannot_be_are_refused_in_one_sentence(rows, told):
    with pytest.raises(ValueError, match=told):
        collator(target="real" if "real" in rows[0] else None)(rows)


def test_rows_are_one_at_least():
    with pytest.raises(ValueError, match="0 rows of None classes were asked for"):
        latent_rows(0)
