"""What a user may pass as teacher, in which precision, quantised how."""

import importlib.util

import pytest
import tiny
import torch
from torch import nn

from hf_distill import FunctionTeacher, LiveTeacher, SequenceClassification
from hf_distill.training.build_teacher import build_teacher, quantization_config

TASK = SequenceClassification(num_labels=3)


def test_a_model_a_path_a_teacher_or_a_function(tmp_path):
    tiny.teacher().save_pretrained(tmp_path)
    assert isinstance(build_teacher(str(tmp_path), TASK), LiveTeacher)
    assert isinstance(build_teacher(tmp_path, TASK), LiveTeacher)
    assert isinstance(build_teacher(tiny.teacher(), TASK), LiveTeacher)
    assert isinstance(build_teacher(lambda batch: None, TASK), FunctionTeacher)
    teacher = LiveTeacher(tiny.teacher())
    assert build_teacher(teacher, TASK) is teacher


def test_a_path_is_loaded_in_the_precision_that_was_asked_for(tmp_path):
    tiny.teacher().save_pretrained(tmp_path)
    model = build_teacher(tmp_path, TASK, dtype=torch.bfloat16).model
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("spec", [lambda batch: None, LiveTeacher(nn.Linear(1, 1))])
def test_a_precision_for_what_is_not_loaded_here_is_refused(spec):
    with pytest.raises(ValueError, match=r"teacher_dtype=torch.bfloat16 was given for a .*: leave teacher_dtype out"):
        build_teacher(spec, TASK, dtype=torch.bfloat16)


def test_quantisation_of_a_loaded_model_is_refused():
    with pytest.raises(ValueError, match="a model is quantised while it is loaded: pass the teacher's path or Hub id"):
        build_teacher(tiny.teacher(), TASK, quantization="torchao_int8")


@pytest.mark.parametrize("spec", ["int3", "bitsandbytes", {"load_in_8bit": True}])
def test_an_unknown_quantisation_is_refused(spec):
    with pytest.raises(ValueError, match="is not known: use bitsandbytes_8bit, bitsandbytes_4bit, torchao_int8, or"):
        quantization_config(spec)


@pytest.mark.parametrize("spec", ["bitsandbytes_4bit", "torchao_int8", {"quant_method": "bitsandbytes"}])
def test_a_missing_library_is_named_with_its_extra(spec, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r'needs (\w+), which is not installed: pip install "hf_distill\[\1\]"'):
        quantization_config(spec)


def test_a_dtype_for_a_quantised_model_is_refused():
    model = tiny.teacher()
    model.quantization_method = "bitsandbytes"
    with pytest.raises(ValueError, match=r"teacher that is quantised \(bitsandbytes\): leave teacher_dtype out"):
        LiveTeacher(model, dtype=torch.bfloat16)


@pytest.mark.parametrize("spec", ["torchao_int8", "bitsandbytes_8bit"])
def test_a_quantised_teacher_teaches_nearly_the_same(tmp_path, spec):
    pytest.importorskip(spec.partition("_")[0])
    tiny.teacher().save_pretrained(tmp_path)
    args = {"alpha": 1.0, "teacher_quantization": spec}
    quantised = tiny.trainer(tmp_path / "out", teacher_model=str(tmp_path), args=args)
    quantised.train()
    plain = tiny.trainer(tmp_path / "out", teacher_model=str(tmp_path), args={"alpha": 1.0})
    plain.train()
    assert tiny.losses(quantised) == pytest.approx(tiny.losses(plain), rel=0.05)
    assert tiny.losses(quantised) != tiny.losses(plain)
