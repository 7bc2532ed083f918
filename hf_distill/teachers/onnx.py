"""An encoder that ONNX Runtime runs instead of PyTorch.

Knows: how a model is exported, sessions. Does not know: tasks, what is asked, where answers go.
"""

from __future__ import annotations

import importlib.util
import inspect
import logging
import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

from hf_distill.models.texts import IDS, MASK

NAMES = (IDS, MASK, "token_type_ids")
"""What an exported encoder may read."""


class OnnxModel(nn.Module):
    """The logits of an encoder, computed by ONNX Runtime in float32.

    Args:
        model: a transformers encoder with a head, on the CPU, in float32.

    Raises:
        ImportError: ONNX Runtime is not installed; the message names the extra that brings it.
        ValueError: the model computes in another precision.

    Example:
        >>> from transformers import BertConfig, BertForSequenceClassification
        >>> tiny = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
        >>> faster = OnnxModel(BertForSequenceClassification(tiny).eval())  # doctest: +SKIP
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        needed = ("onnx", "onnxscript", "onnxruntime")
        if missing := [name for name in needed if importlib.util.find_spec(name) is None]:
            raise ImportError(f'--onnx needs {", ".join(missing)}: pip install "hf_distill[onnx]".')
        if model.dtype != torch.float32 or model.device.type != "cpu":
            raise ValueError(
                f"--onnx runs float32 on the CPU, the teacher is {model.dtype} on {model.device}: leave "
                "--teacher_dtype or --onnx out."
            )
        import onnxruntime

        self.config = model.config
        takes = inspect.signature(model.forward).parameters
        self.names = [name for name in NAMES if name in takes]
        example = tuple(torch.ones(2, 8, dtype=torch.int64) for _ in self.names)
        sizes = {0: torch.export.Dim("rows"), 1: torch.export.Dim("tokens")}
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns of image operators that nobody asked for
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder) / "model.onnx")
            torch.onnx.export(
                _Logits(model, self.names), example, path, input_names=self.names, output_names=["logits"],
                dynamic_shapes=((sizes,) * len(self.names),), dynamo=True, verbose=False,
            )  # fmt: skip
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = torch.get_num_threads()
            self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None
    ) -> Tensor:
        """Run the encoder.

        Args:
            input_ids: [B, T].
            attention_mask: [B, T]; None: all ones.
            token_type_ids: [B, T]; None: all zeros.

        Returns:
            Logits, float32.
        """
        given = {
            IDS: input_ids,
            MASK: torch.ones_like(input_ids) if attention_mask is None else attention_mask,
            "token_type_ids": torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids,
        }
        (logits,) = self.session.run(["logits"], {name: given[name].cpu().numpy() for name in self.names})
        return torch.from_numpy(logits).to(input_ids.device)


class _Logits(nn.Module):
    """Takes its inputs by position and returns the logits alone, as an export wants it."""

    def __init__(self, model: nn.Module, names: list[str]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.model(**dict(zip(self.names, inputs, strict=True))).logits
