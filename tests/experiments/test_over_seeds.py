"""The comparison over seeds, and the report of finished models: what is run, kept and written."""

import json
import math

import numpy as np
import pytest
from recipe_runs import TINY

from hf_distill import cli
from hf_distill.cli.recipes import recipe_module
from hf_distill.experiments import evaluation, experiment, over_seeds

bert_chinese = recipe_module("bert_chinese")


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compared")
    flags = ["bert_chinese", "--output_dir", str(folder), *TINY, "--seeds", "0", "1", "--tuning_runs", "2"]
    assert cli.main(["compare", *flags]) == 0
    return folder, flags


def test_the_table_has_means_over_seeds(compared):
    report = json.loads((compared[0] / "over_seeds" / "report.json").read_text(encoding="utf-8"))
    assert [row["name"] for row in report["models"]] == ["teacher", "student alone", "distilled"]
    assert [run["learning_rate"] for run in report["tuning"]] == [0.002, 0.004]
    best = max(report["tuning"], key=lambda run: run["validation"])["learning_rate"]
    assert {(run["student"], run["learning_rate"], run["seed"]) for run in report["runs"]} == {
        (name, best, seed) for name in over_seeds.STUDENTS for seed in (0, 1)
    }
    for row in report["models"][1:]:
        own = [run["score"] for run in report["runs"] if run["student"] == row["name"]]
        assert row["accuracy"] == pytest.approx(np.mean(own))
        assert row["accuracy_error"] == pytest.approx(np.std(own, ddof=1) / np.sqrt(2))
    assert report["summary"].startswith("over 2 seeds: gain ")
    assert (compared[0] / "over_seeds" / "report.png").stat().st_size < 200_000
    assert not (compared[0] / "over_seeds" / "_run").exists()


def test_the_run_at_the_chosen_rate_is_not_trained_again(compared):
    report = json.loads((compared[0] / "over_seeds" / "report.json").read_text(encoding="utf-8"))
    lines = [json.loads(line) for line in (compared[0] / "over_seeds" / "runs.jsonl").read_text().splitlines()[1:]]
    keys = [(run["student"], run["learning_rate"], run["seed"]) for run in lines]
    assert len(keys) == len(set(keys)) == 5
    first = report["runs"][0]
    (tuned,) = [run for run in report["tuning"] if run["learning_rate"] == first["learning_rate"]]
    assert first == {**tuned, "score": first["score"], "figures": first["figures"]}  # it was measured on both
    assert all("score" not in run for run in report["tuning"])


def test_its_score_is_that_of_a_run_of_its_own(compared, tmp_path):
    report = json.loads((compared[0] / "over_seeds" / "report.json").read_text(encoding="utf-8"))
    asked, rest = over_seeds.SeedArguments(), compared[1][1 : compared[1].index("--seeds")]
    job = bert_chinese.RECIPE.prepare([*rest, "--output_dir", str(compared[0])])
    job.root = tmp_path
    first = report["runs"][0]
    again = over_seeds.Runs(job, asked).run("student alone", first["learning_rate"], first["seed"])
    assert "validation" not in again
    assert again["figures"] == first["figures"]


def test_it_goes_on_where_it_stopped(compared, monkeypatch):
    folder, flags = compared
    file = folder / "over_seeds" / "runs.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1 + 2 + 3  # the first seed of the student alone was trained to choose its rate
    half = lines[-1][: len(lines[-1]) // 2]  # killed while it was written
    file.write_text("\n".join([*lines[:-1], half]), encoding="utf-8")
    trained = []
    monkeypatch.setattr(over_seeds, "train", lambda trainer: (trained.append(trainer), experiment.train(trainer)))
    assert cli.main(["compare", *flags]) == 0
    assert len(trained) == 1
    again = file.read_text(encoding="utf-8").splitlines()
    assert again[:-1] == lines[:-1]
    assert json.loads(again[-1])["score"] == json.loads(lines[-1])["score"]


def test_a_seed_that_is_given_twice_counts_once(compared):
    folder, flags = compared
    kept = json.loads((folder / "over_seeds" / "report.json").read_text(encoding="utf-8"))
    assert cli.main(["compare", *flags[: flags.index("--seeds")], "--seeds", "0", "1", "0", "--tuning_runs", "2"]) == 0
    again = json.loads((folder / "over_seeds" / "report.json").read_text(encoding="utf-8"))
    assert (again["runs"], again["gap"]) == (kept["runs"], kept["gap"])


def test_a_rate_at_which_the_student_diverges_is_never_the_best(compared):
    runs = object.__new__(over_seeds.Runs)
    runs.asked = over_seeds.SeedArguments()
    runs.experiment = bert_chinese.RECIPE.prepare(compared[1][1 : compared[1].index("--seeds")])
    assert over_seeds._best({0.002: math.nan, 0.001: -1.0, 0.004: -2.0}) == 0.001
    assert over_seeds._best({0.002: math.nan, 0.001: math.nan}) == 0.001
    assert runs._next({0.002: math.nan}) == 0.001
    assert runs._next({0.002: math.nan, 0.001: math.nan}) == 0.0005
    assert runs._next({0.002: math.nan, 0.001: -1.0}) == 0.0005
    assert runs._next({0.002: -1.0}) == 0.004


def test_other_settings_are_not_mixed_with_kept_runs(compared, capsys):
    for other in (["--alpha", "0.5"], ["--weight_decay", "0.5"], ["--lr_scheduler_type", "constant"]):
        assert cli.main(["compare", *compared[1], *other]) == 1
        assert "holds runs with other settings or rows" in capsys.readouterr().err


def test_a_teacher_that_was_trained_otherwise_is_another_one(compared, monkeypatch):
    _, flags = compared
    flags = flags[1 : flags.index("--seeds")]
    trained = []
    monkeypatch.setattr(experiment, "train", lambda trainer: trained.append(trainer.args.weight_decay))
    experiment.make_teacher(bert_chinese.RECIPE.prepare(flags))
    assert trained == []
    experiment.make_teacher(bert_chinese.RECIPE.prepare([*flags, "--weight_decay", "0.5"]))
    assert trained == [0.5]


def test_bad_questions_are_refused_before_anything_is_read(tmp_path, capsys):
    for flags, expected in (
        (["--seeds", "1"], "one run says nothing about chance"),
        (["--seeds", "1", "1"], "one run says nothing about chance"),
        (["--tuning_runs", "0"], "tuning_runs=0 was given"),
    ):
        assert cli.main(["compare", "bert_chinese", "--output_dir", str(tmp_path), *flags]) == 1
        assert expected in capsys.readouterr().err
    assert cli.main(["compare", "bert_chinese", "--output_dir", str(tmp_path), *TINY, "--skip_alone", "1"]) == 1
    assert "there is no student alone to compare with" in capsys.readouterr().err


def test_flags_of_the_recipe_are_left_to_it(capsys):
    given = []

    def prepare(words):
        given.append(words)
        raise ValueError("enough")

    for words in (["--seed", "5", "--learning_rate", "1e-3"], ["--help"]):
        for main in (over_seeds.main, evaluation.main):
            with pytest.raises(ValueError, match="enough"):
                main(prepare, words)
            assert given.pop() == words
    said = capsys.readouterr().out
    assert "--learning_rates" in said
    assert "--alone" in said
