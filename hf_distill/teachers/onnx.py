"""A teacher that ONNX Runtime runs instead of PyTorch: it reads its own export.

Knows: what such a teacher must be. Does not know: how a model is exported or run, what is asked, where answers go.
"""

from __future__ import annotations

import importlib.util
import tempfile
from pathlib import Path

import torch
from torch import nn

from hf_distill.export import Exported, Onnx, Plan
from hf_distill.tasks import Task


class OnnxModel(Exported):
    """A model's outputs, computed by ONNX Runtime in float32.

    Args:
        model: a transformers model of a task that has an export, on the CPU, in float32.

    Raises:
        ImportError: ONNX Runtime is not installed; the message names the extra that brings it.
        ValueError: the model computes in another precision, or has no export.

    Example:
        >>> from transformers import BertConfig, BertForSequenceClassification
        >>> tiny = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
        >>> faster = OnnxModel(BertForSequenceClassification(tiny).eval())  # doctest: +SKIP
    """

    def __init__(self, model: nn.Module) -> None:
        if missing := [name for name in Onnx.needs if importlib.util.find_spec(name) is None]:
            raise ImportError(f'--onnx needs {", ".join(missing)}: pip install "hf_distill[onnx]".')
        if model.dtype != torch.float32 or model.device.type != "cpu":
            raise ValueError(
                f"--onnx runs float32 on the CPU, the teacher is {model.dtype} on {model.device}: leave "
                "--teacher_dtype or --onnx out."
            )
        plan = Plan.of(model, Task.of(model))
        with tempfile.TemporaryDirectory() as folder:
            Onnx.write(model, plan, Path(folder))
            made = Onnx.load(Path(folder), model, plan)
        super().__init__(made.run, made.names, made.outputs, model.config)
