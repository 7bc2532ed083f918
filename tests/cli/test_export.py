"""The command that exports: what it writes and measures, and what it refuses."""

import importlib.util
import json

import pytest
import tiny
import tiny_language
from recipe_runs import TINY, rows, write

from hf_distill import cli
from hf_distill.cli import export
from hf_distill.cli.arguments import ExportArguments
from hf_distill.cli.recipes import recipe_module, recipe_names
from hf_distill.export import FORMATS
from hf_distill.export.plan import EXPORTED

pytestmark = pytest.mark.filterwarnings("ignore")  # of torch's exporter and of torchao, dozens
TORCHAO = pytest.mark.skipif(importlib.util.find_spec("torchao") is None, reason="needs hf_distill[torchao]")
RUNTIME = pytest.mark.skipif(importlib.util.find_spec("onnxruntime") is None, reason="needs hf_distill[onnx]")


@pytest.fixture
def folder(tmp_path):
    tiny.bert(width=32).save_pretrained(tmp_path / "student")
    tiny.tokenizer().save_pretrained(tmp_path / "student")
    return tmp_path / "student"


@TORCHAO
def test_without_rows_nothing_is_measured_and_that_is_said(folder, capsys):
    assert cli.main(["export", str(folder), "--format", "torchao-int8"]) == 0
    said = capsys.readouterr().out
    assert "Nothing was measured: the folder does not say which recipe made it." in said
    assert "was compared with PyTorch on 4 random rows" in said
    found = json.loads((folder / "torchao-int8" / "export.json").read_text(encoding="utf-8"))
    assert found["format"] == "torchao-int8"
    assert found["difference"]["rows"] == 4
    assert 0 < found["megabytes"] < (folder / "model.safetensors").stat().st_size / 1e6


@TORCHAO
@RUNTIME
@pytest.mark.slow
def test_exports_are_measured_on_the_rows_of_the_run(tmp_path, capsys):
    run = tmp_path / "run"
    path = write(tmp_path / "rows.jsonl", rows(80))
    recipe_module("bert_chinese").RECIPE.main(
        ["--train_file", path, "--output_dir", str(run), "--skip_alone", *TINY, "--reader", "logits"]
    )
    report = json.loads((run / "report.json").read_text(encoding="utf-8"))
    assert report["settings"]["reader"] == "logits"
    assert report["recipe"]["name"] == "bert_chinese"
    assert report["recipe"]["arguments"]["train_file"] == path
    for _ in range(2):
        assert cli.main(["export", str(run), "--format", "onnx", "torchao-int8"]) == 0
    said = capsys.readouterr().out
    found = json.loads((run / "onnx" / "export.json").read_text(encoding="utf-8"))
    plain, ours = found["models"]
    assert [plain["name"], ours["name"]] == ["float32", "onnx"]
    distilled = next(row for row in report["models"] if row["name"] == "distilled")
    assert plain["accuracy"] == distilled["accuracy"] == ours["accuracy"]  # the same rows
    assert (ours["agreement"], ours["kl"]) == (1.0, pytest.approx(0, abs=1e-5))
    assert ours["difference"] < 1e-4
    assert found["difference"]["rows"] == report["rows"]["test"]
    assert {"p50", "p95", "samples_per_second", "megabytes"} <= ours.keys()
    assert "agrees with float32 %" in said
    text = (run / "README.md").read_text(encoding="utf-8")
    assert text.count("## Exports") == 1
    assert "| torchao-int8 |" in text


@RUNTIME
@pytest.mark.slow
def test_rows_of_a_file_are_measured_where_nobody_says_whose_they_are(tmp_path, capsys):
    run = tmp_path / "run"
    path = write(tmp_path / "rows.jsonl", rows(80))
    recipe_module("bert_chinese").RECIPE.main(["--train_file", path, "--output_dir", str(run), "--skip_alone", *TINY])
    (run / "report.json").unlink()
    fewer = write(tmp_path / "few.jsonl", rows(20))
    assert cli.main(["export", str(run), "--format", "onnx", "--rows", fewer, "--num_threads", "1"]) == 0
    assert "(20 rows)" in capsys.readouterr().out


def test_the_rows_are_those_that_were_named_or_those_of_the_run(folder):
    task = next(one for one in EXPORTED if one.__name__ == "SequenceClassification")(num_labels=3)
    assert export.rows_for(folder, task, ExportArguments(["onnx"])) is None
    files = dict.fromkeys(("train_file", "validation_file", "test_file"), "my.jsonl")
    assert export.rows_for(folder, task, ExportArguments(["onnx"], rows="my.jsonl")) == ("bert_chinese", files)
    kept = {"name": "token_tagging", "arguments": {"dataset_name": "me/rows", "seed": 3}}
    (folder / "report.json").write_text(json.dumps({"recipe": kept}), encoding="utf-8")
    asked = export.rows_for(folder, task, ExportArguments(["onnx"]))
    assert asked == ("token_tagging", {"dataset_name": "me/rows", "seed": 3})
    mine = export.rows_for(folder, task, ExportArguments(["onnx"], rows="my.jsonl"))
    assert mine == ("token_tagging", {"seed": 3, **files})
    assert export.rows_for(folder, task, ExportArguments(["onnx"], recipe="causal_lm")) == ("causal_lm", {})
    kept["name"] = "of_my_own"
    (folder / "report.json").write_text(json.dumps({"recipe": kept}), encoding="utf-8")
    assert export.rows_for(folder, task, ExportArguments(["onnx"])) is None


def test_every_format_and_recipe_that_is_named_is_there():
    told = next(one for one in ExportArguments.__dataclass_fields__.values() if one.name == "format").metadata["help"]
    assert all(one.name in told for one in FORMATS)
    assert set(export.ROWS_OF.values()) <= set(recipe_names())
    assert set(export.ROWS_OF) <= set(EXPORTED)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no folder was named: begin with that of a finished student"),
        (["nowhere", "--format", "onnx"], "an export of nowhere was asked for, which holds no model (config.json)"),
        (["{folder}"], "the following arguments are required: --format"),
        (["{folder}", "--format", "gguf"], "the format 'gguf' was asked for, there are onnx, onnx-int8, torchao-int8"),
        (["{folder}", "--format", "torchao-int8", "--max_length", "9"], "--max_length was given without a recipe"),
        (["{folder}", "--format", "torchao-int8", "--recipe", "poems"], "the recipe 'poems' was asked for"),
        (["{folder}", "--format", "torchao-int8", "--rows", "no.jsonl"], "no.jsonl, there is no such file"),
    ],
)
def test_errors_are_one_sentence(folder, monkeypatch, capsys, words, message):
    monkeypatch.setattr("hf_distill.export.torchao.TorchaoInt8.check", lambda model: None)
    assert cli.main(["export", *(one.format(folder=folder) for one in words)]) == 1
    said = capsys.readouterr().err
    assert said.startswith("hf-distill export: ")
    assert message in said
    assert said.count("\n") == 1


def test_what_has_no_export_is_refused_before_anything_is_written(tmp_path, monkeypatch, capsys):
    tiny_language.t5().save_pretrained(tmp_path / "translator")
    kept = {"recipe": {"name": "translation", "arguments": {}}}
    (tmp_path / "translator" / "report.json").write_text(json.dumps(kept), encoding="utf-8")
    monkeypatch.setattr(export, "prepared", lambda *given: pytest.fail("rows were read"))
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}", encoding="utf-8")
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")
    monkeypatch.setattr("hf_distill.export.Onnx.check", lambda model: None)
    for name, message in (
        ("translator", "which writes with a cache between its steps: export it with optimum-cli"),
        ("adapter", "which holds an adapter and not its base: train with --merge_lora"),
        ("torn", "no model can be loaded from it (transformers has no class"),
    ):
        assert cli.main(["export", str(tmp_path / name), "--format", "onnx"]) == 1
        assert message in capsys.readouterr().err
        assert not (tmp_path / name / "onnx").exists()
