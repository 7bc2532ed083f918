"""What a shell completes: commands, recipes, and the flags of each, without a wait for PyTorch."""

import shutil
import subprocess

import pytest

from hf_distill import cli
from hf_distill.cli.completion import flags_of, script
from hf_distill.cli.recipes import recipe_module, recipe_names

BASH = shutil.which("bash")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    file = tmp_path_factory.mktemp("shell") / "hf-distill"
    file.write_text(script(), encoding="utf-8")
    return file


def completed(file, *words):
    """What bash offers for the last of these words."""
    line = " ".join(f"'{word}'" for word in words)
    told = f"source {file}; COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _hf_distill; "
    asked = told + "echo ${COMPREPLY[@]-}"
    shown = subprocess.run([BASH, "--norc", "-uc", asked], capture_output=True, text=True, check=True)
    assert not shown.stderr
    return shown.stdout.split()


@pytest.mark.skipif(BASH is None, reason="there is no bash")
def test_commands_recipes_and_flags(written):
    assert set(completed(written, "hf-distill", "")) == {*cli.COMMANDS, "--help", "--version"}
    assert completed(written, "hf-distill", "exp") == ["export"]
    for command in ("train", "compare", "report"):
        assert completed(written, "hf-distill", command, "") == recipe_names()
    assert completed(written, "hf-distill", "completion", "z") == ["zsh"]
    assert completed(written, "hf-distill", "train", "bert_chinese", "--temp") == ["--temperature"]
    assert completed(written, "hf-distill", "train", "bert_chinese", "--text_p") == ["--text_pair_column"]
    assert completed(written, "hf-distill", "train", "segmentation", "--text_p") == []
    assert completed(written, "hf-distill", "train", "my.yaml", "--learning_rate", "1e-3", "--per_device_tr") == [
        "--per_device_train_batch_size"
    ]
    assert completed(written, "hf-distill", "compare", "bert_chinese", "--see") == ["--seed", "--seeds"]
    assert completed(written, "hf-distill", "report", "bert_chinese", "--alo") == ["--alone"]
    assert completed(written, "hf-distill", "export", "folder", "--form") == ["--format"]
    assert completed(written, "hf-distill", "export", "folder", "o") == []  # bash then offers files


def test_every_flag_of_every_recipe_is_there(written):
    text = written.read_text(encoding="utf-8")
    words = set(text.replace('"', " ").split())
    for name in recipe_names():
        recipe = recipe_module(name).RECIPE
        assert set(flags_of(recipe.arguments, recipe.training_arguments)) <= words, name


def test_the_command_prints_it_and_refuses_another_shell(capsys):
    assert cli.main(["completion", "bash"]) == 0
    assert capsys.readouterr().out.endswith("complete -o default -o bashdefault -F _hf_distill hf-distill\n")
    assert cli.main(["completion", "zsh"]) == 0
    assert capsys.readouterr().out.startswith("autoload")
    assert cli.main(["completion", "--help"]) == 0
    assert "once for each version" in capsys.readouterr().out
    assert cli.main(["completion", "fish"]) == 1
    assert capsys.readouterr().err == (
        "hf-distill completion: fish was given, and completion takes a shell: bash or zsh.\n"
    )
