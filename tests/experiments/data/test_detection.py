"""Images with boxes from parquet and from COCO's JSON: one form, classes by name, and a sentence for each fault."""

import json

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, List, Value
from datasets import Image as ImageFeature
from PIL import Image

from hf_distill.experiments.data import canvases
from hf_distill.experiments.data.detection import BoxDataArguments, load_boxes

BOXES = [[[1, 2, 10, 8], [4, 4, 3, 3]], [], [[0, 0, 30, 20]], [[5, 5, 5, 5]]]
CLASSES = [["cat", "dog"], [], ["dog"], ["cat"]]


def pictures(count=4):
    draw = np.random.default_rng(0)
    return [Image.fromarray(draw.integers(0, 256, (20, 30, 3), dtype=np.uint8)) for _ in range(count)]


def parquet(path, boxes=BOXES, classes=CLASSES, category="string", image="image", objects="objects", images=None):
    """Rows in the form of most data sets of the Hub: a mapping of lists."""
    category = Value(category) if isinstance(category, str) else category
    inner = {"id": List(Value("int64")), "bbox": List(List(Value("float32"))), "category": List(category)}
    rows = {
        image: images or pictures(len(boxes)),
        objects: [
            {"id": list(range(len(own))), "bbox": own, "category": labels}
            for own, labels in zip(boxes, classes, strict=True)
        ],
    }
    Dataset.from_dict(rows, features=Features({image: ImageFeature(), objects: inner})).to_parquet(path)
    return str(path)


def load(**given):
    return load_boxes(BoxDataArguments(**given), 0)


def files(tmp_path, **given):
    """The same rows for training and validation."""
    one = parquet(tmp_path / "rows.parquet", **given)
    return {"train_file": one, "validation_file": one}


def test_without_arguments_there_are_canvases(monkeypatch):
    monkeypatch.setattr(canvases, "COUNTS", {"train": 6, "validation": 4, "test": 5})
    splits = load(max_eval_samples=4)
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 6, "validation": 4, "test": 4}
    assert splits["train"].column_names == ["image", "objects"]
    assert splits["train"].features["objects"]["category"].feature.names == [str(number) for number in range(10)]


def test_a_mapping_of_lists_with_names(tmp_path):
    splits = load(
        **files(tmp_path, image="picture", objects="things"), image_column="picture", objects_column="things"
    )
    rows = splits["train"]
    assert rows.features["objects"]["category"].feature.names == ["cat", "dog"]
    assert rows["objects"][:] == [
        {"bbox": [[1, 2, 10, 8], [4, 4, 3, 3]], "category": [0, 1], "area": [80, 9]},
        {"bbox": [], "category": [], "area": []},
        {"bbox": [[0, 0, 30, 20]], "category": [1], "area": [600]},
        {"bbox": [[5, 5, 5, 5]], "category": [0], "area": [25]},
    ]
    assert rows[2]["image"].tobytes() == pictures()[2].tobytes()
    assert splits.left_out == ""


def test_a_list_of_mappings(tmp_path):
    inner = List({"bbox": List(Value("int64")), "category": Value("string")})
    objects = [
        [{"bbox": box, "category": label} for box, label in zip(boxes, labels, strict=True)]
        for boxes, labels in zip(BOXES, CLASSES, strict=True)
    ]
    features = Features({"image": ImageFeature(), "objects": inner})
    Dataset.from_dict({"image": pictures(), "objects": objects}, features=features).to_parquet(tmp_path / "a.parquet")
    given = {"train_file": str(tmp_path / "a.parquet"), "validation_file": str(tmp_path / "a.parquet")}
    assert load(**given)["train"]["objects"][:] == load(**files(tmp_path))["train"]["objects"][:]


def test_classes_are_the_columns_own_those_of_numbers_or_a_teachers(tmp_path):
    named = ClassLabel(names=["dog", "fish", "cat"])
    own = load(**files(tmp_path, category=named))["train"]
    assert own.features["objects"]["category"].feature.names == ["dog", "fish", "cat"]
    assert own["objects"][0]["category"] == [2, 0]
    numbers = load(**files(tmp_path, classes=[[3, 1], [], [1], [3]], category="int64"))["train"]
    assert numbers.features["objects"]["category"].feature.names == ["0", "1", "2", "3"]
    assert numbers["objects"][0]["category"] == [3, 1]
    taught = load_boxes(BoxDataArguments(**files(tmp_path)), 0, {"dog": 0, "cat": 1})["train"]
    assert taught["objects"][0]["category"] == [1, 0]


def test_validation_classes_are_found_by_name(tmp_path):
    train = parquet(tmp_path / "train.parquet", category=ClassLabel(names=["cat", "dog"]))
    validation = parquet(tmp_path / "validation.parquet", category=ClassLabel(names=["dog", "cat"]))
    splits = load(train_file=train, validation_file=validation)
    assert splits["validation"]["objects"][:] == splits["train"]["objects"][:]
    assert splits["validation"].features == splits["train"].features


def coco(folder, **changes):
    folder.mkdir(exist_ok=True)
    for number, picture in enumerate(pictures(2)):
        picture.save(folder / f"{number}.png")
    found = {
        "images": [{"id": 7, "file_name": "0.png"}, {"id": 9, "file_name": "1.png"}],
        "categories": [{"id": 90, "name": "dog"}, {"id": 3, "name": "cat"}],
        "annotations": [
            {"id": 1, "image_id": 9, "category_id": 90, "bbox": [1, 2, 3, 4], "area": 5, "iscrowd": 0},
            {"id": 2, "image_id": 9, "category_id": 3, "bbox": [0, 0, 4, 4], "area": 16},
            {"id": 3, "image_id": 7, "category_id": 3, "bbox": [0, 0, 30, 20], "iscrowd": 1},
        ],
        **changes,
    }
    (folder / "instances.json").write_text(json.dumps(found))
    return str(folder / "instances.json")


def test_coco_files(tmp_path):
    one = coco(tmp_path / "beside")
    elsewhere = tmp_path / "instances_val.json"
    elsewhere.write_text((tmp_path / "beside" / "instances.json").read_text())
    splits = load(train_file=one, validation_file=str(elsewhere), eval_image_folder=str(tmp_path / "beside"))
    for name in ("train", "validation"):
        rows = splits[name]
        assert rows.features["objects"]["category"].feature.names == ["cat", "dog"]
        assert rows["objects"][0] == {"bbox": [], "category": [], "area": []}  # a crowd is no box
        assert rows["objects"][1] == {"bbox": [[1, 2, 3, 4], [0, 0, 4, 4]], "category": [1, 0], "area": [5, 16]}
        assert rows[1]["image"].tobytes() == pictures(2)[1].tobytes()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"annotations": None}, "images, annotations and categories were looked for"),
        (
            {"annotations": [{"id": 4, "image_id": 1, "category_id": 3, "bbox": [0, 0, 1, 1]}]},
            "4 is of image 1, which",
        ),
        (
            {"annotations": [{"id": 4, "image_id": 7, "category_id": 5, "bbox": [0, 0, 1, 1]}]},
            "4 is of category 5, wh",
        ),
        ({"images": [{"id": 7, "file_name": "gone.png"}]}, "1 of its 1 images are not in .*, gone.png is the first"),
    ],
)
def test_coco_files_that_are_none(tmp_path, changes, told):
    annotations = [] if "images" in changes else None
    changes = {**({"annotations": annotations} if annotations is not None else {}), **changes}
    with pytest.raises(ValueError, match=told) as caught:
        load(train_file=coco(tmp_path / "coco", **changes))
    assert "\n" not in str(caught.value)


FAULTS = [
    ({"boxes": [[[1, 2, 10, 8]], [[25, 2, 10, 8]]]}, "train image 1 has 30 x 20 pixels and a box out of it, "),
    (
        {"boxes": [[[1, 2, 10, 8]], [[-3, 2, 10, 8]]]},
        r"a box out of it, \[-3, 2, 10, 8\] \(x, y, width, height\)",
    ),
    ({"boxes": [[[1, 2, 10, 8]], [[1, 2, 0, 8]]]}, r"image 1 has a box without a size, \[1, 2, 0, 8\] \(x, y, width"),
    ({"boxes": [[[1, 2, 10, 8]], [[1, 2, 3, float("nan")]]]}, r"image 1 has a box without a size, \[1, 2, 3, nan\]"),
    ({"images": [pictures()[0], {"bytes": b"no image", "path": None}]}, "train image 1 cannot be decoded "),
]


@pytest.mark.parametrize(("given", "told"), FAULTS)
def test_a_faulty_image_is_refused_or_left_out(tmp_path, given, told):
    given = {"boxes": [[[1, 2, 10, 8]], [[1, 2, 3, 3]]], "classes": [["cat"], ["dog"]], **given}
    given = files(tmp_path, **given)
    with pytest.raises(ValueError, match=told + r".*correct it, or leave such images out with --skip_faulty 1\.$"):
        load(**given)
    splits = load(**given, skip_faulty=True)
    assert len(splits["train"]) == len(splits["validation"]) == 1
    assert splits.left_out == "with faults, left out: 1 train, 1 validation"


def test_a_box_may_stand_out_by_a_pixel(tmp_path):
    boxes = [[[-1, 0, 10, 8]], [[21, 11, 10, 10]]]
    assert len(load(**files(tmp_path, boxes=boxes, classes=[["cat"], ["dog"]]))["train"]) == 2


def test_a_turned_image_has_the_size_of_what_is_seen(tmp_path):
    turned = Image.Exif()
    turned[0x0112] = 6
    pictures()[0].save(tmp_path / "turned.jpg", exif=turned)
    images = [{"bytes": (tmp_path / "turned.jpg").read_bytes(), "path": None}]
    rows = load(**files(tmp_path, boxes=[[[0, 0, 20, 30]]], classes=[["cat"]], images=images))["train"]
    assert rows[0]["image"].size == (20, 30)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (
            {"boxes": [[], []], "classes": [[], []]},
            "none of the 2 train images has a box, so nothing can be learned or measured: give",
        ),
        (
            {"boxes": [[[1, 2, 3]]], "classes": [["cat"]]},
            "train image 0 has 1 boxes and 1 classes: give each box four",
        ),
        ({"boxes": [[[1, 2, 3, 4]]], "classes": [["cat", "dog"]]}, "image 0 has 1 boxes and 2 classes: give each box"),
        (
            {"boxes": [[[1, 2, 3, 4]]], "classes": [[-2]], "category": "int64"},
            "image 0 has a box of class -2: give ea",
        ),
        (
            {"boxes": [[[1, 2, 3, 4]]], "classes": [[None]]},
            "train image 0 has a box of class None: give each box one c",
        ),
        ({"image": "img"}, r"the train rows of .* have the columns \['img', 'objects'\], \['image'\] was asked for"),
    ],
)
def test_rows_that_cannot_be_read_are_refused(tmp_path, given, told):
    with pytest.raises(ValueError, match=told) as caught:
        load(**files(tmp_path, **given))
    assert "\n" not in str(caught.value)


def test_a_class_out_of_range(tmp_path):
    given = {"boxes": [[[1, 2, 3, 4]]], "classes": [[2]], "category": "int64"}
    path = parquet(tmp_path / "rows.parquet", **given)
    rows = Dataset.from_parquet(path)
    names = ClassLabel(names=["cat", "dog"])
    rows = rows.cast(
        Features({**rows.features, "objects": {**rows.features["objects"], "category": List(Value("int64"))}})
    )
    features = Features({**rows.features, "objects": {**rows.features["objects"], "category": List(names)}})
    table = rows.data.table.replace_schema_metadata(features.arrow_schema.metadata)
    Dataset(table).to_parquet(path)
    with pytest.raises(ValueError, match="train image 0 has a box of class 2, and the column has cat, dog: give each"):
        load(train_file=path)


def test_a_class_that_no_training_image_has(tmp_path):
    train = parquet(tmp_path / "train.parquet")
    other = parquet(tmp_path / "test.parquet", boxes=[[[1, 2, 3, 4]]], classes=[["fish"]])
    with pytest.raises(
        ValueError, match="test image 0 has a box of class fish, the training images have cat, dog: co"
    ):
        load(train_file=train, test_file=other)


def test_a_column_that_is_none_of_objects(tmp_path):
    given = files(tmp_path)
    with pytest.raises(ValueError, match=r"the column 'image' of the train rows holds Image.*--objects_column"):
        load(**given, objects_column="image")
    with pytest.raises(ValueError, match=r"the column 'objects' of the train rows holds .*, no images: cast it"):
        load(**given, image_column="objects")


def test_images_that_were_drawn_and_have_no_box(tmp_path):
    boxes = [[[1, 2, 3, 4]], *[[]] * 30]
    given = files(tmp_path, boxes=boxes, classes=[["cat"], *[[]] * 30])
    with pytest.raises(ValueError, match="none of the 2 validation images has a box, so nothing can be learned or"):
        load(**given, max_eval_samples=2)
