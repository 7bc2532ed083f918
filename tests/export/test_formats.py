"""Exports are written, read again, and answer as the model does; what cannot be written is refused by its name."""

import importlib.util

import pytest
import tiny
import tiny_detectors
import tiny_images
import tiny_language
import tiny_segmenters
import tiny_speech
import tiny_tasks
import torch
from default_run import slow_but

from hf_distill.export import FORMATS, Onnx, OnnxInt8, OpenVino, Plan, TorchaoInt4, TorchaoInt8
from hf_distill.export.equal import compared, random_batches
from hf_distill.tasks import Task
from hf_distill.teachers.onnx import OnnxModel

RUNTIME = pytest.mark.skipif(importlib.util.find_spec("onnxruntime") is None, reason="needs hf_distill[onnx]")
TORCHAO = pytest.mark.skipif(importlib.util.find_spec("torchao") is None, reason="needs hf_distill[torchao]")
INTEL = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="needs hf_distill[openvino]")
pytestmark = pytest.mark.filterwarnings("ignore")  # of torch's exporter and of torchao, dozens


def images(size):
    return {"pixel_values": torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(1))}


def waves():
    mask = torch.ones(3, 1600, dtype=torch.int64)
    mask[2, 1000:] = 0
    return {
        "input_values": torch.randn(3, 1600, generator=torch.Generator().manual_seed(1)),
        "attention_mask": mask,
    }


MODELS = {
    "classifier": (tiny.bert, None),
    "tagger": (tiny_tasks.CASES["tokens"].model, None),
    "spans": (tiny_tasks.CASES["spans"].model, None),
    "masked": (tiny_tasks.CASES["masked"].model, None),
    "vectors": (tiny_tasks.CASES["embedding"].model, None),
    "llama": (tiny_language.llama, None),
    "vit": (tiny_images.vit, images(16)),
    "resnet": (tiny_images.resnet, images(32)),
    "segformer": (tiny_segmenters.segformer, images(16)),
    "detr": (tiny_detectors.detr, images(32)),
    "wav2vec2": (tiny_speech.wav2vec2, waves()),
}


def written(format, folder, model, batch=None):
    """A model's export, and how far it is from it on rows of other sizes than those that were exported."""
    model.eval()
    plan = Plan.of(model, Task.of(model), batch and {name: one[:2] for name, one in batch.items()})
    format.check(model)
    format.write(model, plan, folder)
    batches = random_batches(model, plan) if batch is None else [batch]
    export = format.load(folder, model, plan)
    return export, compared(model, {format.name: export}, batches, plan)[format.name]


@RUNTIME
@pytest.mark.parametrize("name", slow_but(["classifier"], MODELS))
def test_onnx_is_equal_with_other_rows_and_lengths(tmp_path, name):
    make, batch = MODELS[name]
    _, found = written(Onnx, tmp_path, make(), batch)
    found.check("onnx")
    assert found.rows >= 3
    if name == "classifier":  # one export for both: it takes seconds
        import onnx

        (tmp_path / "int8").mkdir()
        OnnxInt8.quantise(tmp_path, tmp_path / "int8")
        model = make().eval()
        plan = Plan.of(model, Task.of(model))
        kinds = [node.op_type for node in onnx.load(str(tmp_path / "int8" / "model.onnx")).graph.node]
        assert kinds.count("MatMulInteger") == 6 * model.config.num_hidden_layers  # the classifier stays float32
        small = OnnxInt8.load(tmp_path / "int8", model, plan)
        (near,) = compared(model, {"int8": small}, random_batches(model, plan), plan).values()
        assert 1e-4 < near.largest < 0.2
        # Initializers of eight bits: what is quantised only while it runs would not be smaller.
        assert OnnxInt8.megabytes(tmp_path / "int8") < Onnx.megabytes(tmp_path)


@RUNTIME
@pytest.mark.slow
def test_a_teacher_reads_its_own_export():
    model = tiny.bert().eval()
    batch = random_batches(model, Plan.of(model, Task.of(model)))[1]
    with torch.no_grad():
        assert torch.allclose(OnnxModel(model)(**batch).logits, model(**batch).logits, atol=1e-5)


@TORCHAO
@pytest.mark.parametrize("format", [TorchaoInt8, TorchaoInt4])
def test_quantised_weights_are_loaded_as_any_model_is(tmp_path, format):
    export, found = written(format, tmp_path, tiny.bert(width=32))
    assert 1e-4 < found.largest < 1
    assert type(export) is type(tiny.bert())
    assert "quantization_config" in (tmp_path / "config.json").read_text(encoding="utf-8")


@INTEL
@pytest.mark.slow
@pytest.mark.parametrize("name", ["classifier", "vit"])
def test_openvino_is_equal(tmp_path, name):
    make, batch = MODELS[name]
    written(OpenVino, tmp_path, make(), batch)[1].check("openvino")


def test_a_missing_library_is_named_with_its_extra(monkeypatch):
    for format in FORMATS:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        with pytest.raises(ImportError, match=rf"^{format.name} needs .*: pip install 'hf_distill\[{format.extra}\]'"):
            format.check(tiny.bert())


@pytest.mark.parametrize(
    ("format", "make", "layer"),
    [
        (OnnxInt8, tiny_images.resnet, r"resnet\.encoder\.\S+convolution \(Conv2d\), which it cannot quantise"),
        (TorchaoInt8, tiny_images.resnet, r"\(Conv2d\), which it cannot quantise: export it with --format onnx"),
        (TorchaoInt4, lambda: tiny.bert(width=24), r"bert\.\S+ reads 24 features, which are no whole groups"),
    ],
)
def test_a_layer_that_cannot_be_quantised_is_named(monkeypatch, format, make, layer):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    with pytest.raises(ValueError, match=layer):
        format.check(make())
