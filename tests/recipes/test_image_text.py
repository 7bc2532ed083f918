"""The recipe of pairs as users start it: no argument, folders of classes, captions, a teacher by path, bad input."""

import json

import numpy as np
import pytest
from datasets import Dataset, Features, Value
from datasets import Image as ImageFeature
from huggingface_hub import ModelCard
from PIL import Image
from transformers import AutoModel, AutoProcessor, BertConfig, BertModel

from hf_distill.cli.recipes import recipe_module
from hf_distill.experiments.data.captions import texts_of

image_text = recipe_module("image_text")

FLAGS = [
    "--max_steps", "2", "--num_threads", "1", "--report_to", "none", "--disable_tqdm", "1", "--bf16", "0",
    "--teacher_layers", "1", "--teacher_hidden_size", "32", "--student_hidden_size", "32", "--image_size", "8",
    "--per_device_train_batch_size", "16", "--max_train_samples", "60",
]  # fmt: skip


def run(folder, *flags):
    return image_text.RECIPE.main(["--output_dir", str(folder / "run"), *FLAGS, *flags])


def pictures(n, seed=0):
    draw = np.random.default_rng(seed)
    return [Image.fromarray(draw.integers(0, 256, (12, 16, 3), dtype=np.uint8)) for _ in range(n)]


def captioned(path, texts):
    listed = isinstance(texts[0], list)
    features = Features({"img": ImageFeature(), "said": [Value("string")] if listed else Value("string")})
    Dataset.from_dict({"img": pictures(len(texts)), "said": texts}, features=features).to_parquet(path)
    return ["--train_file", str(path), "--image_column", "img", "--text_column", "said"]


@pytest.fixture(scope="module")
def default(tmp_path_factory):
    """One run on the embedded digits, changed by chance."""
    folder = tmp_path_factory.mktemp("pairs")
    return folder / "run", run(folder, "--max_eval_samples", "60", "--shift", "1", "--views", "2")


def test_the_whole_job_on_digits(default):
    folder, report = default
    assert [row["name"] for row in report["models"]] == ["teacher", "student alone", "distilled"]
    assert report["rows"] == {"train": 60, "validation": 60, "test": 60}
    figures = {"accuracy", "macro_f1", "agreement", "kl", "calibration_error", "samples_per_second"}
    assert all(figures <= row.keys() for row in report["models"])
    assert report["models"][0]["agreement"] == 1.0
    assert report["settings"]["objective"] == {"vector_cosine": 1.0, "forward_kl": 1.0}
    assert json.loads((folder / "report.json").read_text(encoding="utf-8"))["models"] == report["models"]
    assert type(AutoModel.from_pretrained(folder)).__name__ == "ChineseCLIPModel"
    processor = AutoProcessor.from_pretrained(folder)
    assert processor.image_processor.size["height"] == 8
    assert "[UNK]" not in processor.tokenizer.tokenize("数字三 a handwritten three")
    card = ModelCard.load(folder / "README.md")
    assert card.data.pipeline_tag == "zero-shot-image-classification"
    assert "AutoModel" in card.content


@pytest.mark.slow
def test_captions_are_retrieved_and_a_teacher_of_another_tokenizer_is_given_its_own(default, tmp_path):
    texts = [[f"word{number} is here", f"see word{number}"] for number in range(24)]
    flags = captioned(tmp_path / "rows.parquet", texts)
    first = run(tmp_path, *flags)
    names = {f"{way}_recall@{k}" for way in ("image_to_text", "text_to_image") for k in (1, 5, 10)}
    assert all(names <= row.keys() for row in first["models"])
    assert {"recall", "recall_error", "agreement"} <= first["models"][2].keys()
    kept = next((tmp_path / "run").glob("_teacher-*"))
    student = ["--student_model_name_or_path", str(default[0]), "--teacher_model_name_or_path", str(kept)]
    again = run(tmp_path / "again", *flags, *student, "--skip_alone")
    assert again["models"][0]["recall"] == first["models"][0]["recall"]


def test_classes_of_folders_are_written_out_by_templates(tmp_path):
    for number, picture in enumerate(pictures(24)):
        kind = tmp_path / "photos" / ("red_fox", "cat")[number % 2]
        kind.mkdir(parents=True, exist_ok=True)
        picture.save(kind / f"{number}.png")
    flags = ["--train_file", str(tmp_path / "photos"), "--templates", "a {}", "one {}"]
    job = image_text.RECIPE.prepare(["--output_dir", str(tmp_path / "run"), *FLAGS, *flags])
    assert job.scoring.texts == [["a cat", "one cat"], ["a red fox", "one red fox"]]
    assert {tuple(one) for one in job.splits["train"]["captions"][:]} == {tuple(one) for one in job.scoring.texts}


def test_digits_are_written_out_in_two_languages():
    texts = texts_of([str(number) for number in range(10)])
    assert {len(one) for one in texts} == {6}
    assert {"a handwritten three", "数字三"} <= set(texts[3])


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--templates", "a photo"], "the template 'a photo' has no {} for the name of a class"),
        (["--text_column", "said"], "said"),
        (["--teacher_hidden_size", "40"], "teacher_hidden_size=40 was given: give a multiple of 32"),
        (["--image_size", "10"], "which patches of 4 pixels do not divide"),
        (["--mixup", "0.2"], "a blended image has no text of its own"),
        (["--lora_rank", "4"], "which this recipe does not train"),
        (["--student_model_name_or_path", "{}/bert"], "has no processor that can be loaded|does not read both images"),
    ],
)
def test_what_cannot_be_read_is_told_in_a_sentence(tmp_path, flags, told):
    BertModel(BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1)).save_pretrained(tmp_path / "bert")
    with pytest.raises(ValueError, match=told):
        run(tmp_path, *[flag.format(tmp_path) if "/bert" in flag else flag for flag in flags])


def test_a_column_without_texts_is_refused(tmp_path):
    Dataset.from_dict({"img": pictures(4), "said": [1, 2, 3, 4]}, features=Features(
        {"img": ImageFeature(), "said": Value("int64")})).to_parquet(tmp_path / "rows.parquet")  # fmt: skip
    flags = ["--train_file", str(tmp_path / "rows.parquet"), "--image_column", "img", "--text_column", "said"]
    with pytest.raises(ValueError, match=r"the column 'said' of the train rows holds .*, no texts: name another"):
        run(tmp_path, *flags)
