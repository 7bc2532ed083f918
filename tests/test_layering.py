"""Imports run down the house only, and nothing heavy or foreign is brought in."""

import ast
import re
from pathlib import Path

import hf_distill

ROOT = Path(hf_distill.__file__).parent

# From the top of the house down: a room may import those below it. `TYPE_CHECKING` imports do not count yet.
ROOMS = (
    "cli", "integrations", "trainer", "arguments", "training", "rollouts", "augmentation", "cache", "teachers",
    "tasks", "objectives", "students", "models", "signals",
)  # fmt: skip
# Beside it: any room may import these, and they import no more than is named.
BESIDE = {"reports": set(), "hub": {"students", "models", "signals"}}


def imports(path):
    """Every module that a file imports when it runs."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield node.module


def files():
    return sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def room(path):
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def allowed(name):
    return BESIDE[name] if name in BESIDE else {*ROOMS[ROOMS.index(name) + 1 :], *BESIDE}


def test_every_room_is_known():
    assert {room(path) for path in files()} == {*ROOMS, *BESIDE}


def test_imports_run_down_only():
    for path in files():
        for name in imports(path):
            if name.startswith("hf_distill."):
                target = name.split(".")[1]
                assert target == room(path) or target in allowed(room(path)), f"{path} imports {name}"


def test_the_installed_package_has_every_room_and_the_recipes():
    project = ROOT.parent / "pyproject.toml"
    listed = re.search(r"^packages = \[(.*?)\]", project.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)[1]
    rooms = {"hf_distill." + ".".join(path.parent.relative_to(ROOT).parts) for path in ROOT.glob("*/**/__init__.py")}
    assert set(re.findall(r'"(.+?)"', listed)) == {"hf_distill", "hf_distill.recipes", *rooms}


def test_functional_imports_nothing_of_ours():
    assert not [n for n in imports(ROOT / "objectives" / "functional.py") if n.startswith("hf_distill")]


def test_only_the_trainer_extends_trainer():
    for path in files():
        if room(path) not in ("trainer", "integrations"):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            bases = [ast.unparse(b) for n in ast.walk(tree) if isinstance(n, ast.ClassDef) for b in n.bases]
            assert not [base for base in bases if base.endswith("Trainer")], path


def test_no_image_library_is_ever_imported():
    assert not [n for path in files() for n in imports(path) if n.split(".")[0] in ("torchvision", "timm")]


def test_every_file_says_what_it_knows_and_every_public_thing_has_a_docstring():
    for path in files():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        opening = ast.get_docstring(tree)
        assert opening, path
        if path.name != "__init__.py":
            assert "Knows:" in opening, path
            assert "not know" in opening, path
        for node in tree.body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{path}: {node.name}"


def test_files_stay_small():
    limits = {"trainer": 360}
    for path in files():
        lines = len(path.read_text(encoding="utf-8").splitlines())
        assert lines <= limits.get(room(path), 320), f"{path} has {lines} lines: is it two ideas?"
