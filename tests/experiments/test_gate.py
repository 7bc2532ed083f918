"""What a run says last, and the exit code of a student that is not what was required."""

import json

import pytest
from recipe_runs import QUIET, SHORT, SMALL

from hf_distill.cli import main
from hf_distill.cli.recipes import recipe_module
from hf_distill.experiments.gate import decide, judged, last_line
from hf_distill.reports.verdict import NOTHING, UNPROVED

bert_chinese = recipe_module("bert_chinese")
FLAGS = [*SHORT, *SMALL, *QUIET, "--num_threads", "1"]


def test_the_line_has_the_share_where_there_is_one():
    assert last_line({"verdict": "not known", "gap": None}) == "VERDICT: not known"
    gaps = {"gap": {"ratio": 0.4, "interval": None}, "gap_as_long": {"ratio": None, "interval": None}}
    words = {"verdict": "helps", "verdict_as_long": "too close to call"}
    assert last_line({**words, **gaps}, "CPU seconds") == (
        "VERDICT: helps; 40 % of the gap closed. At equal CPU seconds: too close to call"
    )


def test_the_line_says_where_nothing_was_learned_or_hardly_anything():
    nothing = {"verdict": NOTHING, "verdict_as_long": NOTHING, "gap": {"ratio": 0.4, "interval": None}}
    assert last_line(nothing) == "VERDICT: nothing was learned: the best model is the floor"
    hardly = {"verdict": "too close to call", "floor": 0.5, "floor_lead": 0.02, "floor_lead_error": 0.02}
    assert last_line(hardly) == "VERDICT: too close to call. No model is clearly ahead of the floor"
    assert last_line({**hardly, "floor_lead": 0.2}) == "VERDICT: too close to call"
    assert last_line({"verdict": "helps", "floor": 0.5}) == "VERDICT: helps"  # as reports of earlier versions are
    told = judged({"floor_lead": 0.0, "models": [], "summary": "gain +0.0"}, [], verdict=None)
    assert told == {"verdict": NOTHING, "summary": f"{NOTHING}; gain +0.0"}
    assert judged({"floor": None, "models": []}, [], verdict=None) == {"verdict": "not known"}


def test_a_quick_run_proves_nothing_whatever_it_found():
    told = judged({"floor_lead": 0.3, "models": []}, [], quick=True, verdict=None, verdict_as_long=None)
    assert told == {"verdict": UNPROVED, "verdict_as_long": UNPROVED}
    assert last_line({**told, "gap": {"ratio": 0.9, "interval": [0.8, 0.99]}}) == (
        "VERDICT: nothing is proved: --quick took a tenth of the rows"
    )


def test_what_is_not_met_ends_with_three(capsys):
    decide({"unmet": []})
    decide({})
    with pytest.raises(SystemExit) as ended:
        decide({"unmet": ["a was required", "b was required"]})
    assert ended.value.code == 3
    assert capsys.readouterr().err == "not met: a was required.\nnot met: b was required.\n"
    with pytest.raises(SystemExit):
        decide({"unmet": ["a was required"]}, first=False)
    assert capsys.readouterr().err == ""


@pytest.mark.slow
def test_a_run_is_judged_last_and_all_is_written(tmp_path, capsys):
    asked = ["--require", "parameters<=2*teacher", "accuracy>1", "--forbid_drop", "person:100"]
    with pytest.raises(SystemExit) as ended:
        main(["train", "bert_chinese", "--output_dir", str(tmp_path / "run"), *FLAGS, *asked])
    assert ended.value.code == 3
    shown = capsys.readouterr()
    report = json.loads((tmp_path / "run" / "report.json").read_text(encoding="utf-8"))
    assert report["verdict"] == "nothing was learned: the best model is the floor"  # in three steps
    assert shown.out.splitlines()[-1] == f"VERDICT: {report['verdict']}"
    assert report["floor_lead"] == max(row["accuracy"] for row in report["models"]) - report["floor"] <= 0
    (row,) = [line for line in shown.out.splitlines() if line.startswith("| floor ")]
    assert [cell.strip() for cell in row.split("|")[2:4]] == [f"{100 * report['floor']:.1f}", "-"]
    assert "floor: " in shown.out
    assert report["required"] == ["parameters<=2*teacher", "accuracy>1", "person:100"]
    (said,) = report["unmet"]
    assert said.startswith("accuracy>1 was required, and accuracy is ")
    assert shown.err.splitlines()[-1] == f"not met: {said}."
    assert (tmp_path / "run" / "model.safetensors").is_file()


def test_what_cannot_be_read_is_refused_before_anything_is_trained(tmp_path, capsys):
    assert main(["train", "bert_chinese", "--output_dir", str(tmp_path / "run"), *FLAGS, "--require", "good"]) == 1
    assert "require='good' was given: give a figure" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
