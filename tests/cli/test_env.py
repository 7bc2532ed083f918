"""What a bug report is told of an installation, and what it is never told."""

import builtins
import platform
from importlib import metadata
from pathlib import Path

import pytest
import torch

import hf_distill
from hf_distill import cli
from hf_distill.cli import env


def said(capsys):
    assert cli.main(["env"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith("- ") for line in lines)
    return dict(line.removeprefix("- ").split(": ", 1) for line in lines)


def test_versions_extras_devices_and_threads(capsys, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    found = said(capsys)
    assert found["hf_distill"] == hf_distill.__version__
    assert found["Python"].startswith(platform.python_version())
    assert found["transformers"] == metadata.version("transformers")
    assert found["peft"] == metadata.version("peft")
    assert f"{torch.get_num_threads()} thread" in found["processor"]
    assert (found["accelerator"] == "none") != torch.accelerator.is_available()
    assert "OMP_NUM_THREADS=1" in found["environment"]
    assert {name.removeprefix("extra ") for name in found if name.startswith("extra ")} == set(env.extras())


REQUIRES = [
    "torch>=2",
    'hf_distill[small]; extra == "all"',
    'pytest>=8; extra == "all"',
    'no-such-package>=1; extra == "small"',
    'numpy>=999; extra == "small"',
]


def test_an_extra_that_is_not_whole_says_what_it_lacks_and_how_to_get_it(capsys, monkeypatch):
    monkeypatch.setattr(env.metadata, "requires", lambda name: REQUIRES)
    monkeypatch.setattr(env, "extras", lambda: ["small", "all", "none"])
    found, old = said(capsys), metadata.version("numpy")
    lacks = f"absent (no no-such-package; numpy {old} is not >=999): pip install 'hf_distill[{{}}]'"
    assert found["extra small"] == lacks.format("small")
    assert found["extra all"] == lacks.format("all")  # what it takes of another extra belongs to it
    assert found["extra none"] == "present"


def test_no_token_and_no_home_is_told(capsys, monkeypatch, tmp_path):
    home, real = tmp_path / "a person", builtins.__import__
    monkeypatch.setattr(Path, "home", lambda: home)
    for name in ("HF_TOKEN", "WANDB_API_KEY", "HF_HOME"):
        monkeypatch.setenv(name, f"{home}/secret")

    def broken(name, *args, **kwargs):
        if name == "torch":
            raise OSError(f"{home}/lib/libtorch.so: cannot\nopen")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", broken)
    found = said(capsys)
    assert found["torch cannot be imported"] == "OSError: ~/lib/libtorch.so: cannot open"
    assert found["torch"] == metadata.version("torch")
    assert not [value for value in found.values() if "secret" in value or str(home) in value]


def test_help_and_refusal(capsys):
    assert cli.main(["env", "--help"]) == 0
    assert "paste it into an issue" in capsys.readouterr().out
    assert cli.main(["env", "--all"]) == 1
    assert capsys.readouterr().err == "hf-distill env: --all was given, and env takes nothing: leave it out.\n"


def test_files_that_were_never_installed_have_no_extras(monkeypatch):
    def absent(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(env.metadata, "metadata", absent)
    assert env.extras() == []


@pytest.mark.parametrize("name", ["hf_distill", "torch"])
def test_an_installed_package_has_a_version(name):
    assert env.version_of(name)
