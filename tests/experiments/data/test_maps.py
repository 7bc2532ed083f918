"""Images with maps: how many classes they have, what they are called, rows that are drawn."""

import numpy as np
import pytest
from datasets import Dataset, Features
from datasets import Image as ImageFeature
from PIL import Image

from hf_distill.experiments.data import maps
from hf_distill.experiments.data.maps import MapDataArguments, load_maps, names_of


def rows(*numbers):
    made = [Image.fromarray(np.full((2, 3), number, dtype=np.uint8)) for number in numbers]
    columns = {"image": [one.convert("RGB") for one in made], "map": made}
    return Dataset.from_dict(columns, features=Features({"image": ImageFeature(), "map": ImageFeature()}))


def test_the_largest_number_says_how_many_classes_there_are_and_255_is_none():
    data = MapDataArguments(train_file="mine.parquet")
    assert names_of(data, rows(0, 3, 255)) == ["LABEL_0", "LABEL_1", "LABEL_2", "LABEL_3"]
    data.reduce_labels = True
    assert names_of(data, rows(0, 3, 255)) == ["LABEL_0", "LABEL_1", "LABEL_2"]
    with pytest.raises(ValueError, match="the maps have 1 class, so there is nothing to learn"):
        names_of(data, rows(0, 1))


def test_a_finished_teacher_names_the_classes_and_a_file_may_do_it_anew(tmp_path):
    data = MapDataArguments(train_file="mine.parquet", class_names=str(tmp_path / "names.txt"))
    (tmp_path / "names.txt").write_text("ground\n\nroad\n", encoding="utf-8")
    assert names_of(MapDataArguments(train_file="mine.parquet"), rows(0), ["a", "b", "c"]) == ["a", "b", "c"]
    assert names_of(data, rows(0), ["a", "b"]) == ["ground", "road"]
    with pytest.raises(ValueError, match="names 2 classes, the teacher has 3: name as many"):
        names_of(data, rows(0), ["a", "b", "c"])


def test_the_maps_of_some_images_are_told_and_those_of_the_others_kept(monkeypatch):
    splits = {"train": rows(*range(8)), "validation": rows(0), "test": rows(1)}
    monkeypatch.setattr(maps, "read_files", lambda data, embedded: dict(splits))
    found = load_maps(MapDataArguments(labeled_samples=3), 0)
    numbers = [[np.asarray(row["map"])[0, 0] for row in found[name]] for name in ("train", "unlabeled")]
    assert [len(one) for one in numbers] == [3, 5]
    assert sorted(numbers[0] + numbers[1]) == list(range(8))
    again = load_maps(MapDataArguments(labeled_samples=3), 0)
    assert [np.asarray(row["map"])[0, 0] for row in again["train"]] == numbers[0]
