"""The recipe of maps as users start it: no argument, folders, parquet, a teacher by path, few maps, bad input."""

import json

import numpy as np
import pytest
from datasets import Dataset, Features
from datasets import Image as ImageFeature
from huggingface_hub import ModelCard
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation

from hf_distill.cli.recipes import recipe_module
from hf_distill.experiments.data import canvases, maps
from hf_distill.experiments.own_teacher import content_of

segmentation = recipe_module("segmentation")

FLAGS = [
    "--max_steps", "2", "--num_threads", "1", "--report_to", "none", "--disable_tqdm", "1", "--bf16", "0",
    "--teacher_hidden_size", "16", "--student_hidden_size", "8", "--image_size", "32", "--max_eval_samples", "8",
]  # fmt: skip


@pytest.fixture(scope="module")
def few():
    return canvases.canvases(counts={"train": 24, "validation": 8, "test": 12})


@pytest.fixture(autouse=True)
def few_canvases(monkeypatch, few):
    monkeypatch.setattr(maps, "canvases", lambda: few)


def run(folder, *flags):
    return segmentation.RECIPE.main(["--output_dir", str(folder / "run"), *FLAGS, *flags])


def pairs(n=12, classes=3, seed=0):
    draw = np.random.default_rng(seed)
    made = [np.kron(draw.integers(0, classes, (3, 4)), np.ones((4, 4))).astype(np.uint8) for _ in range(n)]
    return [(Image.fromarray(60 * one).convert("RGB"), Image.fromarray(one)) for one in made]


def folders(path, n=12):
    for number, (image, classes) in enumerate(pairs(n)):
        for part, one in (("images", image), ("maps", classes)):
            (path / part).mkdir(parents=True, exist_ok=True)
            one.save(path / part / f"{number:02}.png")
    return str(path)


def parquet(path, n=12):
    features = Features({"photo": ImageFeature(), "mask": ImageFeature()})
    images, classes = zip(*pairs(n), strict=True)
    Dataset.from_dict({"photo": list(images), "mask": list(classes)}, features=features).to_parquet(path)
    return ["--train_file", str(path), "--image_column", "photo", "--map_column", "mask"]


def test_the_whole_job_on_canvases(tmp_path):
    report = run(tmp_path, "--shift", "2", "--flip", "1", "--views", "2", "--labeled_samples", "8")
    folder = tmp_path / "run"
    assert [row["name"] for row in report["models"]] == ["teacher", "student alone", "distilled"]
    assert report["rows"] == {"train": 8, "validation": 8, "test": 8, "unlabeled": 16}
    assert all({"mean_iou", "pixel_accuracy", "agreement", "mean_iou_error"} <= row.keys() for row in report["models"])
    assert report["models"][0]["agreement"] == 1.0
    assert report["models"][2]["parameters"] < report["models"][0]["parameters"]
    assert list(report["class_ious"]["teacher"]) == ["background", *map(str, range(10))]
    assert json.loads((folder / "report.json").read_text(encoding="utf-8"))["summary"] == report["summary"]
    student = AutoModelForSemanticSegmentation.from_pretrained(folder)
    assert student.config.id2label[1] == "0"
    assert AutoImageProcessor.from_pretrained(folder).size["height"] == 32
    card = ModelCard.load(folder / "README.md")
    assert card.data.pipeline_tag == "image-segmentation"
    assert "mean iou" in card.content
    assert "maps.png" in card.content
    assert (folder / "maps.png").stat().st_size > 1000


@pytest.mark.slow
def test_folders_and_a_kept_teacher(tmp_path):
    flags = ["--train_file", folders(tmp_path / "train", 16), "--test_file", folders(tmp_path / "test", 6)]
    first = run(tmp_path / "first", *flags, "--crop", "0.5")
    assert first["rows"] == {"train": 15, "validation": 1, "test": 6}
    kept = next((tmp_path / "first" / "run").glob("_teacher-*"))
    again = run(tmp_path / "again", *flags, "--teacher_model_name_or_path", str(kept), "--skip_alone")
    assert again["models"][0]["mean_iou"] == pytest.approx(first["models"][0]["mean_iou"], abs=1e-6)
    assert list(again["class_ious"]["teacher"]) == ["LABEL_0", "LABEL_1", "LABEL_2"]


def test_another_map_makes_another_teacher(tmp_path):
    from hf_distill.experiments import experiment

    seen = []

    def stop(trainer, *args):
        seen.append(trainer.args.output_dir)
        raise KeyboardInterrupt

    whole = pytest.MonkeyPatch()
    whole.setattr(experiment, "train", stop)
    for turned in (False, True):
        folders(tmp_path / "rows")
        if turned:
            for file in (tmp_path / "rows" / "maps").glob("*.png"):
                Image.fromarray(np.asarray(Image.open(file))[::-1].copy()).save(file)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, "--train_file", str(tmp_path / "rows"))
    whole.undo()
    assert len(set(seen)) == 2


def test_a_parquet_file_and_names_of_classes(tmp_path):
    (tmp_path / "names.txt").write_text("ground\nroad\n天空\n", encoding="utf-8")
    flags = [*parquet(tmp_path / "rows.parquet"), "--class_names", str(tmp_path / "names.txt")]
    job = segmentation.RECIPE.prepare(["--output_dir", str(tmp_path / "run"), *FLAGS, *flags])
    assert job.kind.names == ["ground", "road", "天空"]
    batch = job.options["data_collator"]([job.splits["train"][0]])
    assert batch["labels"].shape == (1, 32, 32)
    assert set(batch["labels"].unique().tolist()) <= {0, 1, 2}


def test_where_0_is_no_class_1_is_the_first(tmp_path):
    job = segmentation.RECIPE.prepare(
        ["--output_dir", str(tmp_path / "run"), *FLAGS, *parquet(tmp_path / "rows.parquet"), "--reduce_labels", "1"]
    )
    assert job.kind.names == ["LABEL_0", "LABEL_1"]
    batch = job.options["data_collator"](list(job.splits["train"]))
    assert set(batch["labels"].unique().tolist()) == {0, 1, 255}


def test_a_student_is_told_few_maps_and_a_teacher_all(tmp_path):
    job = segmentation.RECIPE.prepare(["--output_dir", str(tmp_path / "run"), *FLAGS, "--labeled_samples", "5"])
    collate = job.options["data_collator"]
    taught, told = job.student_splits["train"], job.teacher_rows
    assert len(job.splits["train"]) == 5
    assert len(taught) == len(told) == 24
    known = [(collate(list(rows))["labels"] != 255).flatten(1).any(1).sum().item() for rows in (taught, told)]
    assert known == [5, 24]
    assert [row["image"].tobytes() for row in taught] == [row["image"].tobytes() for row in told]


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--map_column", "mask"], "was asked for: name them with --image_column and --map_column"),
        (["--labeled_samples", "24"], "labeled_samples=24 was given for 24 training images: give at least one"),
        (["--teacher_hidden_size", "18"], "teacher_hidden_size=18 was given: give a multiple of 4"),
        (["--train_file", "{}/lonely"], "and 07 has no partner: give each file in images/ one of the same name"),
        (["--train_file", "{}/empty"], "images holds no image: give each file in images/ one"),
        (["--train_file", "{}/rows.csv"], "the column 'image' of the train rows holds Value.'string'., no images"),
        (["--labeled_samples", "5", "--class_names", "{}/nowhere.txt"], "there is no such file: check the path"),
        (
            ["--labeled_samples", "5", "--class_names", "{}/one.txt"],
            "the maps have 1 class, so there is nothing to learn",
        ),
    ],
)
def test_what_cannot_be_read_is_told_in_a_sentence(tmp_path, flags, told):
    folders(tmp_path / "lonely")
    (tmp_path / "lonely" / "maps" / "07.png").unlink()
    (tmp_path / "empty").mkdir()
    (tmp_path / "one.txt").write_text("ground\n", encoding="utf-8")
    (tmp_path / "rows.csv").write_text("image,map\na.png,b.png\nb.png,c.png\n", encoding="utf-8")
    with pytest.raises(ValueError, match=told):
        run(tmp_path, *[flag.format(tmp_path) for flag in flags])


def test_cutmix_of_the_command_line_reaches_the_batches(tmp_path):
    flags = [
        "--output_dir",
        str(tmp_path / "run"),
        *FLAGS,
        "--labeled_samples",
        "8",
        "--cutmix",
        "1",
        "--mixup",
        "0.2",
    ]
    mixing = segmentation.RECIPE.prepare(flags).options["data_collator"].mixing
    assert (mixing.cutmix, mixing.mixup) == (1.0, 0.2)


def test_a_row_without_a_map_is_a_part_of_what_names_the_teacher():
    drawn = Image.fromarray(np.zeros((2, 2), dtype=np.uint8))
    both = [
        Dataset.from_dict({"map": maps_of}, features=Features({"map": ImageFeature()}))
        for maps_of in ([drawn], [None])
    ]
    named = [content_of(rows.cast_column("map", ImageFeature(decode=False))) for rows in both]
    assert named[0] != named[1]
