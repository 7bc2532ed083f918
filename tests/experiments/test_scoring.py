"""What a model scores that learnt nothing: a row of the table, and by how much the best model is ahead of it."""

import math

import numpy as np
import pytest
from datasets import Dataset

from hf_distill.experiments import comparison
from hf_distill.experiments.causal_lm import LanguageModelScoring
from hf_distill.experiments.detection import DetectionScoring
from hf_distill.experiments.scoring import Measurement
from hf_distill.experiments.text_classification import ClassScoring
from hf_distill.experiments.transcripts import TranscriptScoring
from hf_distill.experiments.translation import TranslationScoring
from hf_distill.reports import markdown_table
from hf_distill.reports.intervals import student_quantile

SIZE = {"parameters": 10, "megabytes": 0.1, "latency": 2.0, "samples_per_second": 3.0}


def test_the_best_model_counts_with_its_error():
    rows = [{"accuracy": 0.5, "accuracy_error": 0.1}, {"accuracy": 0.7, "accuracy_error": 0.2}]
    scoring = ClassScoring(["a", "b"])
    found = scoring.above_floor(rows, 0.6)
    assert found == {"floor": 0.6, "floor_lead": pytest.approx(0.1), "floor_lead_error": 0.2}
    assert scoring.above_floor(rows, None) == {"floor": None}
    assert scoring.above_floor([{"accuracy": math.nan}], 0.6)["floor_lead"] == -math.inf


def test_the_error_of_a_row_is_that_of_its_interval_and_of_the_jackknife():
    values, n = np.random.default_rng(0).normal(size=25), 25
    row = Measurement({"f1": values}).row("f1", share=False)
    low, high = row["f1_interval"]
    assert high - low == pytest.approx(2 * student_quantile(0.975, n - 1) * row["f1_error"])
    without = (values.sum() - values) / (n - 1)  # the mean without each of them
    spread = ((without - without.mean()) ** 2).sum()
    assert row["f1_error"] == pytest.approx(math.sqrt((n - 1) / n * spread))
    alone = {"f1": values[:1]}  # nothing is known of its spread
    assert Measurement(alone).row("f1", share=False)["f1_error"] == 0.0


def test_of_errors_the_lowest_is_the_best():
    scoring = object.__new__(TranscriptScoring)
    scoring.score = "wer"
    assert scoring.above_floor([{"wer": 0.9}, {"wer": 1.2}], 1.0)["floor_lead"] == pytest.approx(0.1)


def test_the_floor_is_a_row_of_the_table_and_has_no_more_than_its_score():
    row = {
        "name": "distilled",
        "accuracy": 0.5,
        "macro_f1": 0.4,
        "agreement": 1.0,
        "kl": 0.1,
        "calibration_error": 0.1,
    }
    scoring = ClassScoring(["a", "b"])
    lines = markdown_table(*comparison.cells([{**row, **SIZE}], scoring, floor=0.25)).splitlines()
    assert [cell.strip() for cell in lines[-1].split("|")[1:-1]] == ["floor", "25.0", *["-"] * 8]
    assert markdown_table(*comparison.cells([{**row, **SIZE}], scoring)).splitlines() == [
        line for line in lines if not line.startswith("| floor")
    ]


def test_a_language_models_floor_knows_how_often_each_token_stands_in_the_training_rows():
    learnt = Dataset.from_dict({"labels": [[9, 1, 1, 2], [9, -100, 1]]})
    asked = Dataset.from_dict({"labels": [[9, 1, 2], [9, 4]]})
    scoring = LanguageModelScoring()
    shares = np.array([3 + 1, 1 + 1, 0 + 1]) / (4 + 3)  # of 1, of 2, and of 4, which no training row has
    floor = scoring.floor(asked.select([0, 1]), learnt)
    assert floor == pytest.approx(-np.log(shares).mean())
    row = {"name": "teacher", "perplexity": 2.0, "loss": 0.7, "loss_error": 0.1, "accuracy": 0.5, "kl": 0.0}
    lines = markdown_table(*comparison.cells([{**row, "agreement": 1.0, **SIZE}], scoring, floor=floor)).splitlines()
    cells = [cell.strip() for cell in lines[-1].split("|")[1:-1]]
    assert cells[:4] == ["floor", f"{math.exp(floor):.2f}", f"{floor:.3f}", "-"]
    assert scoring.above_floor([row], floor)["floor_lead"] == pytest.approx(floor - 0.7)
    assert scoring.floor_named(floor).startswith(f"{floor:.3f} nats, who knows only how often")


def test_some_have_no_floor_and_some_are_at_zero():
    assert TranslationScoring(None, None).floor(None, None) is None
    assert DetectionScoring(None, ["a"]).floor(None, None) == 0.0
