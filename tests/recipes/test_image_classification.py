"""The recipe of images as users start it: no argument, folders, parquet, a teacher by path, bad input."""

import json

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features
from datasets import Image as ImageFeature
from huggingface_hub import ModelCard
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from hf_distill.cli.recipes import recipe_module
from hf_distill.experiments.data.images import ImageDataArguments, digits, load_images
from hf_distill.experiments.images import blank_resnet

image_classification = recipe_module("image_classification")

FLAGS = [
    "--max_steps", "2", "--num_threads", "1", "--report_to", "none", "--disable_tqdm", "1", "--bf16", "0",
    "--teacher_layers", "1", "--teacher_hidden_size", "16", "--student_hidden_size", "8", "--image_size", "16",
    "--per_device_train_batch_size", "16",
]  # fmt: skip


def run(folder, *flags):
    return image_classification.RECIPE.main(["--output_dir", str(folder / "run"), *FLAGS, *flags])


def pictures(n, seed=0):
    draw = np.random.default_rng(seed)
    return [Image.fromarray(draw.integers(0, 256, (12, 16, 3), dtype=np.uint8)) for _ in range(n)]


def folders(path, n=24):
    for number, picture in enumerate(pictures(n)):
        kind = path / ("cat", "dog")[number % 2]
        kind.mkdir(parents=True, exist_ok=True)
        picture.save(kind / f"{number}.png")
    return str(path)


@pytest.fixture(scope="module")
def default(tmp_path_factory):
    """One run on the embedded digits, changed by chance."""
    folder = tmp_path_factory.mktemp("images")
    return folder / "run", run(folder, "--max_eval_samples", "60", "--shift", "1", "--views", "2")


def test_the_whole_job_on_digits(default):
    folder, report = default
    assert [row["name"] for row in report["models"]] == ["teacher", "student alone", "distilled"]
    assert report["rows"] == {"train": 100, "validation": 60, "test": 60, "unlabeled": 1050}
    figures = {"accuracy", "macro_f1", "agreement", "kl", "calibration_error", "samples_per_second"}
    assert all(figures <= row.keys() for row in report["models"])
    assert report["models"][0]["agreement"] == 1.0
    assert report["models"][2]["parameters"] < report["models"][0]["parameters"]
    assert json.loads((folder / "report.json").read_text(encoding="utf-8"))["models"] == report["models"]
    assert 'src="data:image/png;base64,' in (folder / "_report.html").read_text(encoding="utf-8").partition("<ol")[2]
    student = AutoModelForImageClassification.from_pretrained(folder)
    assert student.config.id2label == {number: str(number) for number in range(10)}
    assert AutoImageProcessor.from_pretrained(folder).size["height"] == 16
    card = ModelCard.load(folder / "README.md")
    assert card.data.pipeline_tag == "image-classification"
    assert "AutoModelForImageClassification" in card.content


def test_cutmix_of_the_command_line_reaches_the_batches(tmp_path):
    flags = ["--output_dir", str(tmp_path / "run"), *FLAGS, "--cutmix", "1", "--mixup", "0.2"]
    mixing = image_classification.RECIPE.prepare(flags).options["data_collator"].mixing
    assert (mixing.cutmix, mixing.mixup) == (1.0, 0.2)


@pytest.mark.slow
def test_folders_and_a_kept_teacher(tmp_path, capsys):
    flags = ["--train_file", folders(tmp_path / "train"), "--test_file", folders(tmp_path / "test", 8)]
    first = run(tmp_path / "first", *flags, "--flip", "1", "--crop", "0.5")
    assert first["rows"]["train"] + first["rows"]["validation"] == 24
    assert first["rows"]["test"] == 8
    kept = next((tmp_path / "first" / "run").glob("_teacher-*"))
    again = run(tmp_path / "again", *flags, "--teacher_model_name_or_path", str(kept), "--skip_alone")
    assert again["models"][0]["parameters"] == first["models"][0]["parameters"]


def test_a_teacher_that_is_fine_tuned_reads_what_the_student_reads(tmp_path):
    model = AutoModelForImageClassification.from_config(blank_resnet(image_classification.Arguments(), None))
    model.save_pretrained(tmp_path / "teacher")
    ViTImageProcessorPil(size={"height": 24, "width": 24}).save_pretrained(tmp_path / "teacher")
    model.save_pretrained(tmp_path / "student")
    ViTImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(tmp_path / "student")
    given = [f"--{who}_model_name_or_path={tmp_path / who}" for who in ("teacher", "student")]
    for more, own in (([], True), (["--finetune_teacher", "1"], False)):
        job = image_classification.RECIPE.prepare(["--output_dir", str(tmp_path / "run"), *FLAGS, *given, *more])
        assert (job.options["data_collator"].teacher_processor is not None) is own


def test_digits_are_the_same_ones_every_time():
    one, other = digits(), digits()
    assert {name: len(rows) for name, rows in one.items()} == {"train": 1150, "validation": 197, "test": 450}
    for name in one:
        assert one[name]["label"][:] == other[name]["label"][:]
        assert one[name][0]["image"].tobytes() == other[name][0]["image"].tobytes()


def test_few_labels_are_as_many_of_each_class():
    splits = load_images(ImageDataArguments(labeled_samples=50), 0)
    assert sorted(splits["train"]["label"][:]) == sorted(list(range(10)) * 5)
    assert set(splits["unlabeled"]["label"][:]) == {-100}
    taught, known = image_classification.everything(splits)
    assert len(taught) == len(known) == 1150
    assert sorted(known["label"][:]) == sorted(digits()["train"]["label"][:])
    assert sum(label == -100 for label in taught["label"][:]) == 1100


def test_a_parquet_file_of_images(tmp_path):
    features = Features({"img": ImageFeature(), "kind": ClassLabel(names=["a", "b"])})
    Dataset.from_dict({"img": pictures(10), "kind": [0, 1] * 5}, features=features).to_parquet(
        tmp_path / "rows.parquet"
    )
    asked = {"train_file": str(tmp_path / "rows.parquet"), "image_column": "img", "label_column": "kind"}
    splits = load_images(ImageDataArguments(**asked), 0)
    assert splits["train"].features["label"].names == ["a", "b"]
    assert splits["train"][0]["image"].size == (16, 12)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--image_column", "picture"], "was asked for: name them with --image_column and --label_column"),
        (["--labeled_samples", "5"], "give at least one a class"),
        (["--teacher_hidden_size", "15"], "give an even number"),
        (["--train_file", "{}/photos", "--test_file", "{}/rows.csv"], "which is no folder as"),
        (["--train_file", "{}/rows.csv"], "holds Value.'string'., no images"),
        (["--views", "2"], "recurring was given without views"),
        (["--cutmix", "-1"], "cutmix=-1.0 was given: give 0, or a number above it"),
        (["--lora_rank", "4"], "which this recipe does not train"),
        (["--teacher_epochs", "0"], "teacher_epochs=0.0 was given"),
    ],
)
def test_what_cannot_be_read_is_told_in_a_sentence(tmp_path, flags, told):
    folders(tmp_path / "photos", 4)
    (tmp_path / "rows.csv").write_text("image,label\na.png,x\nb.png,y\n", encoding="utf-8")
    with pytest.raises(ValueError, match=told):
        run(tmp_path, *[flag.format(tmp_path) for flag in flags])


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # datasets leaves such a file open
def test_a_torn_image_of_a_folder_is_named_with_its_file(tmp_path):
    torn = tmp_path / "photos" / "cat" / "0.png"
    folders(tmp_path / "photos")
    torn.write_bytes(torn.read_bytes()[:80])
    told = (
        r"^row \d+ of the (training|evaluation) set has an image that cannot be decoded \(.*cat/0.png: .*: correct the"
    )
    with pytest.raises(ValueError, match=told):
        run(tmp_path, "--train_file", str(tmp_path / "photos"), "--max_steps", "4")


@pytest.mark.parametrize("who", ["teacher", "student"])
def test_a_model_of_timm_that_is_missing_is_told(tmp_path, who):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "timm_wrapper", "architecture": "resnet18"}))
    ViTImageProcessorPil().save_pretrained(tmp_path)
    told = rf"^the (model|teacher) {tmp_path} has a backbone of timm, which is not installed: pip install timm, or use"
    with pytest.raises(ImportError, match=told):
        run(tmp_path, f"--{who}_model_name_or_path", str(tmp_path))


def test_a_model_without_an_image_processor_is_told(tmp_path):
    model = AutoModelForImageClassification.from_config(blank_resnet(image_classification.Arguments(), None))
    model.save_pretrained(tmp_path)
    told = r"^the model .* reads images, and there is no image processor that can be loaded beside it"
    with pytest.raises(ValueError, match=told):
        run(tmp_path, "--student_model_name_or_path", str(tmp_path))
