"""The recipe of general distillation: embedded reviews, given models, the student's next step, what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from recipe_runs import TEXTS, TINY, rows, write
from transformers import AutoModel, AutoModelForMaskedLM, AutoModelForSequenceClassification, AutoTokenizer

from hf_distill.cli.recipes import recipe_module
from hf_distill.experiments import experiment
from hf_distill.experiments.data.chinese_reviews import load_reviews
from hf_distill.experiments.data.hidden_tokens import encoded, hide_once
from hf_distill.experiments.experiment import make_teacher
from hf_distill.experiments.local_attention import LOCAL
from hf_distill.experiments.models import ModelArguments, blank_bert
from hf_distill.experiments.parsing import parse_arguments
from hf_distill.experiments.tokenizers import character_tokenizer

masked_lm = recipe_module("masked_lm")
SMALL = [*TINY, "--max_length", "24"]


def run(folder, *flags):
    return masked_lm.RECIPE.main(["--output_dir", str(folder / "run"), *SMALL, *flags])


@pytest.fixture(scope="module")
def default(tmp_path_factory):
    """One run on the embedded reviews."""
    folder = tmp_path_factory.mktemp("default")
    flags = ["--max_train_samples", "64", "--max_eval_samples", "16", "--eval_strategy", "steps", "--eval_steps", "2"]
    return folder, run(folder, *flags)


def test_the_embedded_reviews(default):
    folder, report = default
    teacher, alone, distilled = report["models"]
    assert [row["name"] for row in report["models"]] == ["teacher", "student alone", "distilled"]
    assert report["rows"] == {"train": 64, "validation": 16, "test": 16}
    assert (teacher["kl"], teacher["agreement"]) == (pytest.approx(0, abs=1e-6), 1.0)
    assert distilled["kl"] > 0
    assert alone["perplexity"] == pytest.approx(np.exp(alone["loss"]))
    assert set(report["settings"]["objective"]) == {"forward_kl", "hidden_mse"}
    assert report["floor"] > 0
    assert json.loads((folder / "run" / "report.json").read_text(encoding="utf-8"))["models"] == report["models"]


def test_both_models_attend_safely_where_they_will_be(default, tmp_path, monkeypatch):
    """Each layer of the default models sees neighbours alone: see ``experiments/local_attention.py``."""
    folder, _ = default
    teacher = str(next((folder / "run").glob("_teacher-*")))
    flags = ["--max_train_samples", "64", "--max_eval_samples", "16", "--teacher_model_name_or_path", teacher]
    job = masked_lm.RECIPE.prepare(["--output_dir", str(tmp_path / "run"), *SMALL, *flags])
    asked, student = [], job.student(teacher, 0)
    monkeypatch.setattr(experiment, "attend_safely", lambda *given: asked.append(given))
    job.trainer(student, job.args, teacher)
    assert asked == [(job.args.device, student, teacher)]
    assert LOCAL in student.config.layer_types


def test_the_report_is_that_of_the_saved_student_on_tokens_that_were_hidden_once(default):
    folder, report = default
    model = AutoModelForMaskedLM.from_pretrained(folder / "run").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder / "run")
    texts = load_reviews()["test"].shuffle(seed=42).select(range(16))
    test = hide_once(encoded({"test": texts}, tokenizer, "text", 24, False)[0]["test"], tokenizer, 0.3)
    total, count = 0.0, 0
    for row in test:
        ids, labels = (torch.tensor([row[name]]) for name in ("input_ids", "labels"))
        with torch.no_grad():
            here = (labels != -100).sum().item()
            total += model(input_ids=ids, labels=labels).loss.double().item() * here
        count += here
    assert report["counted"] == f"{count} hidden tokens of 16 rows"
    assert report["models"][2]["loss"] == pytest.approx(total / count, rel=1e-5)


def test_the_card_says_what_comes_next(default):
    card = ModelCard.load(default[0] / "run" / "README.md")
    assert card.data.pipeline_tag == "fill-mask"
    for part in ("| distilled", "found %", "forward_kl", "AutoModelForMaskedLM", "hidden tokens of 16 rows"):
        assert part in card.text, part
    assert "train text_classification --train_file rows.jsonl --student_model_name_or_path run\n```\n\n##" in card.text
    assert str(default[0]) not in card.text


@pytest.mark.slow
def test_the_student_is_fine_tuned_by_the_recipe_of_the_next_step(default, tmp_path):
    student = str(default[0] / "run")
    sizes = AutoModelForSequenceClassification.from_pretrained(student, num_labels=2).config
    path = write(tmp_path / "rows.jsonl", rows(60))
    flags = ["--output_dir", str(tmp_path / "tuned"), "--train_file", path, "--student_model_name_or_path", student]
    report = recipe_module("text_classification").RECIPE.main([*flags, *SMALL, "--skip_alone"])
    assert [row["name"] for row in report["models"]] == ["teacher", "distilled"]
    tuned = AutoModelForSequenceClassification.from_pretrained(tmp_path / "tuned")
    assert (tuned.config.hidden_size, tuned.config.num_labels) == (sizes.hidden_size, 2)
    assert (
        AutoTokenizer.from_pretrained(tmp_path / "tuned").get_vocab()
        == AutoTokenizer.from_pretrained(student).get_vocab()
    )


@pytest.fixture
def models(tmp_path):
    """A pretrained teacher with its head, and the same encoder without one."""
    tokenizer = character_tokenizer(TEXTS * 2)
    shape = blank_bert(ModelArguments(teacher_layers=4, teacher_hidden_size=64), tokenizer)
    for name, auto in (("teacher", AutoModelForMaskedLM), ("encoder", AutoModel)):
        torch.manual_seed(0)
        auto.from_config(shape).save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    return tmp_path


def given(models, name="teacher"):
    path = write(models / "texts.jsonl", [{"text": TEXTS[i % 5] + TEXTS[i % 3]} for i in range(40)])
    return ["--train_file", path, "--teacher_model_name_or_path", str(models / name)]


@pytest.mark.slow
def test_layers_of_a_given_teacher_under_minilm_with_kept_answers(models):
    objective = '{"forward_kl": 1.0, "minilm": 1.0}'
    flags = ["--student_from_teacher", "--student_layers", "2", "--objective", objective, "--hide_once", "1"]
    report = run(models, *given(models), *flags, "--divide_texts", "1", "--max_length", "10", "--skip_alone")
    assert report["settings"]["objective"] == {"forward_kl": 1.0, "minilm": 1.0}
    student = AutoModelForMaskedLM.from_pretrained(models / "run")
    assert (student.config.num_hidden_layers, student.config.hidden_size) == (2, 64)
    assert report["rows"]["train"] > 38  # texts of more than eight characters became two rows
    assert report["models"][1]["kl"] > 0


def test_a_teacher_without_a_head_for_hidden_tokens_is_refused_in_a_sentence(models):
    with pytest.raises(
        ValueError, match=r"has no trained weights for .*predictions.*: fine-tune it on your task"
    ) as caught:
        run(models, *given(models, "encoder"), "--student_from_teacher")
    assert "\n" not in str(caught.value)
    assert not list((models / "run").rglob("*.safetensors"))


@pytest.mark.slow
def test_it_is_trained_on_the_texts_first_if_that_is_asked_for(models):
    flags = ["--finetune_teacher", "1", "--student_parameters", "0.5", "--student_hidden_size", "64"]
    report = run(models, *given(models, "encoder"), *flags)
    assert report["models"][2]["parameters"] <= report["models"][0]["parameters"] / 2


def test_a_teacher_of_another_share_is_another_teacher(models):
    folder = str(models / "run")
    for share in ("0.15", "0.3", "0.3"):
        flags = ["--output_dir", folder, *SMALL, *given(models)[:2], "--mlm_probability", share]
        job = masked_lm.RECIPE.prepare(flags)
        make_teacher(job)
    assert len(list((models / "run").glob("_teacher-*"))) == 2
    assert job.args.teacher_cache == "off"  # no batch comes again as it was


BAD = {
    "a missing column": (["--text_column", "title"], r"\['title'\] was asked for: name them with --text_column"),
    "a share that is none": (["--mlm_probability", "15"], "mlm_probability=15 was given: give a share"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_refused_in_a_sentence_before_anything_is_trained(models, what):
    flags, message = BAD[what]
    with pytest.raises(ValueError, match=message):
        run(models, *given(models), *flags)
    assert not (models / "run").exists()


def test_the_full_size_settings_are_valid(tmp_path):
    path = str(Path(masked_lm.__file__).with_suffix(".yaml"))
    types = [masked_lm.Arguments, masked_lm.TrainingArguments]
    recipe, args = parse_arguments(types, [path, "--bf16", "0", "--output_dir", str(tmp_path)])
    assert (recipe.teacher_model_name_or_path, recipe.student_layers) == ("google-bert/bert-base-chinese", 6)
    assert args.objective == {"forward_kl": 1.0, "hidden_mse": 0.2}
    assert args.load_best_model_at_end
