"""The recipe of denoisers as users start it: no argument, pictures of a file, a UNet by path, bad input."""

import json

import numpy as np
import pytest
import tiny_denoisers as tiny_d
import torch
from datasets import Dataset
from datasets import Image as ImageFeature
from huggingface_hub import ModelCard
from PIL import Image

from hf_distill.cli.recipes import recipe_module
from hf_distill.experiments.experiment import make_teacher

image_generation = recipe_module("image_generation")

FLAGS = [
    "--max_steps", "2", "--num_threads", "1", "--report_to", "none", "--disable_tqdm", "1", "--bf16", "0",
    "--teacher_layers", "2", "--teacher_hidden_size", "16", "--student_layers", "1", "--samples", "40",
    "--sampling_steps", "2", "--per_device_train_batch_size", "8", "--max_train_samples", "48",
]  # fmt: skip


def run(folder, *flags):
    return image_generation.RECIPE.main(["--output_dir", str(folder / "run"), *FLAGS, *flags])


def pictures(folder, n=40):
    draw = np.random.default_rng(0)
    images = [Image.fromarray(draw.integers(0, 256, (8, 8, 3), dtype=np.uint8)) for _ in range(n)]
    rows = {"image": images, "label": [number % 2 for number in range(n)]}
    Dataset.from_dict(rows).cast_column("image", ImageFeature()).to_parquet(folder / "train.parquet")
    return str(folder / "train.parquet")


@pytest.fixture(scope="module")
def default(tmp_path_factory):
    folder = tmp_path_factory.mktemp("generation")
    return folder / "run", run(folder, "--max_eval_samples", "60", "--noises", "2")


def test_the_whole_job_on_digits(default):
    folder, report = default
    assert [row["name"] for row in report["models"]] == ["teacher", "student alone", "distilled"]
    assert report["counted"] == "40 samples of 2 steps against 60 images"
    assert all({"fd", "fd_error", "class_accuracy"} <= row.keys() for row in report["models"])
    assert report["models"][2]["parameters"] < report["models"][0]["parameters"]
    assert 0 < report["training_images_fd"] < report["models"][0]["fd"]
    assert json.loads((folder / "report.json").read_text(encoding="utf-8"))["models"] == report["models"]
    student = tiny_d.diffusers.AutoModel.from_pretrained(str(folder))
    assert student.config.num_layers == 1
    assert (folder / "samples.png").stat().st_size > 5000
    card = ModelCard.load(folder / "README.md")
    assert card.data.library_name == "diffusers"
    assert "![What each model makes of the same noise](samples.png)" in card.text
    assert "Layer 0 of `DiTTransformer2DModel` was kept." in card.text


def test_all_models_are_measured_alike_and_the_validation_rows_by_other_noise(default):
    folder, _ = default
    job = image_generation.RECIPE.prepare(["--output_dir", str(folder.parent / "other"), *FLAGS])
    teacher = str(next(folder.glob("_teacher-*")))
    found = job.distilled(teacher, job.args).evaluate()
    assert {"eval_fd", "eval_class_accuracy", "eval_loss/hard", "eval_loss/value_mse"} <= found.keys()
    model = tiny_d.diffusers.AutoModel.from_pretrained(teacher)
    again = [job.scoring.samples(model, seed)[0] for seed in (0, 0, 1)]
    assert torch.equal(again[0], again[1])
    assert not torch.equal(again[0], again[2])
    assert again[0].shape == (40, 1, 8, 8)
    assert again[0].abs().max() <= 1


@pytest.mark.parametrize("prediction", ["flow", "v_prediction"])
def test_what_is_predicted_is_said_by_a_flag(tmp_path, prediction):
    job = image_generation.RECIPE.prepare(["--output_dir", str(tmp_path), *FLAGS, "--prediction", prediction])
    assert job.options["data_collator"].noise.predicts == prediction
    teacher = make_teacher(job)
    assert job.scoring.measurement(teacher, job.splits["test"], 0).means()["fd"] > 0


def test_a_unet_by_path_that_knows_no_classes(tmp_path):
    model = tiny_d.unet(2, in_channels=3, out_channels=3, sample_size=8, num_class_embeds=None)
    model.save_pretrained(tmp_path / "teacher" / "unet")
    tiny_d.ddpm().save_pretrained(tmp_path / "teacher" / "scheduler")
    flags = ["--train_file", pictures(tmp_path), "--teacher_model_name_or_path", str(tmp_path / "teacher")]
    job = image_generation.RECIPE.prepare(["--output_dir", str(tmp_path / "run"), *FLAGS, *flags])
    student = job.distilled(make_teacher(job), job.args)
    assert student.model.config.layers_per_block == 1
    student.train()
    assert list(job.scoring.columns) == ["FD"]
    assert job.scoring.samples(student.model, 0)[0].shape == (40, 3, 8, 8)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--lora_rank", "4"], "lora_rank=4 was given, which this recipe does not train"),
        (["--prediction", "x0"], "prediction=x0 was given: use epsilon, v_prediction or flow"),
        (["--student_layers", "3"], "student_layers=3 of the teacher's were asked for, and it has 2"),
        (["--samples", "3"], "samples=3 and sampling_steps=2 were given: give 40 and 1 at least"),
        (["--labeled_samples", "10"], "labeled_samples was given, and a denoiser learns from images"),
        (["--teacher_hidden_size", "20"], "teacher_hidden_size=20 was given: give a multiple of 16"),
    ],
)
def test_settings_that_cannot_be_are_refused_in_one_sentence(tmp_path, flags, told):
    with pytest.raises(ValueError, match=told):
        image_generation.RECIPE.prepare(["--output_dir", str(tmp_path), *FLAGS, *flags])


def test_a_model_without_a_scheduler_is_refused(tmp_path):
    tiny_d.unet(2).save_pretrained(tmp_path / "teacher")
    flags = ["--teacher_model_name_or_path", str(tmp_path / "teacher")]
    with pytest.raises(ValueError, match=r"teacher has no scheduler_config.json, which says what its model predicts"):
        image_generation.RECIPE.prepare(["--output_dir", str(tmp_path / "run"), *FLAGS, *flags])
