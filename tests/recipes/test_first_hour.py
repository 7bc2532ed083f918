"""The notebook of the first hour: what it holds, and that its cells run in their order."""

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
from datasets import DatasetDict

from hf_distill.experiments.data import chinese_words

FILE = Path(__file__).parents[2] / "recipes" / "first_hour.ipynb"
SMALL = {"ROWS, TEACHERS_ROWS = 4_000, 40_000": "ROWS, TEACHERS_ROWS = 100, 300", "torch.set_num_threads(1)": ""}


@pytest.fixture(scope="module")
def notebook():
    return json.loads(FILE.read_text(encoding="utf-8"))


def cells(notebook):
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


def shown(notebook):
    return [out for cell in notebook["cells"] if cell["cell_type"] == "code" for out in cell["outputs"]]


def test_it_was_run_from_the_first_cell_to_the_last_and_is_small(notebook):
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert notebook["cells"][0]["cell_type"] == "markdown"
    assert "To run it" in "".join(notebook["cells"][0]["source"])
    assert {out["output_type"] for out in shown(notebook)} == {"stream", "execute_result"}  # no error
    assert sum("image/png" in out.get("data", {}) for out in shown(notebook)) == 1
    assert FILE.stat().st_size < 200_000


def test_three_lines_make_it_a_distillation(notebook):
    (taught,) = [text for text in cells(notebook) if "import DistillationTrainer," in text]
    lines = [line for line in taught.splitlines() if "istillation" in line]
    assert len(lines) == 3
    assert "teacher_model=teacher.model" in lines[2]


def test_what_it_shows_is_what_it_says(notebook):
    text = "".join("".join(out["text"]) for out in shown(notebook) if out["output_type"] == "stream")
    table = [line.split("|")[1:3] for line in text.splitlines() if line.startswith("| ")]
    scores = {name.strip(): float(score) for name, score in table[2:]}
    assert list(scores) == ["teacher", "student alone", "distilled", "distilled, more rows"]
    gained = scores["distilled"] - scores["student alone"]
    (said,) = [line for line in text.splitlines() if line.startswith("distilled: gain ")]
    assert float(said.split()[2]) == pytest.approx(gained, abs=0.11)  # all three are rounded


@pytest.mark.slow
def test_its_cells_run_in_their_order(notebook, tmp_path, monkeypatch, capsys):
    words = chinese_words.load_words()
    few = DatasetDict({name: rows.shuffle(seed=0).select(range(400)) for name, rows in words.items()})
    monkeypatch.setattr(chinese_words, "load_words", lambda: few)
    monkeypatch.chdir(tmp_path)
    display = ModuleType("IPython.display")  # which is there wherever a notebook is
    python = ModuleType("IPython")
    python.display, python.version_info = display, (9, 0)
    display.Image = lambda file: Path(file).read_bytes()
    monkeypatch.setitem(sys.modules, "IPython", python)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    everything = {"__name__": "notebook"}
    for number, text in enumerate(cells(notebook)):
        for usual, small in SMALL.items():
            text = text.replace(usual, small)
        exec(compile(text, f"cell {number}", "exec"), everything)
    assert everything["ROWS"] == 100
    assert (tmp_path / "out" / "report.png").stat().st_size > 10_000
    assert "| distilled, more rows |" in capsys.readouterr().out
