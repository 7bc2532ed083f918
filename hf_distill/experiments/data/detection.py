"""Images with boxes: files and data sets of the Hub with a column of objects, COCO's JSON, canvases of digits.

Knows: columns, COCO's files, boxes and classes, and how to refuse bad ones in a sentence. Does not know: processors,
models, training.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar

from datasets import ClassLabel, Dataset, Features, Image, List, Value, concatenate_datasets

from hf_distill.experiments.data.canvases import canvases
from hf_distill.experiments.data.files import DataArguments, Splits, check_columns, cut, few, limited, read_files
from hf_distill.experiments.data.images import check_pictures

ROUNDING = 1.0
"""So many pixels a box may stand out of its image: annotations are rounded, and processors cut boxes off anyway."""

TURNED = 0x0112
"""EXIF's tag of how a camera was held; from 5 on height and width change places."""


@dataclass
class BoxDataArguments(DataArguments):
    """Where the images and their boxes come from; with nothing given, canvases of handwritten digits."""

    embedded: ClassVar[str] = "canvases of scikit-learn digits"

    train_file: str | None = field(
        default=None, metadata={"help": "parquet with images and objects, or COCO's json (instances_train.json)."}
    )
    image_folder: str | None = field(
        default=None, metadata={"help": "Where the images of COCO's json lie. Default: beside it."}
    )
    eval_image_folder: str | None = field(
        default=None, metadata={"help": "Where those of validation_file and test_file lie. Default: image_folder."}
    )
    image_column: str = field(default="image", metadata={"help": "The column with the image."})
    objects_column: str = field(
        default="objects",
        metadata={"help": "The column with its objects: bbox and category of each, as COCO has them."},
    )
    skip_faulty: bool = field(
        default=False, metadata={"help": "Leave out images with a box that cannot be, or that cannot be decoded."}
    )


def load_boxes(data: BoxDataArguments, seed: int, order: Mapping[str, int] | None = None) -> Splits:
    """Load the splits, with images under ``image`` and what they show under ``objects``.

    Args:
        data: where they come from.
        seed: of the draw, where fewer rows are asked for than there are.
        order: class name -> number, of a teacher; it is taken over if the rows have the same names.

    Returns:
        ``train``, ``validation`` and ``test``; ``objects`` holds ``bbox`` ([x, y, width, height] in pixels),
        ``category`` (a ``ClassLabel`` of all splits) and ``area``. What was left out is said.

    Raises:
        ValueError: a missing file or column, no images, a box that cannot be, a class that no training row has, a
            split without any box.
    """
    folders = {data.train_file: data.image_folder}
    folders |= {one: data.eval_image_folder or data.image_folder for one in (data.validation_file, data.test_file)}
    splits = read_files(data, canvases, {".json": lambda path: read_coco(path, folders[path])})
    wanted = [data.image_column, data.objects_column]
    check_columns(data, splits, wanted, "--image_column and --objects_column")
    names, left_out = None, {}
    for name, rows in splits.items():  # the training rows come first: they decide which classes there are
        images = rows.select_columns(data.image_column)
        if data.image_column != "image":
            images = images.rename_column(data.image_column, "image")
        check_pictures(images, "image", f"the column {data.image_column!r} of the {name} rows")
        objects, own = _objects(rows, data.objects_column, name)
        names = _classes(objects, own, order) if names is None else names
        faults = _faults(images, objects, name)
        if faults and not data.skip_faulty:
            more = f" ({len(faults)} images have such faults)" if len(faults) > 1 else ""
            raise ValueError(
                f"{next(iter(faults.values()))}{more}: correct it, or leave such images out with --skip_faulty 1."
            )
        left_out[name] = len(faults)
        kept = [number for number in range(len(rows)) if number not in faults]
        column = [_numbered(objects[number], names, f"{name} image {number}") for number in kept]
        features = Features({"objects": _features(names)})
        boxes = Dataset.from_dict({"objects": column}, features=features)
        splits[name] = concatenate_datasets([images.select(kept), boxes], axis=1)
    splits = limited(data, cut(splits, seed), seed)
    for name, rows in splits.items():  # those that were cut off or drawn too
        if not any(one["bbox"] for one in rows["objects"][:]):
            raise ValueError(
                f"none of the {len(rows)} {name} images has a box, so nothing can be learned or measured: give some "
                "that do."
            )
    told = ", ".join(f"{count} {name}" for name, count in left_out.items() if count)
    return Splits(splits, f"with faults, left out: {told}" if told else "")


def read_coco(path: str, folder: str | None = None) -> Dataset:
    """Read COCO's JSON of instances; crowds, which no detector is taught, are left out.

    Args:
        path: of the JSON.
        folder: where the images lie; None: beside it.

    Raises:
        ValueError: it is none, or an image is not there.
    """
    found, root = json.loads(Path(path).read_text(encoding="utf-8")), Path(folder or Path(path).parent)
    parts = ("images", "annotations", "categories")
    if not isinstance(found, dict) or not all(isinstance(found.get(part), list) for part in parts):
        raise ValueError("COCO's lists of images, annotations and categories were looked for, and are not all there")
    names = {one["id"]: one["name"] for one in sorted(found["categories"], key=lambda one: one["id"])}
    places = {number: place for place, number in enumerate(names)}
    objects = {one["id"]: {"bbox": [], "category": [], "area": []} for one in found["images"]}
    for one in found["annotations"]:
        if one["image_id"] not in objects:
            raise ValueError(f"annotation {one.get('id')} is of image {one['image_id']}, which is not listed")
        if one["category_id"] not in places:
            raise ValueError(f"annotation {one.get('id')} is of category {one['category_id']}, which is not listed")
        if not one.get("iscrowd"):
            own = objects[one["image_id"]]
            own["bbox"].append(one["bbox"])
            own["category"].append(places[one["category_id"]])
            own["area"].append(one.get("area", one["bbox"][2] * one["bbox"][3]))
    files = [root / one["file_name"] for one in found["images"]]
    if missing := [file.name for file in files if not file.is_file()]:
        raise ValueError(
            f"{len(missing)} of its {len(files)} images are not in {root}, {missing[0]} is the first; name another "
            "folder with --image_folder or --eval_image_folder"
        )
    features = Features({"image": Image(), "objects": _features(list(names.values()))})
    return Dataset.from_dict(
        {"image": [str(file) for file in files], "objects": list(objects.values())}, features=features
    )


def _features(names: list[str]) -> dict[str, Any]:
    category = List(ClassLabel(names=names))
    return {"bbox": List(List(Value("float32"), length=4)), "category": category, "area": List(Value("float32"))}


def _objects(rows: Dataset, column: str, split: str) -> tuple[list[dict[str, list]], list[str] | None]:
    """Bring objects into one form, with classes by name; and say which names the column has, if it has some."""
    feature, found = rows.features[column], []
    inner = getattr(feature, "feature", feature)  # a list of mappings, or a mapping of lists
    if not isinstance(inner, Mapping) or not {"bbox", "category"} <= inner.keys():
        raise ValueError(
            f"the column {column!r} of the {split} rows holds {list(inner) if isinstance(inner, Mapping) else inner}: "
            "give each image bbox ([x, y, width, height] of each) and category, or name another with --objects_column."
        )
    names = getattr(getattr(inner["category"], "feature", inner["category"]), "names", None)
    for number, one in enumerate(rows[column][:]):
        if isinstance(one, list):
            one = {key: [each[key] for each in one] for key in inner}
        boxes, classes = ((one or {}).get(key) or [] for key in ("bbox", "category"))
        if len(boxes) != len(classes) or any(box is None or len(box) != 4 for box in boxes):
            raise ValueError(
                f"{split} image {number} has {len(boxes)} boxes and {len(classes)} classes: give each box four "
                "numbers and a class."
            )
        for label in classes:
            many = None if names is None or isinstance(label, str) else len(names)
            if label is None or (isinstance(label, int) and not 0 <= label < (label + 1 if many is None else many)):
                known = "" if names is None else f", and the column has {few(names)}"
                raise ValueError(f"{split} image {number} has a box of class {label}{known}: give each box one class.")
        areas = (one or {}).get("area") or [box[2] * box[3] for box in boxes]
        labels = [str(label) if names is None else names[label] for label in classes]
        found.append({"bbox": boxes, "category": labels, "area": areas})
    return found, names


def _classes(objects: list[dict[str, list]], own: list[str] | None, order: Mapping[str, int] | None) -> list[str]:
    """Name the classes in their order: a teacher's, the column's, that of numbers, or the alphabet's."""
    found = own or sorted({name for one in objects for name in one["category"]})
    if own is None and found and all(name.isdecimal() for name in found):  # numbers have no gaps in a model
        found = [str(number) for number in range(max(map(int, found)) + 1)]
    return sorted(found, key=order.get) if order is not None and sorted(order) == sorted(found) else found


def _numbered(one: dict[str, list], names: list[str], who: str) -> dict[str, list]:
    """Number the classes of an image."""
    if unknown := [name for name in one["category"] if name not in names]:
        raise ValueError(
            f"{who} has a box of class {unknown[0]}, the training images have {few(names)}: correct it, or add "
            "training images with it."
        )
    return {**one, "category": [names.index(name) for name in one["category"]]}


def _faults(images: Dataset, objects: list[dict[str, list]], split: str) -> dict[int, str]:
    """Find images that cannot be decoded, and those with a box that cannot be: number -> what is wrong, in words."""
    found = {}
    for number, (row, one) in enumerate(zip(images.cast_column("image", Image(decode=False)), objects, strict=True)):
        who = f"{split} image {number}"
        try:
            width, height = _size(row["image"])
        except (OSError, TypeError, ValueError) as error:  # what Pillow cannot identify is an OSError
            found[number] = f"{who} cannot be decoded ({' '.join(str(error).split())[:80]})"
            continue
        for box in one["bbox"]:
            x, y, wide, high = box
            shown = "[" + ", ".join(f"{each:g}" for each in box) + "]"
            if not (wide > 0 and high > 0):  # NaN is no size either
                found[number] = f"{who} has a box without a size, {shown} (x, y, width, height)"
            elif min(x, y) < -ROUNDING or x + wide > width + ROUNDING or y + high > height + ROUNDING:
                found[number] = (
                    f"{who} has {width} x {height} pixels and a box out of it, {shown} (x, y, width, height)"
                )
    return found


def _size(image: Mapping[str, Any]) -> tuple[int, int]:
    """Read width and height off an image's head, as datasets will decode it: turned as its camera was."""
    from PIL import Image as Picture

    data = image["path"] if image["bytes"] is None else BytesIO(image["bytes"])
    with Picture.open(data) as opened:
        size = opened.size
        return size[::-1] if opened.getexif().get(TURNED, 1) >= 5 else size
