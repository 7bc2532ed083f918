"""What a person calls a student, its data and its classes: where it is written, and what is refused."""

import json
import re

import numpy as np
import pytest
import tiny
from huggingface_hub import ModelCard

from hf_distill import cli
from hf_distill.cli.names import labels_of
from hf_distill.reports import class_changes, class_table


@pytest.fixture
def run(tmp_path):
    """What a recipe leaves, with classes that nobody named."""
    folder, labels = tmp_path / "run", np.array([0, 1, 2] * 4)
    one = tiny.trainer(folder, teacher_model=tiny.teacher())
    one.model.config.save_pretrained(folder)
    numbered = list(one.model.config.id2label.values())
    said = {name: np.roll(labels, place) for place, name in enumerate(("student alone", "distilled"))}
    changes = class_changes(said, labels, numbered)
    one.report = {
        "dataset": "train.csv", "measured_on": "test.csv", "rows": {"test": 12}, "summary": "gain", "machine": "one",
        "table": "| a |", "models": [{"name": "distilled", "accuracy": 0.5, "macro_f1": 0.25}],
        "plotted": ["accuracy", "test accuracy"], "classes": [vars(one) for one in changes],
        "class_table": class_table(changes), "pictures": {"report.png": "a", "classes.png": "b"},
    }  # fmt: skip
    one.create_model_card(model_name="run")
    (folder / "report.json").write_text(json.dumps(one.report), encoding="utf-8")
    for name in one.report["pictures"]:
        (folder / name).write_bytes(b"a picture")
    for other in ("quantized", "_teacher-1", "checkpoint-2"):
        one.model.config.save_pretrained(folder / other)
    return folder


def kept(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_title_is_the_heading_and_the_name_of_the_results(run):
    before = ModelCard.load(run / "README.md")
    assert cli.main(["card", str(run), "--title", r"评论 \1 small"]) == 0
    card = ModelCard.load(run / "README.md")
    assert card.text.lstrip().splitlines()[0] == r"# 评论 \1 small"
    assert card.text.lstrip().splitlines()[1:] == before.text.lstrip().splitlines()[1:]
    assert card.data.model_name == r"评论 \1 small"
    assert card.data.eval_results == before.data.eval_results


def test_data_have_a_title_in_the_card_its_results_the_report_and_its_picture(run):
    before = kept(run)
    assert cli.main(["card", str(run), "--dataset_title", "Hotel reviews"]) == 0
    card, report = ModelCard.load(run / "README.md"), json.loads((run / "report.json").read_text(encoding="utf-8"))
    assert "On the test rows of Hotel reviews (12 rows):" in card.text
    assert "it was taught on (Hotel reviews)" in card.text
    assert ".csv" not in card.content
    assert {one.dataset_name for one in card.data.eval_results} == {"Hotel reviews"}
    assert (report["dataset"], report["measured_on"]) == ("Hotel reviews", "Hotel reviews")
    changed = {name for name, content in kept(run).items() if content != before[name]}
    assert {str(name) for name in changed} == {"README.md", "report.json", "report.png"}
    assert cli.main(["card", str(run), "--dataset_title", "Reviews", "--datasets", "me/reviews"]) == 0  # once more
    assert "On the test rows of Reviews (12 rows):" in ModelCard.load(run / "README.md").text


def test_classes_have_names_wherever_the_student_lies_and_its_report_shows_them(run, capsys):
    before, names = kept(run), ["差评", "a | b", "好评"]
    assert cli.main(["card", str(run)]) == 0
    assert re.search(r"^\| label names +\| +not set \|$", capsys.readouterr().out, re.MULTILINE)
    assert cli.main(["card", str(run), "--label_names", *names]) == 0
    assert "差评, a" in capsys.readouterr().out
    for folder in (run, run / "quantized"):
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        assert list(config["id2label"].items()) == [("0", "差评"), ("1", "a | b"), ("2", "好评")]
        assert config["label2id"] == {"差评": 0, "a | b": 1, "好评": 2}
    report, text = (
        json.loads((run / "report.json").read_text(encoding="utf-8")),
        ModelCard.load(run / "README.md").text,
    )
    assert {one["name"]: one["number"] for one in report["classes"]} == {"差评": 0, "a | b": 1, "好评": 2}
    assert "| 差评 " in text
    assert "LABEL_" not in text
    changed = {str(name) for name, content in kept(run).items() if content != before[name]}
    assert changed == {"README.md", "report.json", "classes.png", "config.json", "quantized/config.json"}
    assert labels_of(run / "_teacher-1") == ["LABEL_0", "LABEL_1", "LABEL_2"]  # the teacher says what it said


def test_names_that_do_not_fit_are_refused_and_nothing_is_written(run, capsys):
    before, classes = kept(run), "and the classes are LABEL_0, LABEL_1, LABEL_2: give 3 names in this order"
    for names in (["a", "b"], ["a", "b", "a"]):
        assert cli.main(["card", str(run), "--title", "x", "--label_names", *names]) == 1
        assert f"label_names={' '.join(names)} was given, {classes}, each another." in capsys.readouterr().err
    assert kept(run) == before


def test_what_is_not_there_cannot_be_named(tmp_path, capsys):
    (tmp_path / "README.md").write_text("No heading.", encoding="utf-8")
    for flags, message in (
        (["--title", "x"], "title=x was given, and the card has no heading (# ...): add one."),
        (["--dataset_title", "x"], "has no report.json, which the run of a recipe writes"),
        (["--label_names", "x"], "has no config.json with labels"),
    ):
        assert cli.main(["card", str(tmp_path), *flags]) == 1
        assert message in capsys.readouterr().err
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == "No heading."
