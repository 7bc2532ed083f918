"""A report as a file and as a table, with figures that are not known."""

import json
import math

import pytest

from hf_distill.experiments import comparison
from hf_distill.experiments.text_classification import ClassScoring
from hf_distill.reports import plot_comparison


def test_a_report_of_a_student_that_diverged_is_json_still(tmp_path):
    found = {"kl": math.nan, "gap": {"gap_error": math.inf, "interval": (0.5, -math.inf)}, "name": "学生", "rows": 3}
    read = json.loads(comparison.as_json(found), parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert read == {"kl": None, "gap": {"gap_error": None, "interval": [0.5, None]}, "name": "学生", "rows": 3}


def test_a_speed_that_is_not_known_is_a_dash_and_no_picture_needs_it(tmp_path):
    row = {"name": "distilled", "parameters": 10, "megabytes": 0.1, "latency": None, "samples_per_second": None}
    row |= {"accuracy": 0.5, "macro_f1": 0.5, "agreement": 0.5, "kl": 0.1, "calibration_error": 0.1}
    cells = comparison.table([row], ClassScoring(["a", "b"])).splitlines()[-1].split("|")
    assert [cell.strip() for cell in cells[-3:-1]] == ["-", "-"]
    plot_comparison([row, {**row, "name": "teacher", "latency": 2.0}], tmp_path / "report.png", "?")
    assert (tmp_path / "report.png").stat().st_size > 1_000
