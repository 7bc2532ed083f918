"""Flags, files, and files with flags that override them."""

import json
from dataclasses import dataclass, field

import pytest

from hf_distill import DistillationTrainingArguments
from hf_distill.parsing import parse_arguments


@dataclass
class Script:
    layers: int = field(default=1, metadata={"help": "How many."})


def parse(*argv):
    return parse_arguments([Script, DistillationTrainingArguments], [*argv, "--use_cpu", "1"])


def test_flags(tmp_path):
    script, args = parse("--layers", "3", "--alpha", "0.9", "--temperature", "4", "--output_dir", str(tmp_path))
    assert (script.layers, args.alpha, args.temperature, args.objective) == (3, 0.9, 4.0, None)


@pytest.mark.parametrize("suffix", ["yaml", "yml", "json"])
def test_a_file_and_flags_that_override_it(tmp_path, suffix):
    settings = {
        "layers": 3,
        "alpha": 0.9,
        "learning_rate": "1e-3",
        "objective": {"forward_kl": 1.0, "jsd": {"beta": 0.1}},
    }
    path = tmp_path / f"run.{suffix}"
    path.write_text(json.dumps(settings) if suffix == "json" else "\n".join(f"{k}: {v}" for k, v in settings.items()))
    script, args = parse(str(path), "--layers", "4", "--output_dir", str(tmp_path))
    assert (script.layers, args.alpha, args.learning_rate) == (4, 0.9, 1e-3)
    assert args.objective == settings["objective"]


def test_yaml_numbers_that_yaml_reads_as_text(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("learning_rate: 2e-5\nbf16: false\nreport_to: none\n")  # YAML 1.1: '2e-5' is a string
    assert parse(str(path))[1].learning_rate == 2e-5


def test_json_on_the_command_line():
    assert parse("--objective", '{"jsd": {"weight": 2}}')[1].objective == {"jsd": {"weight": 2}}
    assert parse("--objective", "jsd")[1].objective == "jsd"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("alhpa: 0.5", "the settings have 'alhpa', which is no argument: did you mean 'alpha'?"),
        ("qqqqqq: 1", "which is no argument: --help lists them all"),
        ("a: [1", "could not be read .*: correct it"),
        ("just words", "holds no settings: write one 'name: value' a line"),
        ("alpha: 2", "alpha=2 was given"),
    ],
)
def test_a_bad_file_is_refused_in_a_sentence(tmp_path, content, message):
    path = tmp_path / "run.yaml"
    path.write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        parse(str(path))
    assert "\n" not in str(caught.value)


def test_a_missing_file():
    with pytest.raises(ValueError, match=r"nowhere\.yaml, there is no such file"):
        parse("nowhere.yaml")


def test_a_field_without_a_default_may_come_from_a_file(tmp_path):
    @dataclass
    class Needed:
        name: str

    path = tmp_path / "settings.yaml"
    path.write_text("name: here")
    assert parse_arguments([Needed], [str(path)])[0].name == "here"
    assert parse_arguments([Needed], [str(path), "--name", "there"])[0].name == "there"
    path.write_text("{}")
    with pytest.raises(ValueError, match=r"arguments are required: --name \(--help lists them all\)"):
        parse_arguments([Needed], [str(path)])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--alpha", "much"], "argument --alpha: invalid float value: 'much'"),
        (["--seed"], "argument --seed: expected one argument"),
        (["--learning_rte", "1e-3"], r"--learning_rte was given, which is no argument: did you mean --learning_rate\?"),
        (["--qqqqqq=1"], r"--qqqqqq was given, which is no argument: --help lists them all\."),
        (["--hub_tokn", "hf_secret"], r"--hub_tokn was given, which is no argument: did you mean --hub_token\?"),
        (["more.txt"], r"more\.txt was given, which is no argument"),
    ],
)
def test_a_bad_flag_is_refused_in_a_sentence_that_repeats_no_token(flags, message, capsys):
    with pytest.raises(ValueError, match=message) as caught:
        parse(*flags)
    assert "\n" not in str(caught.value)
    assert "hf_secret" not in str(caught.value)
    assert capsys.readouterr() == ("", "")
