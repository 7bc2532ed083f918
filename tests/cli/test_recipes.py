"""The commands that run a recipe: which one, and what they say where there is none."""

import importlib
import sys

import pytest

from hf_distill import cli
from hf_distill.cli import recipes
from hf_distill.cli.recipes import load_recipe, recipe_module, recipe_names, recipes_folder
from hf_distill.experiments import Recipe

NAMES = [
    "bert_chinese",
    "causal_lm",
    "distil_whisper",
    "draft_head",
    "image_classification",
    "image_generation",
    "image_text",
    "masked_lm",
    "object_detection",
    "question_answering",
    "segmentation",
    "sentence_embeddings",
    "speech_classification",
    "speech_ctc",
    "text_classification",
    "token_tagging",
    "translation",
    "vision_language",
]


def test_every_recipe_is_known_and_its_file_says_whose_it_is():
    assert recipe_names() == NAMES
    for name in NAMES:
        recipe, rest = load_recipe([str(recipes_folder() / f"{name}.yaml"), "--seed", "1"])
        assert recipe.name == name
        assert rest == [str(recipes_folder() / f"{name}.yaml"), "--seed", "1"]
        assert load_recipe([name, "--seed", "1"])[1] == ["--seed", "1"]


def test_a_file_runs_from_anywhere_and_flags_override_it(tmp_path, monkeypatch):
    (tmp_path / "my.yaml").write_text("recipe: token_tagging\nseed: 3\n", encoding="utf-8")
    seen = []
    monkeypatch.setattr(Recipe, "main", lambda recipe, argv: seen.append((recipe.name, argv)))
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", "my.yaml", "--seed", "4"]) == 0
    assert seen == [("token_tagging", ["my.yaml", "--seed", "4"])]


@pytest.mark.parametrize("command", ["train", "compare", "report"])
def test_errors_are_one_sentence(tmp_path, capsys, command):
    (tmp_path / "nameless.yaml").write_text("seed: 3\n", encoding="utf-8")
    for words, expected in (
        ([], "no recipe was named: begin with one of bert_chinese, "),
        (["--seed", "1"], "no recipe was named"),
        (["poems"], "the recipe 'poems' was asked for, there are bert_chinese, "),
        (["no.yaml"], "settings were asked from no.yaml, there is no such file"),
        ([str(tmp_path / "nameless.yaml")], "names no recipe: add a line such as 'recipe: bert_chinese'"),
    ):
        assert cli.main([command, *words]) == 1
        said = capsys.readouterr().err
        assert said.startswith(f"hf-distill {command}: ")
        assert expected in said
        assert said.count("\n") == 1


def test_help_names_the_recipes(capsys):
    for command in ("train", "compare", "report"):
        assert cli.main([command, "--help"]) == 0
        assert all(name in capsys.readouterr().out for name in NAMES[-1:])


def test_settings_of_another_recipe_are_refused(tmp_path):
    recipe, _ = load_recipe(["bert_chinese"])
    (tmp_path / "other.yaml").write_text("recipe: token_tagging\nuse_cpu: true\n", encoding="utf-8")
    with pytest.raises(ValueError, match="are for the recipe token_tagging, and bert_chinese was started"):
        recipe.prepare([str(tmp_path / "other.yaml"), "--output_dir", str(tmp_path / "run"), "--bf16", "0"])


def test_vectors_have_no_student_alone(capsys):
    assert cli.main(["compare", "sentence_embeddings"]) == 1
    assert "sentence_embeddings has no student alone to compare with" in capsys.readouterr().err


def test_a_recipe_is_imported_without_a_look_into_its_folder(tmp_path, monkeypatch):
    (tmp_path / "translation.py").write_text("MINE = 1")
    monkeypatch.syspath_prepend(str(tmp_path))
    before = list(sys.path)
    module = recipe_module("translation")
    assert recipe_module("translation") is module
    assert module.RECIPE.name == "translation"
    assert sys.path == before
    assert importlib.import_module("translation").MINE == 1
    monkeypatch.delitem(sys.modules, "translation")


def test_a_script_that_cannot_be_run_is_tried_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(recipes, "recipes_folder", lambda: tmp_path)
    (tmp_path / "torn.py").write_text("import a_package_that_is_not_there")
    for _ in range(2):
        with pytest.raises(ImportError, match="a_package_that_is_not_there"):
            recipe_module("torn")
