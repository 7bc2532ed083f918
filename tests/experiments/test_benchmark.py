"""A run under a suite: which models it has, what stands beside each other, what is kept."""

import json

import numpy as np
import pytest

from hf_distill.experiments import benchmark
from hf_distill.experiments.suites import Figure, Suite


class Counts(Suite):
    """A suite that needs no library."""

    name, package = "counts", "numpy"

    def score(self, model):
        return []


def figures(each, error=0.1, metric="acc", **more):
    return [Figure("one", metric, float(np.mean(each)), error, len(each), each=np.asarray(each, float), **more)]


ABOUT = {"limit": None, "machine": "a machine"}
ALONE, DISTILLED, TEACHER = [0, 0, 0, 1] * 25, [0, 1, 0, 1] * 25, [1, 1, 0, 1] * 25
ALL = {"student alone": figures(ALONE), "distilled": figures(DISTILLED), "teacher": figures(TEACHER)}


def folder(path, **report):
    path.mkdir(parents=True)
    if report:
        (path / "report.json").write_text(json.dumps(report), encoding="utf-8")
    return path


def kept(root, name):
    place = folder(root / name)
    (place / "trained_with.json").write_text("{}", encoding="utf-8")
    return str(place)


def test_a_run_has_the_models_that_its_folder_keeps(tmp_path):
    run = folder(tmp_path / "run", recipe={"name": "mine", "arguments": {}})
    assert benchmark.models_of(run) == {"distilled": str(run)}
    (run / "_alone").mkdir()
    (run / "_alone" / "config.json").write_text("{}", encoding="utf-8")
    teacher = kept(run, "_teacher-a")
    found = benchmark.models_of(run)
    assert list(found.items()) == [
        ("student alone", str(run / "_alone")),
        ("distilled", str(run)),
        ("teacher", teacher),
    ]
    named = benchmark.models_of(run, alone="me/alone", teacher="me/teacher")
    assert (named["student alone"], named["teacher"]) == ("me/alone", "me/teacher")


def test_of_several_teachers_the_report_names_one(tmp_path):
    run = folder(tmp_path / "run-2", teacher_folder="_teacher-b")
    kept(tmp_path, "_teacher-a")
    assert benchmark.teacher_of(run) is None  # the one that it had is gone
    second = kept(tmp_path, "_teacher-b")
    assert benchmark.teacher_of(run) == second
    (run / "report.json").unlink()
    assert benchmark.teacher_of(run) is None
    assert benchmark.teacher_of(folder(tmp_path / "mine")) is None  # runs of a name of their own share no teacher


@pytest.mark.parametrize(("tuned", "expected"), [(False, "me/teacher"), (True, None)])
def test_a_given_teacher_is_the_run_s_unless_it_was_tuned_first(tmp_path, tuned, expected):
    settings = {"teacher_model_name_or_path": "me/teacher", **({"finetune_teacher": True} if tuned else {})}
    run = folder(tmp_path / "run", recipe={"name": "mine", "arguments": settings})
    assert benchmark.teacher_of(run) == expected
    assert benchmark.settings_of(run) == settings


def test_the_gap_is_that_of_rows_in_pairs():
    (row,) = benchmark.put_together(Counts, ALL, ABOUT)
    assert row["gap"]["ratio"] == pytest.approx(0.5)  # 0.25, 0.50, 0.75
    assert row["gap"]["ratio_error"] == pytest.approx(0.0711, abs=1e-3)
    assert row["models"]["teacher"] == {"value": 0.75, "error": 0.1}
    assert row["library"].startswith("numpy ")
    worse = {name: figures([-one for one in each], lower_is_better=True) for name, each in
             (("student alone", ALONE), ("distilled", DISTILLED), ("teacher", TEACHER))}  # fmt: skip
    assert benchmark.put_together(Counts, worse, ABOUT)[0]["gap"]["ratio"] == pytest.approx(0.5)


def test_no_gap_is_said_without_three_models_or_without_their_rows():
    two = {name: ALL[name] for name in ("distilled", "teacher")}
    assert benchmark.put_together(Counts, two, ABOUT)[0]["gap"] is None
    whole = {**ALL, "teacher": [Figure("one", "acc", 0.75, None, 100)]}
    rows = benchmark.put_together(Counts, whole, ABOUT)
    assert rows[0]["gap"] is None
    assert benchmark.benchmark_table(rows).splitlines()[-1].endswith("|  0.7500 |            - |")


def test_a_task_that_is_scored_again_takes_the_place_of_the_last_time(tmp_path):
    first = benchmark.put_together(Counts, ALL, ABOUT)
    other = [{**first[0], "task": "two"}]
    benchmark.keep(tmp_path, first)
    assert [row["task"] for row in benchmark.keep(tmp_path, other)] == ["one", "two"]
    again = benchmark.put_together(Counts, {"distilled": figures([1.0, 1.0], float("nan"))}, ABOUT)
    rows = benchmark.keep(tmp_path, again)
    assert [row["task"] for row in rows] == ["two", "one"]
    assert rows[1]["models"] == {"distilled": {"value": 1.0, "error": None}}  # a figure that is none is null
    assert json.loads((tmp_path / benchmark.FILE).read_text(encoding="utf-8"))["figures"] == rows


def test_what_a_table_is_of_is_said():
    (row,) = benchmark.put_together(Counts, ALL, {"limit": 100, "machine": "a machine"})
    others = [
        {**row, "task": "two", "metric": "perplexity", "lower_is_better": True, "shots": 5, "gap": None, "limit": None,
         "models": {"distilled": {"value": 1234.5, "error": None}}},
    ]  # fmt: skip
    said = benchmark.about_benchmarks([row, *others])
    for part in (
        "Scored by numpy ", "on a machine.", "± is one standard error", "No standard error is given of two:",
        "The gap closed is that of the rows in pairs", "Lower is better for perplexity of two.",
        "Examples before each row: two 5.", "Only the first rows were taken of one,",
    ):  # fmt: skip
        assert part in said
    table = benchmark.benchmark_table([row, *others])
    assert "| 0.5000 ± 0.1000 |" in table
    assert "1,234.5" in table
    assert benchmark.about_benchmarks(others).count("gap closed") == 0
