"""How a command ends: 0, 1 with one sentence, or 130 where it was stopped."""

import pytest

from hf_distill import cli
from hf_distill.commands import train


def raises(error):
    def main(argv):
        raise error

    return main


def test_a_command_that_is_interrupted_says_so_without_a_traceback(monkeypatch, capsys):
    monkeypatch.setattr(train, "main", raises(KeyboardInterrupt()))
    assert cli.main(["train", "bert_chinese"]) == 130
    assert capsys.readouterr().err.strip() == "hf-distill train: stopped."


def test_a_metric_that_is_not_measured_is_one_sentence_and_a_bare_key_is_no_users_fault(monkeypatch, capsys):
    said = "The `metric_for_best_model` training argument is set to 'eval_nope', which is not found"
    monkeypatch.setattr(train, "main", raises(KeyError(said)))
    assert cli.main(["train", "bert_chinese"]) == 1
    assert capsys.readouterr().err == f"hf-distill train: {said}\n"
    monkeypatch.setattr(train, "main", raises(KeyError("labels")))
    with pytest.raises(KeyError):
        cli.main(["train", "bert_chinese"])
