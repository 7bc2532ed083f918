"""The comparison over seeds, and the report of finished models: what is run, kept and written."""

import json
import shutil
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
from datasets import Dataset
from recipe_runs import TINY, rows, unlabeled, write

from hf_distill import cli
from hf_distill.cli.recipes import recipe_module
from hf_distill.experiments import evaluation, experiment, over_seeds
from hf_distill.experiments.models import ModelArguments
from hf_distill.experiments.text_classification import ClassScoring
from hf_distill.experiments.token_tagging import TagScoring

NAMES = ["student alone", "student alone, as long", "distilled"]
bert_chinese = recipe_module("bert_chinese")


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compared")
    flags = ["bert_chinese", "--output_dir", str(folder), *TINY, "--seeds", "0", "1", "--tuning_runs", "2"]
    assert cli.main(["compare", *flags]) == 0
    return folder, flags


def test_the_table_has_means_over_seeds(compared):
    report = json.loads((compared[0] / "over_seeds" / "report.json").read_text(encoding="utf-8"))
    assert [row["name"] for row in report["models"]] == ["teacher", *NAMES]
    assert [run["learning_rate"] for run in report["tuning"]] == [0.001, 0.002]
    best = max(report["tuning"], key=lambda run: run["validation"])["learning_rate"]
    assert {(run["student"], run["learning_rate"], run["seed"]) for run in report["runs"]} == {
        (name, best, seed) for name in NAMES for seed in (0, 1)
    }
    for row in report["models"][1:]:
        own = [run["score"] for run in report["runs"] if run["student"] == row["name"]]
        assert row["accuracy"] == pytest.approx(np.mean(own))
        assert row["accuracy_error"] == pytest.approx(np.std(own, ddof=1) / np.sqrt(2))
    nothing = "nothing was learned: the best model is the floor"  # in two steps
    assert (report["verdict"], report["floor_lead"] <= 0) == (nothing, True)
    assert report["summary"].startswith(f"{nothing}; over 2 seeds: gain ")
    assert (compared[0] / "over_seeds" / "report.png").stat().st_size < 200_000
    shown = (compared[0] / "over_seeds" / "_report.html").read_text(encoding="utf-8")
    assert "student alone, as long" in shown
    assert "The runs" in shown
    assert not (compared[0] / "over_seeds" / "_run").exists()


def test_the_run_at_the_chosen_rate_is_not_trained_again(compared):
    report = json.loads((compared[0] / "over_seeds" / "report.json").read_text(encoding="utf-8"))
    lines = [json.loads(line) for line in (compared[0] / "over_seeds" / "runs.jsonl").read_text().splitlines()[1:]]
    keys = [(run["student"], run["learning_rate"], run["seed"]) for run in lines]
    assert len(keys) == len(set(keys)) == 7
    first = report["runs"][0]
    (tuned,) = [run for run in report["tuning"] if run["learning_rate"] == first["learning_rate"]]
    assert first == {**tuned, "score": first["score"], "figures": first["figures"]}  # it was measured on both
    assert all("score" not in run for run in report["tuning"])


@pytest.mark.slow
def test_its_score_is_that_of_a_run_of_its_own(compared, tmp_path):
    report = json.loads((compared[0] / "over_seeds" / "report.json").read_text(encoding="utf-8"))
    asked, rest = over_seeds.SeedArguments(), compared[1][1 : compared[1].index("--seeds")]
    job = bert_chinese.RECIPE.prepare([*rest, "--output_dir", str(compared[0])])
    job.root = tmp_path
    first = report["runs"][0]
    again = over_seeds.Runs(job, asked).run("student alone", first["learning_rate"], first["seed"])
    assert "validation" not in again
    assert again["figures"] == first["figures"]


@pytest.mark.slow
def test_it_goes_on_where_it_stopped(compared, monkeypatch):
    folder, flags = compared
    file = folder / "over_seeds" / "runs.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1 + 2 + 5  # the first seed of the student alone was trained to choose its rate
    half = lines[-1][: len(lines[-1]) // 2]  # killed while it was written
    file.write_text("\n".join([*lines[:-1], half]), encoding="utf-8")
    trained, train = [], experiment.train
    monkeypatch.setattr(experiment, "train", lambda trainer, *_: (trained.append(trainer), train(trainer)))
    assert cli.main(["compare", *flags]) == 0
    assert len(trained) == 1
    again = file.read_text(encoding="utf-8").splitlines()
    assert again[:-1] == lines[:-1]
    assert json.loads(again[-1])["score"] == json.loads(lines[-1])["score"]


def test_the_student_alone_is_trained_for_as_many_seconds_too(compared):
    report = json.loads((compared[0] / "over_seeds" / "report.json").read_text(encoding="utf-8"))
    for seed in (0, 1):
        alone, as_long, distilled = (
            next(run for run in report["runs"] if (run["student"], run["seed"]) == (name, seed)) for name in NAMES
        )
        assert alone["steps"] == distilled["steps"] == 2
        share = max(1, distilled["cpu_seconds"] / alone["cpu_seconds"])
        assert as_long["steps"] == round(2 * share)
        assert as_long["learning_rate"] == alone["learning_rate"]
    row = report["models"][2]
    own = [run for run in report["runs"] if run["student"] == NAMES[1]]
    assert row["steps"] == np.mean([run["steps"] for run in own])
    assert row["cpu_seconds"] == pytest.approx(np.mean([run["cpu_seconds"] for run in own]))
    assert report["gap_as_long"]["gain"] == pytest.approx(report["models"][3]["accuracy"] - row["accuracy"])
    assert report["gap"]["gain"] == pytest.approx(report["models"][3]["accuracy"] - report["models"][1]["accuracy"])
    assert "; at equal CPU seconds: gain " in report["summary"]


def test_as_long_is_four_times_the_steps_where_a_step_takes_four_times_the_seconds(compared, monkeypatch):
    runs, asked = object.__new__(over_seeds.Runs), []
    runs.asked, runs.counted = over_seeds.SeedArguments(), "cpu_seconds"
    runs.students, runs.as_long = (NAMES[0], NAMES[2]), NAMES[1]

    def made(name, rate, seed, steps=None):
        asked.append((name, rate, seed, steps))
        return {"steps": 100, "cpu_seconds": {"student alone": 10.0}.get(name, 40.0)}

    monkeypatch.setattr(runs, "run", made)
    rates = {"student alone": 0.1, "distilled": 0.2}
    assert len(runs.of_seed(rates, 7)) == 3
    assert asked == [("student alone", 0.1, 7, None), ("distilled", 0.2, 7, None), (NAMES[1], 0.1, 7, 400)]
    runs.asked.equal_seconds = False
    assert len(runs.of_seed(rates, 7)) == 2
    monkeypatch.setattr(runs, "run", lambda name, *_, **more: more or {"steps": 100, "cpu_seconds": 1.0 / len(name)})
    runs.asked.equal_seconds = True
    assert runs.of_seed({"student alone": 0.1, "distilled": 0.2}, 7)[2]["steps"] >= 100  # never fewer


@pytest.mark.slow
def test_runs_without_their_seconds_are_made_again_where_these_are_asked_for(compared, tmp_path, monkeypatch):
    asked, rest = over_seeds.SeedArguments(), compared[1][1 : compared[1].index("--seeds")]
    job = bert_chinese.RECIPE.prepare([*rest, "--output_dir", str(compared[0])])
    job.root = tmp_path
    runs = over_seeds.Runs(job, asked)
    old = {"student": "student alone", "learning_rate": 0.002, "seed": 5, "validation": -1.0, "score": 0.5}
    runs._keep({**old, "figures": {"accuracy": 0.5}, "steps": 2})
    trained, train = [], experiment.train
    monkeypatch.setattr(experiment, "train", lambda trainer, *_: (trained.append(trainer), train(trainer)))
    assert runs.run("student alone", 0.002, 5, tuning=True)["score"] == 0.5  # its rate was chosen without them
    asked.equal_seconds = False
    assert runs.run("student alone", 0.002, 5)["score"] == 0.5
    assert not trained
    asked.equal_seconds = True
    assert runs.run("student alone", 0.002, 5)["cpu_seconds"] > 0
    assert runs.run("student alone", 0.002, 5)["steps"] == 2
    assert len(trained) == 1


@pytest.mark.slow
def test_without_equal_seconds_there_are_two_students(compared, tmp_path):
    folder = shutil.copytree(compared[0], tmp_path / "copy")
    assert cli.main(["compare", *compared[1], "--output_dir", str(folder), "--equal_seconds", "false"]) == 0
    report = json.loads((folder / "over_seeds" / "report.json").read_text(encoding="utf-8"))
    assert [row["name"] for row in report["models"]] == ["teacher", NAMES[0], NAMES[2]]
    assert "gap_as_long" not in report
    assert "CPU seconds" not in report["summary"]


@pytest.mark.slow
def test_the_student_alone_has_as_many_steps_where_its_teacher_reads_more_rows(tmp_path, capsys):
    made = {"train": rows(40), "validation": rows(6), "test": rows(6), "unlabeled": unlabeled(60)}
    files = [f"--{name}_file={write(tmp_path / f'{name}.jsonl', data)}" for name, data in made.items()]
    own = ["--max_steps", "-1", "--num_train_epochs", "1", "--per_device_train_batch_size", "20"]
    flags = ["bert_chinese", "--output_dir", str(tmp_path / "out"), *TINY, *files, *own, "--seeds", "0", "1"]
    assert cli.main(["compare", *flags, "--tuning_runs", "1", "--equal_seconds", "false"]) == 0
    report = json.loads((tmp_path / "out" / "over_seeds" / "report.json").read_text(encoding="utf-8"))
    assert [run["steps"] for run in report["runs"]] == [5, 5, 5, 5]  # 2 in an epoch of the labelled rows
    assert report["floor"] == 0.5
    assert "floor: 50.0 %, the most frequent class of the training labels, on the test rows" in capsys.readouterr().out


def test_the_floor_is_what_a_model_that_learnt_nothing_scores():
    scoring = ClassScoring(["a", "b", "c"])
    train = Dataset.from_dict({"label": [2, 2, 1, -100, -100, -100, 0]})
    assert scoring.floor(Dataset.from_dict({"label": [0, 2, 1, 1, 1]}), train) == 0.2
    tags = TagScoring(["O", "B-x", "I-x"])
    train, test = (Dataset.from_dict({"labels": found}) for found in ([[1, 0, -100], [1]], [[1, -100, 2], [1, 1]]))
    # B-x for every token: of the three spans that are there, two are among the four that are said.
    assert tags.floor(test, train) == pytest.approx(2 * 2 / (4 + 3))
    assert tags.floor(test, Dataset.from_dict({"labels": [[0, 0, 1]]})) == 0.0


def test_runs_of_earlier_versions_are_found_where_nothing_newer_was_asked_for():
    recipe = ModelArguments()
    assert over_seeds._settings(recipe) == {
        name: value for name, value in vars(recipe).items() if name not in ("student_parameters", "shrink_rounds")
    }
    asked = over_seeds._settings(ModelArguments(student_parameters=0.5, shrink_rounds=2))
    assert (asked["student_parameters"], asked["shrink_rounds"]) == (0.5, 2)


@pytest.mark.slow
def test_students_that_shrink_are_compared(tmp_path):
    small = ["--output_dir", str(tmp_path), *TINY, "--teacher_layers", "2", "--teacher_hidden_size", "128"]
    flags = [*small, "--student_hidden_size", "128", "--student_parameters", "0.5", "--shrink_rounds", "2"]
    assert cli.main(["compare", "bert_chinese", *flags, "--seeds", "0", "1", "--tuning_runs", "1"]) == 0
    report = json.loads((tmp_path / "over_seeds" / "report.json").read_text(encoding="utf-8"))
    teacher, *students = report["models"]
    assert {one["parameters"] for one in students} == {students[0]["parameters"]}
    assert students[0]["parameters"] <= 0.5 * teacher["parameters"]
    assert report["rounds"] == 2
    assert [run["steps"] for run in report["runs"] if run["student"] != NAMES[1]] == [2] * 4


@pytest.mark.slow
def test_a_seed_that_is_given_twice_counts_once(compared):
    folder, flags = compared
    kept = json.loads((folder / "over_seeds" / "report.json").read_text(encoding="utf-8"))
    assert cli.main(["compare", *flags[: flags.index("--seeds")], "--seeds", "0", "1", "0", "--tuning_runs", "2"]) == 0
    again = json.loads((folder / "over_seeds" / "report.json").read_text(encoding="utf-8"))
    assert (again["runs"], again["gap"]) == (kept["runs"], kept["gap"])


@pytest.mark.parametrize(("lower", "judged"), [(False, 0.3), (True, -0.3)])
def test_of_errors_the_rate_with_the_fewest_is_chosen(monkeypatch, lower, judged):
    monkeypatch.setattr(over_seeds, "plainly", nullcontext)
    runs = object.__new__(over_seeds.Runs)
    runs.experiment = SimpleNamespace(scoring=SimpleNamespace(score="wer", lower_is_better=lower, is_loss=False))
    trainer = SimpleNamespace(evaluate=lambda: {"eval_loss": 2.0, "eval_wer": 0.3})
    assert runs._judged("distilled", trainer) == {"validation": judged}
    trainer.evaluate = lambda: {"eval_loss": 2.0, "eval_loss/hard": 1.0}
    assert runs._judged("distilled", trainer) == {"validation": -1.0}


@pytest.mark.slow
def test_other_settings_are_not_mixed_with_kept_runs(compared, capsys):
    for other in (["--alpha", "0.5"], ["--weight_decay", "0.5"], ["--lr_scheduler_type", "constant"]):
        assert cli.main(["compare", *compared[1], *other]) == 1
        assert "holds runs with other settings or rows" in capsys.readouterr().err


@pytest.mark.slow
def test_a_teacher_that_was_trained_otherwise_is_another_one(compared, monkeypatch):
    _, flags = compared
    flags = flags[1 : flags.index("--seeds")]
    trained = []
    monkeypatch.setattr(experiment, "train", lambda trainer: trained.append(trainer.args.weight_decay))
    experiment.make_teacher(bert_chinese.RECIPE.prepare(flags))
    assert trained == []
    experiment.make_teacher(bert_chinese.RECIPE.prepare([*flags, "--weight_decay", "0.5"]))
    assert trained == [0.5]


@pytest.mark.slow
def test_a_distilled_student_reads_its_teacher_and_the_one_alone_does_not(compared, tmp_path, monkeypatch):
    asked, rest = over_seeds.SeedArguments(equal_seconds=False), compared[1][1 : compared[1].index("--seeds")]
    job = bert_chinese.RECIPE.prepare([*rest, "--output_dir", str(tmp_path), "--reader", "logits"])
    job.root, read = compared[0], []
    with pytest.raises(ValueError, match="holds runs with other settings"):
        over_seeds.Runs(job, asked)  # those of the folder have no reader
    job.root = tmp_path
    runs = over_seeds.Runs(job, asked)
    monkeypatch.setattr(experiment, "train", lambda trainer, *_: read.append(trainer.args.reader))
    monkeypatch.setattr(runs, "_measured", lambda *_: {})
    for student in runs.students:
        runs.run(student, 0.002, 0)
    assert read == [None, "logits"]


@pytest.mark.slow
def test_a_plain_draft_is_trained_beside_a_draft_head(tmp_path):
    small = ["--max_train_samples", "60", "--max_eval_samples", "12", "--max_length", "24", "--teacher_layers", "3"]
    small += ["--teacher_hidden_size", "64", "--max_steps", "2", "--per_device_train_batch_size", "8"]
    small += [
        "--prompts",
        "2",
        "--prompt_tokens",
        "3",
        "--new_tokens",
        "8",
        "--num_threads",
        "1",
        "--report_to",
        "none",
    ]
    flags = ["draft_head", "--output_dir", str(tmp_path), *small, "--seeds", "0", "1", "--tuning_runs", "2"]
    assert cli.main(["compare", *flags, "--tune_distilled", "1"]) == 0
    report = json.loads((tmp_path / "over_seeds" / "report.json").read_text(encoding="utf-8"))
    teacher, plain, longer, head = report["models"]
    assert [one["name"] for one in report["models"]] == ["teacher", "plain draft", "plain draft, as long", "distilled"]
    assert teacher["kl"] == 0 < plain["kl"]
    assert head["accepted"] >= 0 <= plain["accepted"]
    assert plain["parameters"] == longer["parameters"] < head["parameters"]
    first = next(run for run in report["tuning"] if run["student"] == "plain draft")
    assert first["validation"] < 0  # a KL that was measured, not a loss of true texts


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
