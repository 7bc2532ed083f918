"""Imports run down the house only, and nothing heavy or foreign is brought in."""

import ast
import functools
import re
import subprocess
import sys
from pathlib import Path

import hf_distill

ROOT = Path(hf_distill.__file__).parent

# From the top of the house down: a room may import those below it, for annotations and inside of functions too.
ROOMS = (
    "cli", "experiments", "integrations", "together", "trainer", "arguments", "training", "rollouts", "augmentation",
    "cache", "teachers", "tasks", "objectives", "students", "models", "signals",
)  # fmt: skip
# Beside it: any room may import these, and they import no more than is named.
BESIDE = {
    "reports": set(),
    "hub": {"students", "models", "signals"},
    "export": {"tasks", "models", "signals"},
}


@functools.cache
def tree_of(path):
    return ast.parse(path.read_text(encoding="utf-8"))


@functools.cache
def nodes(path):
    """Every node of a file: several tests go through all files."""
    return list(ast.walk(tree_of(path)))


def imports(path):
    """Every module that a file names in an import, wherever that stands."""
    for node in nodes(path):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield node.module


def module(path):
    return ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")


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


def test_no_file_imports_itself_over_others():
    """A circle cannot be read from its beginning; one that is hidden in a function or an annotation is one too."""
    paths = {module(path): path for path in files()}
    below = {}
    for name, path in paths.items():
        named = [node for node in nodes(path) if isinstance(node, ast.ImportFrom)]
        told = [(node.module, f"{node.module}.{alias.name}") for node in named for alias in node.names]
        below[name] = ({one if one in paths else whole for whole, one in told} & paths.keys()) - {name}

    def walk(name, above):
        assert name not in above, " -> ".join([*above[above.index(name) :], name])
        if name not in done:
            for one in sorted(below[name]):
                walk(one, [*above, name])
            done.add(name)

    done = set()
    for name in below:
        walk(name, [])


USES_TRAINERS = ROOMS[: ROOMS.index("trainer") + 1]  # as any user does
# Below it: callbacks follow one, and a teacher is prepared with one.
FOLLOWS_A_TRAINER = {("cache/callback.py", "follow"), (None, "prepare")}


def test_nobody_but_teachers_and_callbacks_is_given_a_trainer():
    for path in files():
        if room(path) in USES_TRAINERS:
            continue
        for node in nodes(path):
            if isinstance(node, ast.FunctionDef):
                given = {one.arg for one in (*node.args.args, *node.args.kwonlyargs)}
                where = {(str(path.relative_to(ROOT)), node.name), (None, node.name)}
                assert "trainer" not in given or where & FOLLOWS_A_TRAINER, f"{path}: {node.name} takes a trainer"


def test_nobody_but_the_trainer_writes_into_it():
    for path in files():
        if room(path) in USES_TRAINERS:
            continue
        for node in nodes(path):
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            written = [ast.unparse(one) for one in targets if isinstance(one, ast.Attribute)]
            assert not [one for one in written if one.rpartition(".")[0].endswith("trainer")], f"{path}: {written}"


TOKENS = {before + name for before in ("", "teacher_", "decoder_") for name in ("input_ids", "attention_mask")}
READS_TEXTS = {"tasks", "rollouts", "augmentation", "experiments"}
# The names of forward's arguments stand in one file, and in the signatures of the models that are not transformers'.
NAMES_THEM = {"models/texts.py", "students/draft_head.py"}


def test_no_column_of_a_text_is_named_where_an_image_or_a_wave_passes_too():
    """Examples in docstrings are a user's own batches."""
    for path in files():
        if room(path) in READS_TEXTS or path.relative_to(ROOT).as_posix() in NAMES_THEM:
            continue
        for node in nodes(path):
            named = (getattr(node, part, None) for part in ("value", "attr", "arg"))
            assert not TOKENS & {name for name in named if isinstance(name, str)}, f"{path}:{node.lineno}"


def test_the_installed_package_has_every_room_and_the_recipes():
    project = ROOT.parent / "pyproject.toml"
    listed = re.search(r"^packages = \[(.*?)\]", project.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)[1]
    rooms = {"hf_distill." + ".".join(path.parent.relative_to(ROOT).parts) for path in ROOT.glob("*/**/__init__.py")}
    assert set(re.findall(r'"(.+?)"', listed)) == {"hf_distill", "hf_distill.recipes", *rooms}


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
        if room(path) not in ("trainer", "integrations"):
            bases = [ast.unparse(b) for n in nodes(path) if isinstance(n, ast.ClassDef) for b in n.bases]
            assert not [base for base in bases if base.endswith("Trainer")], path


def test_no_image_library_is_ever_imported():
    assert not [n for path in files() for n in imports(path) if n.split(".")[0] in ("torchvision", "timm")]


def test_evaluate_waits_for_a_metric():
    """It loads scikit-learn and scipy: a second of every process that trains."""
    metrics = ROOT / "reports" / "metrics.py"
    assert [path for path in files() if "evaluate" in imports(path)] == [metrics]
    named = [path for path in files() if "hf_distill.reports.metrics" in imports(path)]
    asked = [
        path
        for path in files()
        for n in nodes(path)
        if isinstance(n, ast.ImportFrom)
        and n.module == "hf_distill.reports"
        and {a.name for a in n.names} & {"ClassificationMetric", "SpanMetric"}
    ]
    assert not named
    assert {room(path) for path in asked} == {"experiments"}


def test_every_file_says_what_it_knows_and_every_public_thing_has_a_docstring():
    for path in files():
        tree = tree_of(path)
        opening = ast.get_docstring(tree)
        assert opening, path
        if path.name != "__init__.py":
            assert "Knows:" in opening, path
            assert "not know" in opening, path
        for node in tree.body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{path}: {node.name}"


def test_files_stay_small():
    for path in files():
        lines = len(path.read_text(encoding="utf-8").splitlines())
        assert lines <= 320, f"{path} has {lines} lines: is it two ideas?"
