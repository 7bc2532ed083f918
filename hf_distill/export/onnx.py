"""A model as a file of ONNX, and the runtime that runs it.

Knows: torch's exporter, ONNX Runtime. Does not know: quantisation, tokenizers, how models are measured.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hf_distill.export.format import Format
from hf_distill.export.plan import Plan
from hf_distill.export.running import Exported

FILE = "model.onnx"
ONE_FILE = 1_500_000_000
"""A file of protobuf ends at 2 GB: larger weights lie beside it, in ``model.onnx.data``."""


class Onnx(Format):
    """float32, equal to PyTorch; rows and tokens of any number."""

    name: ClassVar[str] = "onnx"
    extra: ClassVar[str] = "onnx"
    needs: ClassVar[tuple[str, ...]] = ("onnx", "onnxscript", "onnxruntime")
    exact: ClassVar[bool] = True
    reads: ClassVar[str] = "onnxruntime"

    @classmethod
    def write(cls, model: nn.Module, plan: Plan, folder: Path) -> None:
        """Write ``model.onnx``; see ``Format.write``.

        Raises:
            ValueError: torch cannot export the model; says why.
        """
        names, path = list(plan.example), folder / FILE
        sizes = tuple(dict.fromkeys(plan.free[name], torch.export.Dim.DYNAMIC) for name in names)
        size = sum(p.numel() * p.element_size() for p in model.parameters())
        loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript")]
        levels = [one.level for one in loggers]
        for one in loggers:
            one.setLevel(logging.ERROR)  # they warn of image operators that nobody asked for
        try:
            with warnings.catch_warnings(), torch.no_grad():
                warnings.simplefilter("ignore")
                torch.onnx.export(
                    _Named(model, names, plan.outputs), tuple(plan.example.values()), str(path), input_names=names,
                    output_names=list(plan.outputs), dynamic_shapes=(sizes,), dynamo=True, verbose=False,
                    external_data=size > ONE_FILE,
                )  # fmt: skip
        except Exception as error:  # of torch, each version its own
            reason = str(error.__cause__ or error).strip().splitlines() or [type(error).__name__]
            raise ValueError(
                f"an export of {type(model).__name__} was asked for, and torch cannot write it ({reason[0][:160]}): "
                "try another format (torchao-int8), or another version of torch."
            ) from error
        finally:
            for one, level in zip(loggers, levels, strict=True):
                one.setLevel(level)
        _name_sizes(path, plan)

    @classmethod
    def load(cls, folder: Path, model: nn.Module, plan: Plan) -> Exported:
        """Open ``model.onnx`` with as many threads as torch has; see ``Format.load``."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(str(folder / FILE), options, providers=["CPUExecutionProvider"])
        names = [one.name for one in session.get_inputs()]
        outputs = list(plan.outputs)
        return Exported(lambda fed: session.run(outputs, fed), names, outputs, model.config)


class _Named(nn.Module):
    """Takes its columns by position and returns some outputs alone, as an export wants it."""

    def __init__(self, model: nn.Module, names: Sequence[str], outputs: Sequence[str]) -> None:
        super().__init__()
        self.model, self.names, self.outputs = model, names, outputs
        cached = hasattr(getattr(model, "config", None), "use_cache")
        self.options: dict[str, Any] = {"use_cache": False} if cached and "logits" in outputs else {}

    def forward(self, *columns: Tensor) -> tuple[Tensor, ...]:
        shown = self.model(**dict(zip(self.names, columns, strict=True)), return_dict=True, **self.options)
        return tuple(shown[name] for name in self.outputs)


def _name_sizes(path: Path, plan: Plan) -> None:
    """Write rows and tokens where torch has s10 and s11."""
    import onnx

    written = onnx.load(str(path), load_external_data=False)
    named = {}
    for one in written.graph.input:
        for axis, name in plan.free[one.name].items():
            named[one.type.tensor_type.shape.dim[axis].dim_param] = name
    named.pop("", None)
    for one in (*written.graph.input, *written.graph.output, *written.graph.value_info):
        for size in one.type.tensor_type.shape.dim:
            size.dim_param = named.get(size.dim_param, size.dim_param) if size.HasField("dim_param") else ""
    onnx.save(written, str(path))
