"""The command that completes a card: what it writes, what it leaves alone, what it refuses."""

import json

import pytest
import tiny
import yaml
from huggingface_hub import ModelCard

from hf_distill import cli
from hf_distill.hub.eval_results import FILE


@pytest.fixture
def run(tmp_path):
    tiny.trainer(tmp_path / "run").create_model_card()
    return tmp_path / "run"


def test_what_a_person_knows_goes_into_the_metadata(run, capsys):
    before = ModelCard.load(run / "README.md")
    flags = ["--license", "mit", "--language", "zh", "en", "--datasets", "me/reviews", "--tags", "news"]
    assert cli.main(["card", str(run), *flags]) == 0
    card = ModelCard.load(run / "README.md")
    assert (card.data.license, card.data.language, card.data.datasets) == ("mit", ["zh", "en"], ["me/reviews"])
    assert card.data.tags == sorted({*before.data.tags, "news"})
    assert card.text.strip() == before.text.strip()
    said = capsys.readouterr().out
    assert "| license      |        mit |" in said
    assert "| base_model   |    not set |" in said
    assert f"hf upload YOU/NAME {run} . --exclude '_*' --exclude 'checkpoint-*'" in said
    assert cli.main(["card", str(run)]) == 0  # nothing asked: it only shows
    assert ModelCard.load(run / "README.md").content == card.content


def test_a_licence_that_was_decided_is_no_longer_called_undecided(run):
    path = run / "README.md"
    undecided = "No licence is set, because those that are known differ: decide before you publish. Licences: x: mit."
    path.write_text(path.read_text(encoding="utf-8") + undecided, encoding="utf-8")
    assert cli.main(["card", str(run), "--language", "zh"]) == 0
    assert "No licence is set" in path.read_text(encoding="utf-8")
    assert cli.main(["card", str(run), "--license", "mit"]) == 0
    text = path.read_text(encoding="utf-8")
    assert "No licence is set" not in text
    assert text.endswith("Licences: x: mit.")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--license", "MIT"],
            "license=MIT was given, which the Hub does not know: did you mean mit (else other, --lic",
        ),
        (["--license", "apache2"], "did you mean apache-2.0 (else"),
        (["--license", "freeware"], "license=freeware was given, which the Hub does not know: use other, with --lic"),
        (
            ["--language", "zh", "Chinese"],
            "language=Chinese was given, which is no code of ISO 639: did you mean zh (C",
        ),
        (["--language", "zh-CN"], "did you mean zh (Chinese)?"),
        (["--language", "cn"], "did you mean zh (Chinese)?"),
        (["--language", "xx"], "language=xx was given, which is no code of ISO 639: name one of two or three letters"),
    ],
)
def test_a_word_that_the_hub_does_not_know_is_refused_with_the_nearest(run, capsys, flags, message):
    before = (run / "README.md").read_bytes()
    assert cli.main(["card", str(run), *flags]) == 1
    assert message in capsys.readouterr().err
    assert (run / "README.md").read_bytes() == before


def test_codes_of_two_and_three_letters_are_languages(run):
    words = ["zh", "yue", "multilingual", "code"]
    assert cli.main(["card", str(run), "--license", "llama3.1", "--language", *words]) == 0
    assert ModelCard.load(run / "README.md").data.language == words


def test_errors_are_one_sentence(tmp_path, run, capsys):
    for words, expected in (
        ([], "no folder was named"),
        ([str(tmp_path)], "which has no README.md"),
        ([str(run), "--license", "other"], "license=other was given without a name"),
    ):
        assert cli.main(["card", *words]) == 1
        assert expected in capsys.readouterr().err


def test_a_data_set_that_is_named_later_gets_its_figure(run):
    report = {"models": [{"name": "distilled", "accuracy": 0.75, "macro_f1": 0.5}], "dataset": "reviews.csv"}
    (run / "report.json").write_text(json.dumps(report), encoding="utf-8")
    assert cli.main(["card", str(run), "--datasets", "me/reviews"]) == 0
    (entry,) = yaml.safe_load((run / FILE).read_text(encoding="utf-8"))
    assert (entry["dataset"]["id"], entry["value"]) == ("me/reviews", 0.75)
