"""Flags, files, and files with flags that override them."""

import json
from dataclasses import dataclass, field

import pytest

from hf_distill import DistillationTrainingArguments
from hf_distill.experiments.parsing import parse_arguments


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
        ("7: x", "the settings have 7, which is no argument"),
        ("learning_rate: [1]", r"have learning_rate: \[1\], which cannot be read \(it takes no list\): correct it"),
        ("num_train_epochs:", r"have num_train_epochs: None, .*\(it takes no empty value\)"),
        ("hub_token: [hf_secret]", r"have hub_token: \.\.\., which cannot be read"),
        ("output_dir: {a: 1}", r"\(it takes no dict\)"),
        ("layers: 1.5", r"have layers: 1\.5, which cannot be read \(invalid literal for int"),
        ("bf16: 7", r"have bf16: 7, which cannot be read \(Truthy value expected"),
    ],
)
def test_a_bad_file_is_refused_in_a_sentence(tmp_path, content, message):
    path = tmp_path / "run.yaml"
    path.write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        parse(str(path))
    assert "\n" not in str(caught.value)


def test_values_of_a_file_are_read_as_those_of_a_command_line(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(
        "hub_model_id: 7\nbf16: 0\nwarmup_steps: 3\nalpha:\nreport_to: [none]\nteacher_cache: off\n"
        "fsdp_config: {a: 1}\nsave_strategy: no\n"
    )
    args = parse(str(path))[1]
    assert (args.hub_model_id, args.bf16, args.warmup_steps, args.alpha) == ("7", False, 3, None)
    assert (args.teacher_cache, args.save_strategy) == ("off", "no")
    assert (args.report_to, args.fsdp_config["a"]) == ([], 1)


def test_a_file_that_is_no_text_is_named(tmp_path):
    (tmp_path / "run.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"run\.yaml could not be read .*: correct it"):
        parse(str(tmp_path / "run.yaml"))


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
        (["--learning_rte", "1e-3"], r"--learning_rte was given, .* did you mean --learning_rate\?"),
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
