"""What a folder of scripts is: each with its settings beside it, short enough to be copied, and no library."""

import ast
import sys

import pytest

from hf_distill.cli.recipes import recipe_module, recipe_names, recipes_folder


def test_every_script_is_a_recipe_with_its_settings():
    assert sorted(path.stem for path in recipes_folder().glob("*.py")) == recipe_names()
    assert all(recipe_module(name).RECIPE.name == name for name in recipe_names())


@pytest.mark.parametrize("name", recipe_names())
def test_a_script_can_be_copied(name):
    text = (recipes_folder() / f"{name}.py").read_text(encoding="utf-8")
    assert 60 <= len(text.splitlines()) <= 120
    found = [node for node in ast.walk(ast.parse(text)) if isinstance(node, (ast.Import, ast.ImportFrom))]
    modules = {alias.name if isinstance(node, ast.Import) else node.module for node in found for alias in node.names}
    known = {*sys.stdlib_module_names, "datasets", "hf_distill", "transformers"}
    assert not {module for module in modules if module.partition(".")[0] not in known}
