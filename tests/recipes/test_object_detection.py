"""The recipe of detectors as users start it: no argument, parquet, a teacher by path with images of its own."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict
from datasets import Image as ImageFeature
from huggingface_hub import ModelCard
from transformers import AutoImageProcessor, AutoModelForObjectDetection

from hf_distill import BoxCollator
from hf_distill.cli.recipes import recipe_module
from hf_distill.experiments.data import canvases
from hf_distill.experiments.detection import boxes_of
from hf_distill.experiments.detectors import blank_detector, made_processor
from hf_distill.experiments.experiment import make_teacher

object_detection = recipe_module("object_detection")

FLAGS = [
    "--max_steps", "2", "--num_threads", "1", "--report_to", "none", "--disable_tqdm", "1", "--bf16", "0",
    "--teacher_layers", "1", "--teacher_hidden_size", "16", "--student_hidden_size", "8", "--image_size", "32",
    "--per_device_train_batch_size", "4",
]  # fmt: skip


def run(folder, *flags):
    return object_detection.RECIPE.main(["--output_dir", str(folder / "run"), *FLAGS, *flags])


@pytest.fixture(autouse=True, scope="module")
def few():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(canvases, "COUNTS", {"train": 16, "validation": 4, "test": 6})
        yield


@pytest.fixture(scope="module")
def default(tmp_path_factory):
    """One run on canvases; the students are looked at while they are trained."""
    folder = tmp_path_factory.mktemp("detection")
    return folder / "run", run(folder, "--flip", "1", "--eval_strategy", "epoch", "--per_device_eval_batch_size", "4")


def test_the_whole_job_on_canvases(default):
    folder, report = default
    assert [row["name"] for row in report["models"]] == ["teacher", "student alone", "distilled"]
    assert report["rows"] == {"train": 16, "validation": 4, "test": 6}
    assert report["counted"] == "6 images"
    assert all({"ap", "ap_error", "ap50", "ap75", "samples_per_second"} <= row.keys() for row in report["models"])
    assert report["models"][2]["parameters"] < report["models"][0]["parameters"]
    assert report["class_ap"].keys() == {str(number) for number in range(10)}
    assert json.loads((folder / "report.json").read_text(encoding="utf-8"))["models"] == report["models"]
    student = AutoModelForObjectDetection.from_pretrained(folder)
    assert student.config.id2label == {number: str(number) for number in range(10)}
    assert AutoImageProcessor.from_pretrained(folder).size["height"] == 32
    assert (folder / "boxes.png").stat().st_size > 5000
    card = ModelCard.load(folder / "README.md")
    assert card.data.pipeline_tag == "object-detection"
    assert "AutoModelForObjectDetection" in card.content or 'pipeline("object-detection"' in card.content


def test_the_validation_rows_are_measured_while_a_student_is_trained(default):
    folder, report = default
    job = object_detection.RECIPE.prepare(["--output_dir", str(folder.parent / "other"), *FLAGS])
    found = job.distilled(str(next(folder.glob("_teacher-*"))), job.args).evaluate()
    assert {"eval_ap", "eval_ap50", "eval_ap75", "eval_loss/hard", "eval_loss/boxes"} <= found.keys()
    assert report["settings"]["objective"] == {"forward_kl": 1.0, "boxes": 1.0, "hidden_mse": 1.0}


@pytest.mark.slow
def test_a_teacher_is_kept_for_the_same_boxes_alone(default, monkeypatch, capsys):
    folder, _ = default
    kept = sorted(folder.glob("_teacher-*"))
    assert len(kept) == 1
    made = canvases.canvases

    def named_ones():
        splits = made()
        rows = [
            {**row, "objects": {**row["objects"], "category": [1] * len(row["objects"]["id"])}}
            for row in splits["train"]
        ]
        return DatasetDict({**splits, "train": Dataset.from_list(rows, features=splits["train"].features)})

    for source, before in ((made, kept), (named_ones, [])):
        monkeypatch.setattr("hf_distill.experiments.data.detection.canvases", source)
        job = object_detection.RECIPE.prepare(["--output_dir", str(folder.parent / "again"), *FLAGS, "--flip", "1"])
        job.root = folder
        make_teacher(job)
        assert ("using the teacher kept" in capsys.readouterr().out) == bool(before)


def detector(folder, side):
    """An untrained detector whose classes stand in an order of their own, and the processor of its images."""
    config = blank_detector(object_detection.Arguments(teacher_hidden_size=8, teacher_layers=1), None)
    config.id2label = {number: str(9 - number) for number in range(10)}
    config.label2id = {name: number for number, name in config.id2label.items()}
    model = AutoModelForObjectDetection.from_config(config)
    model.save_pretrained(folder)
    made_processor(side).save_pretrained(folder)
    return model.eval()


def as_it_says(model, rows, side):
    """The same images, with what the model finds in them for their objects."""
    collator, found = BoxCollator(made_processor(side)), []
    for row in rows:
        batch = collator([row])
        with torch.no_grad():
            shown = model(pixel_values=batch["pixel_values"])
        outputs = [(shown.logits.numpy(), shown.pred_boxes.numpy())]
        said = boxes_of(SimpleNamespace(predictions=outputs, label_ids=[batch["labels"]]), collator.processor)[0][0]
        corners = said.corners.clip(0, 64)
        boxes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
        kept = (boxes[:, 2:] > 1).all(axis=1)
        objects = {"bbox": boxes[kept].tolist(), "category": [str(9 - label) for label in said.labels[kept]]}
        found.append({"image": row["image"], "objects": objects})
    return Dataset.from_list(found).cast_column("image", ImageFeature())


@pytest.mark.slow
def test_parquet_and_a_teacher_by_path_that_reads_larger_images(tmp_path):
    torch.manual_seed(0)
    teacher = detector(tmp_path / "teacher", 64)
    detector(tmp_path / "student", 32)
    for name, rows in canvases.canvases(1, {"train": 8, "test": 5}).items():
        as_it_says(teacher, rows, 64).to_parquet(tmp_path / f"{name}.parquet")
    flags = ["--train_file", str(tmp_path / "train.parquet"), "--test_file", str(tmp_path / "test.parquet")]
    for who in ("teacher", "student"):
        flags += [f"--{who}_model_name_or_path", str(tmp_path / who)]
    report = run(tmp_path, *flags, "--skip_alone", "1")
    assert [row["name"] for row in report["models"]] == ["teacher", "distilled"]
    assert report["rows"]["test"] == 5
    # In the student's images it would find something else: here it is right by construction.
    assert report["models"][0]["ap50"] > 0.95
    assert report["models"][1]["ap50"] < 0.5
    assert AutoModelForObjectDetection.from_pretrained(tmp_path / "run").config.id2label[0] == "9"
    for more, own in (([], True), (["--finetune_teacher", "1"], False)):
        job = object_detection.RECIPE.prepare(["--output_dir", str(tmp_path / "other"), *FLAGS, *flags, *more])
        assert (job.options["data_collator"].teacher_processor is not None) is own


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--objects_column", "boxes"], "was asked for: name them with --image_column and --objects_column"),
        (["--lora_rank", "4"], "which this recipe does not do"),
        (["--teacher_hidden_size", "12"], "give a multiple of 8"),
        (["--train_file", "{}/rows.csv"], "holds Value.'string'., no images"),
        (["--train_file", "{}/rows.json"], "lists of images, annotations and categories were looked for"),
        (["--eval_do_concat_batches", "1"], "eval_do_concat_batches=True was given"),
    ],
)
def test_what_cannot_be_read_is_told_in_a_sentence(tmp_path, flags, told):
    (tmp_path / "rows.csv").write_text("image,objects\na.png,x\nb.png,y\n", encoding="utf-8")
    (tmp_path / "rows.json").write_text("[]", encoding="utf-8")
    with pytest.raises(ValueError, match=told):
        run(tmp_path, *[flag.format(tmp_path) for flag in flags])
