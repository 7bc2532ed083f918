"""What a folder of scripts is: each with its settings beside it, short enough to be copied, and no library."""

import ast
import importlib.util
import re
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from hf_distill.cli.recipes import recipe_module, recipe_names, recipes_folder

HEADER = re.compile(r"(?m)^# /// (?P<type>[a-zA-Z0-9-]+)$\s(?P<content>(^#(| .*)$\s)+)^# ///$\s")
"""What PEP 723 calls inline script metadata, in its own words."""
NAMED = {"bert_chinese"}  # another recipe under a name and with settings of its own
PROJECT = Path(__file__).parents[2] / "pyproject.toml"


def test_every_script_is_a_recipe_with_its_settings():
    assert sorted(path.stem for path in recipes_folder().glob("*.py")) == recipe_names()
    assert all(recipe_module(name).RECIPE.name == name for name in recipe_names())


@pytest.mark.parametrize("name", recipe_names())
def test_a_script_can_be_copied(name):
    text = HEADER.sub("", (recipes_folder() / f"{name}.py").read_text(encoding="utf-8"))
    assert (60 if name not in NAMED else 30) <= len(text.splitlines()) <= 120
    found = [node for node in ast.walk(ast.parse(text)) if isinstance(node, (ast.Import, ast.ImportFrom))]
    modules = {alias.name if isinstance(node, ast.Import) else node.module for node in found for alias in node.names}
    known = {*sys.stdlib_module_names, "datasets", "hf_distill", "transformers"}
    assert not {module for module in modules if module.partition(".")[0] not in known}


@pytest.fixture
def tomllib():
    return pytest.importorskip("tomllib")  # of Python 3.11


@pytest.fixture
def project(tomllib):
    return tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]


def extras_of(project, wanted):
    """What some extras bring along, themselves included."""
    found = set(wanted)
    for extra in wanted:
        for one in map(Requirement, project["optional-dependencies"][extra]):
            if one.name == project["name"]:
                found |= extras_of(project, one.extras)
    return found


def named_extras(text):
    """The extras that the modules which a script imports name, where a package is missing."""
    tree = ast.walk(ast.parse(text))
    ours = [node.module for node in tree if isinstance(node, ast.ImportFrom) and node.module.startswith("hf_distill.")]
    files = [Path(importlib.util.find_spec(one).origin) for one in ours]
    said = "".join(path.read_text(encoding="utf-8") for path in files)
    return set(re.findall(r"hf_distill\[(\w+)\]", said))


@pytest.mark.parametrize("name", recipe_names())
def test_a_script_says_what_it_needs_so_that_uv_can_run_it(name, project, tomllib):
    text = (recipes_folder() / f"{name}.py").read_text(encoding="utf-8")
    (block,) = HEADER.finditer(text)
    assert (block["type"], block.start()) == ("script", 0)
    lines = block["content"].splitlines(keepends=True)
    said = tomllib.loads("".join(line[2:] if line.startswith("# ") else line[1:] for line in lines))
    assert said.keys() == {"requires-python", "dependencies"}
    # The library's own is lower: it is diffusers, of the extra, that begins at 3.11, and uv looks at all versions.
    assert SpecifierSet(said["requires-python"]) == SpecifierSet(">=3.11")
    assert SpecifierSet(project["requires-python"]).contains("3.11")
    (needed,) = map(Requirement, said["dependencies"])
    assert (needed.name, needed.extras) == (project["name"], {"recipes"})
    assert named_extras(text) <= extras_of(project, needed.extras)
    assert ast.get_docstring(ast.parse(text))


def test_the_extras_of_the_recipes_are_those_of_images_recordings_and_denoisers(project):
    assert extras_of(project, {"recipes"}) == {"recipes", "vision", "speech", "diffusers"}
    assert named_extras("from hf_distill.experiments.denoisers import x") == {"diffusers"}  # so it can fail
    assert named_extras("from hf_distill.experiments.translation import x") == {"recipes", "speech"}
