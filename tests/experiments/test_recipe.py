"""A recipe as its script declares it: copied by a user, started with bad settings."""

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from recipe_runs import QUIET, SMALL, rows, write

from hf_distill.cli.recipes import recipes_folder
from hf_distill.experiments import Recipe, run
from hf_distill.experiments.data.files import DataArguments
from hf_distill.experiments.settings import RecipeTrainingArguments


@dataclass
class TrainingArguments(RecipeTrainingArguments):
    output_dir: str = "outputs/mine"


class Nothing:
    """An experiment that only says when it began."""

    def run(self, started):
        return {"started": started}


def test_a_recipe_is_named_after_its_folder_and_builds_of_what_was_set(tmp_path, monkeypatch):
    seen = []
    recipe = Recipe(DataArguments, TrainingArguments, lambda *given: (seen.append(given), Nothing())[1])
    monkeypatch.chdir(tmp_path)
    assert recipe.name == "mine"
    assert recipe.main(["--recipe", "mine", "--max_train_samples", "7", "--bf16", "0"])["started"] > 0
    ((data, args, root),) = seen
    assert (data.max_train_samples, args.output_dir, root) == (7, "outputs/mine/run-1", Path("outputs/mine"))
    with pytest.raises(ValueError, match="the settings are for the recipe other, and mine was started"):
        recipe.main(["--recipe", "other", "--bf16", "0"])
    recipe.prepare(["--output_dir", "elsewhere", "--bf16", "0"])
    assert seen[-1][2] == Path("elsewhere")


@pytest.mark.parametrize("kind", [ValueError, OSError, ImportError])
def test_a_script_ends_with_one_sentence_on_a_users_error(monkeypatch, kind):
    def build(*given):
        raise kind("so\n  many words")

    monkeypatch.setattr(sys, "argv", ["mine.py", "--bf16", "0"])
    with pytest.raises(SystemExit, match=r"^error: so many words$"):
        run(Recipe(DataArguments, TrainingArguments, build))


def test_a_fault_of_a_script_is_shown_whole(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["mine.py", "--bf16", "0"])
    with pytest.raises(ZeroDivisionError):
        run(Recipe(DataArguments, TrainingArguments, lambda *given: 1 / 0))


def test_a_copy_of_a_recipe_is_a_recipe_wherever_it_lies(tmp_path, monkeypatch):
    text = (recipes_folder() / "text_classification.py").read_text(encoding="utf-8")
    text = text.replace("outputs/text_classification", "outputs/my_chinese")
    (tmp_path / "my_chinese.py").write_text(text, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("my_chinese", tmp_path / "my_chinese.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "my_chinese", module)
    spec.loader.exec_module(module)
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "rows.jsonl", rows(40))
    flags = ["--train_file", path, "--skip_alone", "--max_steps", "1", "--num_threads", "1", "--report_to", "none"]
    report = module.RECIPE.main([*flags, *SMALL, *QUIET])
    assert [row["name"] for row in report["models"]] == ["teacher", "distilled"]
    assert (tmp_path / "outputs" / "my_chinese" / "run-1" / "report.json").is_file()
