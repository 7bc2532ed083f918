"""A report as a file and as a table, with figures that are not known."""

import json
import math

import numpy as np
import pytest
import tiny
from datasets import Dataset

from hf_distill.experiments import comparison
from hf_distill.experiments.scoring import Measurement
from hf_distill.experiments.text_classification import ClassScoring
from hf_distill.reports import gap_closed, markdown_table, plot_comparison


def test_a_report_of_a_student_that_diverged_is_json_still(tmp_path):
    found = {"kl": math.nan, "gap": {"gap_error": math.inf, "interval": (0.5, -math.inf)}, "name": "学生", "rows": 3}
    read = json.loads(comparison.as_json(found), parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert read == {"kl": None, "gap": {"gap_error": None, "interval": [0.5, None]}, "name": "学生", "rows": 3}


def test_a_speed_that_is_not_known_is_a_dash_and_no_picture_needs_it(tmp_path):
    row = {"name": "distilled", "parameters": 10, "megabytes": 0.1, "latency": None, "samples_per_second": None}
    row |= {"accuracy": 0.5, "macro_f1": 0.5, "agreement": 0.5, "kl": 0.1, "calibration_error": 0.1}
    cells = markdown_table(*comparison.cells([row], ClassScoring(["a", "b"]))).splitlines()[-1].split("|")
    assert [cell.strip() for cell in cells[-3:-1]] == ["-", "-"]
    plot_comparison([row, {**row, "name": "teacher", "latency": 2.0}], tmp_path / "report.png", "?")
    assert (tmp_path / "report.png").stat().st_size > 1_000


class Words(ClassScoring):
    """Errors for a score, of recordings of two seconds."""

    score, lower_is_better = "wer", True

    def seconds(self, rows):
        return 2.0 * len(rows)


def test_of_errors_fewer_are_better_in_the_gap():
    each = {name: np.array(rates) for name, rates in (("alone", [0.3, 0.5]), ("distilled", [0.2, 0.3]))}
    scoring = Words(["a", "b"])
    found = {name: Measurement({"wer": one}) for name, one in each.items()}
    gap = gap_closed(*(scoring.scores(found[name]) for name in ("alone", "distilled")), teacher=[-0.1, -0.1])
    assert gap.gain == pytest.approx(0.15)
    assert gap.gap == pytest.approx(0.3)
    assert found["alone"].row("wer", share=False)["wer"] == pytest.approx(0.4)  # the table shows the error itself


def test_how_much_faster_than_speech_a_model_is_stands_beside_its_latency(tmp_path):
    run = tiny.trainer(tmp_path)
    row = comparison.costs({"student": run.model}, Dataset.from_list(tiny.rows()), run, Words(["a", "b"]))["student"]
    assert row["real_time_factor"] > 0
    row |= {"name": "student", "accuracy": 0.5, "macro_f1": 0.5, "agreement": 0.5, "kl": 0.1, "calibration_error": 0.1}
    heading, _, cells = markdown_table(*comparison.cells([row], Words(["a", "b"]))).splitlines()
    assert heading.split("|")[-2].strip() == "x real time"
    assert cells.split("|")[-2].strip() == f"{row['real_time_factor']:,.0f}"
