"""Finished models are measured again, and nothing is trained."""

import json
import re

from recipe_runs import TINY

from hf_distill import cli
from hf_distill.cli.recipes import recipe_module


def test_finished_models_are_measured_again(tmp_path, capsys):
    first = recipe_module("bert_chinese").RECIPE.main(["--output_dir", str(tmp_path / "run"), *TINY])
    teacher = next((tmp_path / "run").glob("_teacher-*"))
    named = ["--teacher_model_name_or_path", str(teacher), "--student_model_name_or_path", str(tmp_path / "run")]
    flags = ["bert_chinese", *TINY, *named, "--output_dir", str(tmp_path / "again")]
    flags += ["--hub_samples", "true"]
    assert cli.main(["report", *flags, "--alone", str(tmp_path / "run" / "_alone")]) == 0
    again = json.loads((tmp_path / "again" / "report.json").read_text(encoding="utf-8"))
    timed = ("samples_per_second", "latency")
    for one, other in zip(first["models"], again["models"], strict=True):
        assert {k: v for k, v in one.items() if k not in timed} == {k: v for k, v in other.items() if k not in timed}
    assert not (tmp_path / "again" / "README.md").exists()
    # The page shows test rows: a name that begins with _ keeps it from the Hub, unless that was asked for.
    pages = {"run": "_report.html", "again": "report.html"}
    assert {path.parent.name: path.name for path in tmp_path.glob("*/*.html")} == pages
    for place, name in pages.items():
        shown = (tmp_path / place / name).read_text(encoding="utf-8")
        assert shown.count("<li data-kind") == 60
        assert shown.count("<img ") == len(list((tmp_path / place).glob("*.png")))
        assert re.search(r'<p dir="auto">[一-鿿]+</p>', shown)
    assert cli.main(["report", "bert_chinese", *TINY, "--output_dir", str(tmp_path / "none")]) == 1
    assert "without a finished student and its teacher" in capsys.readouterr().err
