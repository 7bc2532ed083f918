"""A term in a file of the current folder is found there, whatever the script beside which it was asked is called."""

import importlib
import subprocess
import sys

import pytest
from recipe_runs import QUIET, SMALL, rows, write

from hf_distill.cli.recipes import recipes_folder
from hf_distill.objectives import build

MINE = """
import {other}
from hf_distill.objectives import ForwardKL

class {name}(ForwardKL):
    said = {other}.SAID

    def later(self):
        import {late}
        return {late}.SAID
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [one for one in sys.path if one])
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith(("my_", "broken_"))]:
        del sys.modules[name]


def test_a_file_of_the_current_folder(here):
    (here / "my_terms.py").write_text(MINE.format(name="Mine", other="my_words", late="my_late"))
    (here / "my_words.py").write_text("SAID = 'mine'")
    (here / "my_late.py").write_text("SAID = 'late'")
    term = build("my_terms:Mine").terms["Mine"]
    assert (term.said, term.later()) == ("mine", "late")
    assert type(build({"my_terms:Mine": {"temperature": 3.0}}).terms["Mine"]) is type(term)


def test_a_module_with_the_name_of_one_beside_the_script_is_the_users(here, tmp_path_factory, monkeypatch):
    beside = tmp_path_factory.mktemp("beside")
    for name in ("scoring", "predictions"):
        (beside / f"{name}.py").write_text("SAID = 'the script'")
    monkeypatch.syspath_prepend(str(beside))
    scoring, predictions = importlib.import_module("scoring"), importlib.import_module("predictions")
    (here / "scoring.py").write_text(MINE.format(name="Scoring", other="predictions", late="my_late"))
    (here / "predictions.py").write_text("SAID = 'mine'")
    (here / "my_late.py").write_text("SAID = 'late'")
    term = build("scoring:Scoring").terms["Scoring"]
    assert (term.said, term.later()) == ("mine", "late")
    assert (sys.modules.pop("scoring"), sys.modules.pop("predictions")) == (scoring, predictions)
    assert scoring.SAID == predictions.SAID == "the script"


def test_a_package_and_what_is_installed(here):
    (here / "my_room").mkdir()
    (here / "my_room" / "terms.py").write_text("from hf_distill.objectives import JSD\nclass Mine(JSD): pass")
    assert type(build("my_room.terms:Mine").terms["Mine"]).__name__ == "Mine"
    assert type(build("hf_distill.objectives:JSD").terms["JSD"]).__name__ == "JSD"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "import nothing_at_all",
            r"objective 'broken_terms:Mine' could not be imported \(No module named 'nothing_at",
        ),
        ("x = (", r"could not be imported \('\(' was never closed"),
        ("1 / 0", r"could not be imported \(division by zero\)"),
        ("class Other: pass", "has no attribute 'Mine'"),
        ("class Mine: pass", "objective 'broken_terms:Mine' is not a subclass of hf_distill.Term"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_sentence(here, content, message):
    (here / "broken_terms.py").write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        build("broken_terms:Mine")
    assert "\n" not in str(caught.value)
    assert str(here) not in sys.path[:1]


@pytest.mark.slow
@pytest.mark.parametrize("start", [["-m", "hf_distill.cli", "train", "bert_chinese"], ["script"], ["command"]])
def test_a_recipe_learns_by_a_users_term_however_it_is_started(tmp_path, start):
    (tmp_path / "translation.py").write_text("from hf_distill.objectives import JSD\nclass Mine(JSD): pass")
    path = write(tmp_path / "rows.jsonl", rows(40))
    script = str(recipes_folder() / "bert_chinese.py")
    command = "import sys; from hf_distill.cli import main; sys.exit(main(['train', 'bert_chinese', *sys.argv[1:]]))"
    if start == ["script"]:
        start = [script]
    elif start == ["command"]:  # as the installed command: the current folder is not looked into
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "hf-distill").write_text(command)
        start = [str(tmp_path / "bin" / "hf-distill")]
    flags = [
        "--train_file",
        path,
        "--output_dir",
        "out",
        "--objective",
        "translation:Mine",
        "--skip_alone",
        "--max_steps",
        "1",
    ]
    shown = subprocess.run(
        [sys.executable, *start, *flags, *SMALL, *QUIET, "--report_to", "none"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert shown.returncode == 0, shown.stderr[-2000:]
    assert "`Mine` with weight 1" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
