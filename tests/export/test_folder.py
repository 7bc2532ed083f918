"""What lies beside exported weights: all that a fresh environment needs, and what was measured."""

import json

import pytest
import tiny
import tiny_images
import tiny_language
import tiny_tasks

from hf_distill.export import Onnx, OpenVino, Plan, TorchaoInt8
from hf_distill.export.folder import complete, how_to_run, note
from hf_distill.tasks import Task


def said(model, format=Onnx):
    return how_to_run(format, model, Plan.of(model, Task.of(model)))


def test_a_folder_says_how_it_is_run_without_this_package(tmp_path):
    model = tiny.bert()
    complete(tmp_path, Onnx, model, Plan.of(model, Task.of(model)), tiny.tokenizer())
    assert {"config.json", "tokenizer.json", "README.md"} <= {one.name for one in tmp_path.iterdir()}
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    code = text.partition("```python\n")[2].partition("```")[0]
    compile(code, "README.md", "exec")
    assert {line.split()[1] for line in code.splitlines() if line.startswith(("import", "from"))} == {
        "numpy", "onnxruntime", "tokenizers",
    }  # fmt: skip
    assert "`input_ids` [rows, tokens]" in text
    assert "enable_truncation(32)" in code  # as many as the model has positions


@pytest.mark.parametrize(
    ("make", "format", "expected"),
    [
        (tiny_language.llama, Onnx, "One pass over a text, without a cache"),
        (tiny_tasks.CASES["embedding"].model, Onnx, "the mean of the tokens"),
        (tiny_images.vit, OpenVino, '"INFERENCE_PRECISION_HINT": "f32"'),
        (tiny_images.vit, Onnx, "`pixel_values` [rows, 3, 16, 16]"),
        (tiny.bert, TorchaoInt8, 'AutoModelForSequenceClassification.from_pretrained(".")'),
    ],
)
def test_what_is_peculiar_to_a_task_or_a_format_is_said(make, format, expected):
    assert expected in said(make(), format)


def test_what_was_measured_is_written_for_programs_and_for_people(tmp_path):
    (tmp_path / "README.md").write_text("# S\n", encoding="utf-8")
    note(tmp_path, {"format": "onnx"}, "| t |", "On rows.")
    assert json.loads((tmp_path / "export.json").read_text(encoding="utf-8")) == {"format": "onnx"}
    assert (tmp_path / "README.md").read_text(encoding="utf-8").endswith("## What was measured\n\n| t |\n\nOn rows.\n")
