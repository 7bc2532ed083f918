"""The tagging recipe as users start it: no argument, columns of lists, CoNLL files, a teacher by path, bad input."""

import gzip
import json
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from recipe_runs import QUIET, SMALL, tagged_rows, write
from transformers import AutoModelForTokenClassification, AutoTokenizer

from hf_distill.cli.recipes import recipe_module
from hf_distill.experiments.parsing import parse_arguments

token_tagging = recipe_module("token_tagging")

FLAGS = ["--max_steps", "2", "--num_threads", "1", "--report_to", "none", *SMALL, *QUIET]


def run(folder, *flags):
    return token_tagging.RECIPE.main(["--output_dir", str(folder / "run"), *FLAGS, *flags])


@pytest.fixture(scope="module")
def default(tmp_path_factory):
    """One run on the embedded newspaper."""
    folder = tmp_path_factory.mktemp("tagging")
    return folder / "run", run(folder, "--max_train_samples", "200", "--max_eval_samples", "40")


def test_the_whole_job_on_the_newspaper(default):
    folder, report = default
    assert [row["name"] for row in report["models"]] == ["teacher", "student alone", "distilled"]
    assert report["rows"] == {"train": 200, "validation": 40, "test": 40}
    figures = {"f1", "precision", "recall", "accuracy", "f1_error", "agreement", "samples_per_second"}
    assert all(figures <= row.keys() for row in report["models"])
    assert report["models"][0]["agreement"] == 1.0
    gap = report["models"][2]["f1"] - report["models"][1]["f1"]
    assert report["gap"]["gain"] == pytest.approx(gap)
    assert "left_out" not in report
    assert json.loads((folder / "report.json").read_text(encoding="utf-8"))["models"] == report["models"]
    student = AutoModelForTokenClassification.from_pretrained(folder)
    assert student.config.id2label == dict(enumerate("BMES"))
    assert AutoTokenizer.from_pretrained(folder).tokenize("中国") == ["中", "国"]
    assert (folder / "report.png").stat().st_size > 10_000


def test_the_card_says_what_was_measured(default):
    folder, report = default
    card = ModelCard.load(folder / "README.md")
    assert (card.data.language, card.data.pipeline_tag) == ("zh", "token-classification")
    results = {r.metric_type: r.metric_value for r in card.data.eval_results}
    assert results == {n: round(report["models"][2][n], 4) for n in ("f1", "precision", "recall", "accuracy")}
    for part in ("word F1 %", "AutoModelForTokenClassification", "forward_kl", "hidden_mse", "report.png"):
        assert part in card.content, part


@pytest.mark.slow
def test_columns_of_lists_conll_and_a_kept_teacher(tmp_path, capsys):
    train = write(tmp_path / "train.jsonl.gz", tagged_rows(40, "tags"))
    test = tmp_path / "test.conll.gz"
    with gzip.open(test, "wt", encoding="utf-8") as file:
        file.write("-DOCSTART- -X- O\n\nAnna NNP B-name\nlives VB O\n\n\nin IN O\nBad NNP B-place\nEms NNP I-place\n")
    flags = ["--train_file", train, "--test_file", str(test), "--tags_column", "tags"]
    report = run(tmp_path, *flags)
    assert report["rows"] == {"train": 38, "validation": 2, "test": 2}
    student = AutoModelForTokenClassification.from_pretrained(tmp_path / "run")
    assert student.config.id2label == dict(enumerate(["O", "B-name", "B-place", "I-name", "I-place"]))
    assert "entity F1 %" in capsys.readouterr().out
    teacher = next((tmp_path / "run").glob("_teacher-*"))
    again = token_tagging.RECIPE.main(
        ["--output_dir", str(tmp_path / "other"), "--teacher_model_name_or_path", str(teacher), *FLAGS, *flags,
         "--student_from_teacher", "--student_layers", "1", "--skip_alone"]
    )  # fmt: skip
    assert [row["name"] for row in again["models"]] == ["teacher", "distilled"]
    assert again["models"][0]["f1"] == report["models"][0]["f1"]


BAD = {
    "a missing column": (
        ["--train_file", "{folder}/good.jsonl", "--tags_column", "tags"],
        r"have the columns \['tokens', 'ner_tags'\], \['tags'\] was asked for: name them with --tokens_column",
    ),
    "numbers": (["--train_file", "{folder}/numbers.jsonl"], "of which no span can be read: give each token a tag"),
    "a strange tag": (
        ["--train_file", "{folder}/good.jsonl", "--test_file", "{folder}/strange.jsonl"],
        "the test rows have the tags B-animal, the training rows have O, B-name",
    ),
    "a tag too few": (["--train_file", "{folder}/short.jsonl"], "row 0 of the train rows has 3 tokens and 2 tags"),
    "no tag": (["--train_file", "{folder}/torn.conll"], r"could not be read as conll \(line 2 has no tag\)"),
    "an unknown kind": (["--train_file", "{folder}/rows.xlsx"], "is not .json, .jsonl, .csv, .parquet, .conll"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_refused_in_a_sentence_before_anything_is_trained(tmp_path, what):
    write(tmp_path / "good.jsonl", tagged_rows(30))
    write(tmp_path / "numbers.jsonl", [{"tokens": ["a"], "ner_tags": [1]}] * 30)
    write(tmp_path / "strange.jsonl", [{"tokens": ["a"], "ner_tags": ["B-animal"]}])
    write(tmp_path / "short.jsonl", [{"tokens": ["a", "b", "c"], "ner_tags": ["O", "O"]}] * 30)
    (tmp_path / "torn.conll").write_text("a O\nb\n")
    (tmp_path / "rows.xlsx").write_text("x")
    flags, message = BAD[what]
    with pytest.raises(ValueError, match=message) as caught:
        run(tmp_path, *(flag.format(folder=tmp_path) for flag in flags))
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_the_full_size_settings_are_valid(tmp_path):
    path = str(Path(token_tagging.__file__).with_suffix(".yaml"))
    types = [token_tagging.Arguments, token_tagging.TrainingArguments]
    recipe, args = parse_arguments(types, [path, "--bf16", "0", "--output_dir", str(tmp_path)])
    assert (recipe.student_from_teacher, recipe.student_layers, recipe.finetune_teacher) == (True, 4, True)
    assert args.metric_for_best_model == "f1"
