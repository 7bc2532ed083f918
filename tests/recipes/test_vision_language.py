"""The recipe of questions about pictures as users start it: no argument, own files, cut students, bad input."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset, Features, Value
from datasets import Image as ImageFeature
from huggingface_hub import ModelCard
from PIL import Image
from recipe_runs import write
from transformers import AutoModelForImageTextToText, AutoProcessor

from hf_distill.cli.recipes import recipe_module
from hf_distill.experiments.experiment import make_teacher
from hf_distill.experiments.parsing import parse_arguments

vision_language = recipe_module("vision_language")

FLAGS = [
    "--max_steps", "2", "--num_threads", "1", "--report_to", "none", "--disable_tqdm", "1", "--bf16", "0",
    "--teacher_layers", "2", "--teacher_vision_layers", "2", "--teacher_hidden_size", "32", "--student_layers", "1",
    "--per_device_train_batch_size", "16",
]  # fmt: skip


def run(folder, *flags):
    return vision_language.RECIPE.main(["--output_dir", str(folder / "run"), *FLAGS, *flags])


def pictures(folder, n, seed=0):
    """Files of pictures, and rows about them: every third question has no answer."""
    draw, rows = np.random.default_rng(seed), []
    for number in range(n):
        Image.fromarray(draw.integers(0, 256, (12, 20, 3), dtype=np.uint8)).save(folder / f"{number}.png")
        answer = None if number % 3 == 2 else ["left side", "right"][: 1 + number % 2]
        rows.append({"img": f"{number}.png", "asked": "which side is bright ?", "said": answer})
    return rows


def named(path):
    return [
        "--train_file",
        str(path),
        "--image_column",
        "img",
        "--question_column",
        "asked",
        "--answer_column",
        "said",
    ]


@pytest.fixture(scope="module")
def default(tmp_path_factory):
    """One run on the embedded digits: a few answers are told, the teacher writes the others."""
    folder = tmp_path_factory.mktemp("questions")
    few = ["--max_train_samples", "60", "--labeled_samples", "20", "--max_eval_samples", "30"]
    return folder / "run", run(folder, *few)


def test_the_whole_job_on_digits(default):
    folder, report = default
    assert [row["name"] for row in report["models"]] == ["teacher", "student alone", "distilled"]
    assert report["rows"] == {"train": 20, "validation": 30, "test": 30, "unlabeled": 40}
    assert report["settings"]["rollout"] == {"seq_kd": 1.0, "max_new_tokens": 3}
    figures = {"exact", "agreement", "which", "there", "count", "largest", "sum", "samples_per_second"}
    assert all(figures <= row.keys() for row in report["models"])
    assert report["models"][0]["agreement"] == 1.0
    assert {"question", "answer", "teacher", "student alone", "distilled"} == report["examples"][0].keys()
    assert json.loads((folder / "report.json").read_text(encoding="utf-8"))["models"] == report["models"]
    card = ModelCard.load(folder / "README.md")
    assert card.data.pipeline_tag == "image-text-to-text"
    assert {one.metric_type for one in card.data.eval_results} == {"exact_match"}
    assert "AutoModelForImageTextToText" in card.content


def test_what_is_saved_answers_a_question_about_a_picture(default):
    model, processor = (
        AutoModelForImageTextToText.from_pretrained(default[0]),
        AutoProcessor.from_pretrained(default[0]),
    )
    asked = [{"type": "image"}, {"type": "text", "text": "what is the sum ?"}]
    prompt = processor.apply_chat_template([{"role": "user", "content": asked}], add_generation_prompt=True)
    read = processor(text=prompt, images=Image.new("RGB", (16, 16)), return_tensors="pt", add_special_tokens=False)
    assert int((read["input_ids"] == model.config.image_token_index).sum()) == 4
    assert "<unk>" not in processor.tokenizer.tokenize("how many digits are there ? is there a 7 ?")
    with torch.no_grad():
        assert model.generate(**read, max_new_tokens=2).shape[0] == 1


@pytest.mark.slow
def test_files_with_paths_and_missing_answers_and_students_cut_from_a_kept_teacher(tmp_path):
    path = write(tmp_path / "rows.jsonl", pictures(tmp_path, 36))
    first = run(tmp_path, *named(path), "--skip_alone")
    assert first["rows"]["train"] + first["rows"]["unlabeled"] == 34
    assert first["models"][0]["exact"] >= 0
    kept = next((tmp_path / "run").glob("_teacher-*"))
    cut = ["--teacher_model_name_or_path", str(kept), "--student_from_teacher", "--student_vision_layers", "1"]
    again = run(tmp_path / "again", *named(path), *cut, "--freeze_vision")
    assert again["models"][0]["exact"] == first["models"][0]["exact"]
    student, teacher = (AutoModelForImageTextToText.from_pretrained(one) for one in (tmp_path / "again" / "run", kept))
    assert student.config.text_config.num_hidden_layers == student.config.vision_config.num_hidden_layers == 1
    frozen, theirs = (one.model.vision_tower.state_dict() for one in (student, teacher))
    assert all(torch.equal(weight, theirs[name]) for name, weight in frozen.items())
    assert not torch.equal(
        student.model.multi_modal_projector.linear_1.weight, teacher.model.multi_modal_projector.linear_1.weight
    )


@pytest.mark.slow
def test_other_answers_about_the_same_pictures_make_another_teacher(tmp_path):
    rows = pictures(tmp_path, 36)
    for number, told in enumerate((rows, [{**row, "said": row["said"] and "left"} for row in rows])):
        path = write(tmp_path / f"{number}.jsonl", told)
        flags = ["--output_dir", str(tmp_path / "run"), *FLAGS, *named(path)]
        make_teacher(vision_language.RECIPE.prepare(flags))
    assert len(list((tmp_path / "run").glob("_teacher-*"))) == 2


@pytest.mark.slow
def test_an_adapter_is_trained_on_a_given_student(default, tmp_path):
    given = ["--teacher_model_name_or_path", str(default[0]), "--student_model_name_or_path", str(default[0])]
    few = ["--max_train_samples", "60", "--max_eval_samples", "30", "--skip_alone"]
    run(tmp_path, *few, *given, "--lora_rank", "2")
    assert (tmp_path / "run" / "adapter_model.safetensors").is_file()


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--train_file", "nowhere.jsonl"], "nowhere.jsonl, there is no such file"),
        (["--labeled_samples", "60"], "labeled_samples=60 was given for 60 training questions with an answer"),
        (["--teacher_hidden_size", "40"], "teacher_hidden_size=40 was given: give a multiple of 32"),
        (["--image_size", "10"], "which patches of 8 pixels do not divide"),
        (["--student_from_teacher", "--student_vision_layers", "3"], "were asked for, and it has 2: ask for 1 to 2"),
        (["--freeze_vision"], "whose tower of images has learned nothing yet"),
        (["--teacher_vision_layers", "0"], "teacher_vision_layers=0 was given: give 1 or more"),
        (["--lora_rank", "4"], "an adapter is of no use without its base"),
    ],
)
def test_settings_that_cannot_be_are_told_in_a_sentence(tmp_path, flags, told):
    with pytest.raises(ValueError, match=told) as caught:
        run(tmp_path, "--max_train_samples", "60", *flags)
    assert "\n" not in str(caught.value)


def _lost(rows):
    return [{**row, "img": "lost.png"} for row in rows]


BAD = {
    "no image column": (lambda rows: [{"asked": "?", "said": "1"}] * 4, "name them with --image_column"),
    "numbers for images": (lambda rows: [{**row, "img": 1} for row in rows], "holds Value.'int64'., no images"),
    "a picture that is not there": (_lost, "names the image .*lost.png, there is no such file"),
    "no answers": (lambda rows: [{**row, "said": ""} for row in rows], "has an answer: name their column"),
    "answers of another kind": (
        lambda rows: [{**row, "said": {"a": "b"}} for row in rows],
        "neither a text nor a list",
    ),
    "no questions": (lambda rows: [{**row, "asked": None} for row in rows], "has a text in question"),
}


@pytest.mark.parametrize("what", BAD)
def test_rows_that_cannot_be_read_are_told_in_a_sentence(tmp_path, what):
    spoiled, told = BAD[what]
    path = write(tmp_path / "rows.jsonl", spoiled(pictures(tmp_path, 12)))
    with pytest.raises(ValueError, match=told) as caught:
        run(tmp_path, *named(path))
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_an_image_that_cannot_be_decoded_is_told_in_a_sentence(tmp_path):
    rows = pictures(tmp_path, 12)
    (tmp_path / "3.png").write_bytes(b"no picture")
    path = write(tmp_path / "rows.jsonl", rows)
    with pytest.raises(ValueError, match=r"3\.png.* cannot be decoded|cannot be decoded .*3\.png"):
        run(tmp_path, *named(path))


def test_a_model_without_a_processor_is_told_in_a_sentence(tmp_path):
    features = Features({"img": ImageFeature(), "asked": Value("string"), "said": Value("string")})
    rows = {"img": [Image.new("L", (4, 4))] * 6, "asked": ["?"] * 6, "said": ["1"] * 6}
    Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "rows.parquet")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"model_type": "llava"}')
    with pytest.raises(ValueError, match=r"has no processor that can be loaded|which does not read both"):
        run(tmp_path, *named(tmp_path / "rows.parquet"), "--teacher_model_name_or_path", str(tmp_path / "model"))


def test_the_full_size_settings_are_valid(tmp_path):
    path = str(Path(vision_language.__file__).with_suffix(".yaml"))
    types = [vision_language.Arguments, vision_language.TrainingArguments]
    recipe, args = parse_arguments(types, [path, "--bf16", "0", "--output_dir", str(tmp_path)])
    assert recipe.student_model_name_or_path == "Qwen/Qwen3-VL-2B-Instruct"
    assert (recipe.question_column, recipe.answer_column, recipe.freeze_vision) == ("query", "label", True)
    assert args.metric_for_best_model == "exact"
