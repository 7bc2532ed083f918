"""Imports run down the house only, and nothing heavy or foreign is brought in."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import hf_distill

ROOT = Path(hf_distill.__file__).parent

# room -> the rooms that it may import. `TYPE_CHECKING` imports do not count: they do not run.
ALLOWED = {
    "snapshots": set(),
    "signals": {"snapshots"},
    "topk": set(),
    "tally": set(),
    "joint": set(),
    "hearing": {"linear", "tails"},
    "linear": set(),
    "tails": {"linear"},
    "fusion": {"linear", "objectives", "sharding", "tails"},
    "parsing": set(),
    "eager": set(),
    "preflight": set(),
    "label_checks": {"tasks"},
    "text_checks": {"tasks"},
    "data_checks": {"label_checks"},
    "carry": {"eager", "fusion", "hearing", "objectives", "preflight", "signals", "teachers"},
    "secret": set(),
    "faults": set(),
    "push": {"faults", "secret"},
    "origins": {"snapshots", "students"},
    "cache": {"faults", "push", "signals", "topk"},
    "commands": {
        "arguments", "cache", "experiments", "objectives", "origins", "parsing", "push", "reports", "students",
        "tasks", "teachers",
    },
    "cli": {"commands", "parsing"},
    "experiments": {
        "checkpoint", "commands", "objectives", "parsing", "preflight", "push", "reports", "sharding",
        "students",
    },
    "logs": {"objectives", "signals", "tally"},
    "checkpoint": {"carry", "objectives", "sharding"},
    "objectives": {"linear", "signals", "topk"},
    "tasks": {"hearing", "signals", "topk"},
    "teachers": {"cache", "hearing", "linear", "signals", "tails", "tasks", "topk"},
    "sharding": set(),
    "students": {"hearing", "sharding", "signals"},
    "reports": set(),
    "transfer": {"teachers"},
    "rollouts": {"cache", "tasks", "teachers"},
    "arguments": {"fusion", "objectives", "rollouts", "tasks", "transfer"},
    "card": {"origins", "signals", "students", "tasks"},
    "hard": {"objectives", "tasks"},
    "asking": {"hearing", "signals", "tasks"},
    "trainer": {
        "arguments", "asking", "card", "carry", "checkpoint", "data_checks", "fusion", "hard", "hearing", "joint",
        "label_checks", "logs", "objectives", "preflight", "push", "rollouts", "signals", "tally", "tasks", "teachers",
        "text_checks", "transfer",
    },
    "seq2seq": {"trainer"},
    "integrations": {"arguments", "tasks", "trainer"},
}  # fmt: skip


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


def test_every_room_is_known():
    assert {room(path) for path in files()} == ALLOWED.keys()


def test_imports_run_down_only():
    for path in files():
        for name in imports(path):
            if name.startswith("hf_distill."):
                target = name.split(".")[1]
                assert target == room(path) or target in ALLOWED[room(path)], f"{path} imports {name}"


def test_the_installed_package_has_every_room_and_the_recipes():
    project = ROOT.parent / "pyproject.toml"
    listed = re.search(r"^packages = \[(.*?)\]", project.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)[1]
    rooms = {".".join(path.parent.relative_to(ROOT.parent).parts) for path in ROOT.rglob("*/__init__.py")}
    assert set(re.findall(r'"(.+?)"', listed)) == {"hf_distill", "hf_distill.recipes", *rooms}


def test_experiments_know_of_the_commands_only_how_texts_and_languages_are_checked():
    found = {n for path in files() if room(path) == "experiments" for n in imports(path)}
    commands = {name for name in found if name.startswith("hf_distill.commands")}
    assert commands == {"hf_distill.commands.hub_words", "hf_distill.commands.text_rows"}


def test_the_package_is_imported_without_its_experiments_and_no_script_finds_modules_beside_it():
    program = "import hf_distill, sys; print([n for n in sys.modules if n.startswith('hf_distill.')])"
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
    own = [path for path in files() if path.relative_to(ROOT).as_posix() != "objectives/own.py"]
    for path in [*own, *ROOT.parent.glob("recipes/*.py")]:
        assert "sys.path" not in path.read_text(encoding="utf-8"), path


def test_functional_imports_nothing_of_ours():
    assert not [n for n in imports(ROOT / "objectives" / "functional.py") if n.startswith("hf_distill")]


def test_only_the_trainer_extends_trainer():
    for path in files():
        if room(path) not in ("trainer", "seq2seq", "integrations"):
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
