"""Export: a finished student as a file that other runtimes read, and run again as a module, so that it is measured."""

from hf_distill.export.format import Format
from hf_distill.export.onnx import Onnx
from hf_distill.export.onnx_int8 import OnnxInt8
from hf_distill.export.openvino import OpenVino
from hf_distill.export.plan import Plan
from hf_distill.export.running import Exported
from hf_distill.export.torchao import TorchaoInt4, TorchaoInt8

FORMATS: tuple[type[Format], ...] = (Onnx, OnnxInt8, TorchaoInt8, TorchaoInt4, OpenVino)

__all__ = [
    "FORMATS",
    "Exported",
    "Format",
    "Onnx",
    "OnnxInt8",
    "OpenVino",
    "Plan",
    "TorchaoInt4",
    "TorchaoInt8",
]
