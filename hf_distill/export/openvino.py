"""A model as files of OpenVINO, made of those of ONNX.

Knows: OpenVINO's converter and runtime. Does not know: torch's exporter, tasks, how models are measured.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from hf_distill.export.onnx import FILE, Onnx
from hf_distill.export.plan import Plan
from hf_distill.export.running import Exported

XML = "openvino_model.xml"
"""As optimum names it; the weights are beside it, in ``openvino_model.bin``."""


class OpenVino(Onnx):
    """float32, equal to PyTorch.

    On a processor with AMX OpenVINO computes in bfloat16 unless it is told otherwise: ``INFERENCE_PRECISION_HINT``.
    """

    name: ClassVar[str] = "openvino"
    extra: ClassVar[str] = "openvino"
    needs: ClassVar[tuple[str, ...]] = ("onnx", "onnxscript", "openvino")
    reads: ClassVar[str] = "openvino"

    @classmethod
    def write(cls, model: nn.Module, plan: Plan, folder: Path) -> None:
        """Write ``openvino_model.xml`` and its weights, not in halves of them; see ``Format.write``."""
        import openvino

        with tempfile.TemporaryDirectory() as made:
            super().write(model, plan, Path(made))
            converted = openvino.convert_model(str(Path(made) / FILE))
            openvino.save_model(converted, str(folder / XML), compress_to_fp16=False)

    @classmethod
    def load(cls, folder: Path, model: nn.Module, plan: Plan) -> Exported:
        """Compile it in float32 for as many threads as torch has; see ``Format.load``."""
        import openvino

        asked = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
        asked["PERFORMANCE_HINT"] = "LATENCY"
        compiled = openvino.Core().compile_model(str(folder / XML), "CPU", asked)
        outputs, names = list(plan.outputs), [one.get_any_name() for one in compiled.inputs]
        return Exported(lambda fed: _answered(compiled(fed), outputs), names, outputs, model.config)


def _answered(shown: Any, outputs: Sequence[str]) -> list[Any]:
    """Copies: the runtime writes its next answers into the same memory."""
    return [shown[name].copy() for name in outputs]
