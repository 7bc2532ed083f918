"""How a command ends: 0, 1 with one sentence, or 130 where it was stopped."""

import subprocess
import sys
from dataclasses import fields

import pytest
from default_run import slow_but

import hf_distill
from hf_distill import cli
from hf_distill.cache.encoding import VALUES
from hf_distill.cache.prefill import TOKENS
from hf_distill.cli import train
from hf_distill.cli.arguments import TAKES, CacheArguments


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


def test_the_version_is_told(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"hf-distill {hf_distill.__version__}\n"


@pytest.mark.parametrize(
    "words",
    slow_but(
        [["cache", "--help"]],
        [["card", "--help"], ["cache", "--help"], ["student", "-h"], ["export", "out", "--help"]],
    ),
)
def test_help_waits_for_no_model_library(words):
    program = (
        "import sys; from hf_distill import cli\ntry: cli.main(sys.argv[1:])\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'datasets', 'pyarrow', 'evaluate', 'accelerate', 'peft'} & sys.modules.keys()\n"
        "assert not heavy, heavy"
    )
    found = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert all(f"--{field.name}" in found.stdout for field in fields(TAKES[words[0]]))


def test_what_help_says_is_what_is_done():
    told = {field.name: field for field in fields(CacheArguments)}
    assert told["tokens_per_batch"].default == TOKENS
    assert ", ".join(VALUES) in told["values"].metadata["help"]
