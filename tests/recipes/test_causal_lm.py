"""The recipe of causal language models: embedded reviews, own texts, conversations, an assistant, bad input."""

import json
from pathlib import Path

import numpy as np
import pytest
import tiny_language
import torch
from huggingface_hub import ModelCard
from recipe_runs import texts, write
from transformers import AutoModelForCausalLM, AutoTokenizer

from hf_distill.cli import main as command
from hf_distill.cli.recipes import recipe_module
from hf_distill.experiments.benchmark import models_of
from hf_distill.experiments.data.chats import encoded_text
from hf_distill.experiments.data.chinese_reviews import load_reviews
from hf_distill.experiments.parsing import parse_arguments

causal_lm = recipe_module("causal_lm")

SMALL = [
    "--teacher_layers", "1", "--teacher_hidden_size", "64", "--student_layers", "1", "--student_hidden_size", "32",
    "--bf16", "0", "--num_threads", "1", "--disable_tqdm", "1", "--report_to", "none", "--save_strategy", "no",
    "--per_device_train_batch_size", "8", "--max_steps", "2", "--max_length", "24",
]  # fmt: skip


def run(folder, *flags):
    return causal_lm.RECIPE.main(["--output_dir", str(folder / "run"), *SMALL, *flags])


@pytest.fixture(scope="module")
def default(tmp_path_factory):
    """One run on the embedded reviews."""
    folder = tmp_path_factory.mktemp("default")
    flags = ["--max_train_samples", "64", "--max_eval_samples", "16", "--measure_assistant", "2"]
    return folder, run(folder, *flags, "--assistant_tokens", "6", "--eval_strategy", "steps", "--eval_steps", "2")


def test_the_embedded_reviews(default):
    folder, report = default
    teacher, alone, distilled = report["models"]
    assert [row["name"] for row in report["models"]] == ["teacher", "student alone", "distilled"]
    assert report["rows"] == {"train": 64, "validation": 16, "test": 16}
    assert (teacher["kl"], teacher["agreement"]) == (pytest.approx(0, abs=1e-6), 1.0)
    assert distilled["kl"] > 0
    assert alone["perplexity"] == pytest.approx(np.exp(alone["loss"]))
    assert "accepted" not in teacher
    assert all(1 <= row["steps"] <= row["tokens"] <= 12 for row in (alone, distilled))
    assert "nats lower than that of the student alone" in report["summary"]
    assert json.loads((folder / "run" / "report.json").read_text(encoding="utf-8"))["models"] == report["models"]
    models = models_of(folder / "run")
    assert [*models] == ["student alone", "distilled", "teacher"]
    assert models["teacher"] == str(folder / "run" / report["teacher_folder"])


def test_the_report_is_that_of_the_saved_student(default):
    folder, report = default
    model = AutoModelForCausalLM.from_pretrained(folder / "run").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder / "run")
    test = load_reviews()["test"].shuffle(seed=42).select(range(16))["text"]
    total, count = 0.0, 0
    for text in test:
        ids = torch.tensor([encoded_text(tokenizer, text, 24)["input_ids"]])
        with torch.no_grad():
            total += model(input_ids=ids, labels=ids).loss.double().item() * (ids.shape[1] - 1)
        count += ids.shape[1] - 1
    assert report["models"][2]["loss"] == pytest.approx(total / count, rel=1e-5)


def test_the_card(default):
    card = ModelCard.load(default[0] / "run" / "README.md")
    assert card.data.pipeline_tag == "text-generation"
    assert {one.metric_type for one in card.data.eval_results} == {"accuracy", "perplexity"}
    for part in ("| distilled", "accepted a step", "forward_kl", "AutoModelForCausalLM", "perplexity"):
        assert part in card.text, part
    assert str(default[0]) not in card.text


@pytest.fixture
def models(tmp_path):
    """A teacher and a student with a chat template."""
    for name, made in (("teacher", tiny_language.teacher()), ("student", tiny_language.llama())):
        made.save_pretrained(tmp_path / name)
        tiny_language.tokenizer().save_pretrained(tmp_path / name)
    names = (f"--{name}_model_name_or_path={tmp_path / name}" for name in ("teacher", "student"))
    return [*names]


def test_conversations_and_prompts_without_an_answer(tmp_path, models, capsys):
    rows = tiny_language.chats(40)
    rows[3:5] = [{"messages": one["messages"][:1]} for one in rows[3:5]]  # both fall to the training rows
    report = run(tmp_path, *models, "--train_file", write(tmp_path / "chats.jsonl", rows), "--measure_assistant", "1")
    assert "rows; left out with nothing to learn: 2 train" in capsys.readouterr().out
    assert report["rows"]["train"] == 36
    assert report["models"][1]["tokens"] >= 1


def test_kept_answers_of_the_very_rows_that_are_learned(tmp_path, models, capsys):
    path, folder = write(tmp_path / "chats.jsonl", tiny_language.chats(40)), tmp_path / "answers"
    flags = [*models, "--train_file", path]
    assert run(tmp_path, *flags, "--rows_dir", str(tmp_path / "rows")) is None
    asked = ["--teacher_model_name_or_path", str(tmp_path / "teacher"), "--dataset_name", str(tmp_path / "rows")]
    command(["cache", *asked, "--output_dir", str(folder), "--top", "4", "--tail", "4", "--temperature", "1.0"])
    assert "38 rows asked" in capsys.readouterr().out
    files = sorted(folder.rglob("*.parquet"))
    report = run(tmp_path, *flags, "--teacher_cache", str(folder), "--skip_alone")
    assert sorted(folder.rglob("*.parquet")) == files  # nothing had to be asked again
    assert report["models"][0]["kl"] == pytest.approx(0, abs=1e-6)  # measured with whole answers


@pytest.mark.slow
def test_a_student_is_trained_in_float32_whatever_it_was_saved_in(tmp_path, models):
    tiny_language.llama().to(torch.bfloat16).save_pretrained(tmp_path / "student")
    run(tmp_path, *models, "--train_file", write(tmp_path / "chats.jsonl", tiny_language.chats(40)), "--skip_alone")
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "run").dtype == torch.float32


BAD = {
    "a missing file": (["--train_file", "nowhere.jsonl"], "nowhere.jsonl, there is no such file"),
    "a missing column": (["--train_file", "{folder}/good.jsonl", "--text_column", "title"], r"\['title'\] was asked"),
    "no chat template": (["--train_file", "{folder}/chats.jsonl"], "the tokenizer has no chat template"),
    "prompts alone": (
        ["--train_file", "{folder}/prompts.jsonl", "--student_model_name_or_path", "{folder}/student"],
        "none of the 19 train rows has an answer of the assistant at its end",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_refused_in_a_sentence_before_anything_is_trained(tmp_path, what):
    write(tmp_path / "good.jsonl", texts(20))
    write(tmp_path / "chats.jsonl", tiny_language.chats(20))
    write(tmp_path / "prompts.jsonl", [{"messages": one["messages"][:1]} for one in tiny_language.chats(20)])
    tiny_language.tokenizer().save_pretrained(tmp_path / "student")
    flags, message = BAD[what]
    with pytest.raises(ValueError, match=message) as caught:
        run(tmp_path, *(flag.format(folder=tmp_path) for flag in flags))
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.slow
def test_own_texts_and_the_full_size_settings(tmp_path):
    assert (
        run(tmp_path, "--train_file", write(tmp_path / "t.jsonl", texts(40)), "--skip_alone")["dataset"] == "t.jsonl"
    )
    path = str(Path(causal_lm.__file__).with_suffix(".yaml"))
    types = [causal_lm.Arguments, causal_lm.TrainingArguments]
    recipe, args = parse_arguments(types, [path, "--bf16", "0", "--output_dir", str(tmp_path)])
    assert recipe.teacher_model_name_or_path == "Qwen/Qwen2.5-7B-Instruct"
    assert (args.teacher_cache, args.teacher_dtype) == ("outputs/qwen_answers", "bfloat16")
