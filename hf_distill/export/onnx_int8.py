"""A model as a file of ONNX whose matrix products are of eight bits.

Knows: ONNX Runtime's dynamic quantisation and what goes wrong with it. Does not know: torch's quantisation, tasks.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from pathlib import Path
from typing import ClassVar

from torch import nn

from hf_distill.export.by_row import scale_by_row
from hf_distill.export.format import check_products
from hf_distill.export.onnx import FILE, Onnx
from hf_distill.export.plan import Plan

PRODUCTS = ["MatMul"]
"""What is quantised; embeddings are too, by ``scale_by_row``. A convolution would become ConvInteger, which the
processor's kernels run slower than float32, or not at all."""


class OnnxInt8(Onnx):
    """Weights of eight bits with a scale an output, activations of eight bits that are scaled by token while it runs.

    With one scale for a whole tensor, as ONNX Runtime has it, the largest token of a batch decides how finely all
    others are told apart, and one word how finely the vocabulary is.

    Seven of the weights' bits are used: on a processor without VNNI the sums of eight would saturate, and it would
    answer something else than where it was measured. It costs no time where there is VNNI.
    """

    name: ClassVar[str] = "onnx-int8"
    exact: ClassVar[bool] = False

    @classmethod
    def check(cls, model: nn.Module) -> None:
        """Refuse a model of convolutions too; see ``Format.check``."""
        super().check(model)
        check_products(model, cls.name)

    @classmethod
    def write(cls, model: nn.Module, plan: Plan, folder: Path) -> None:
        """Write ``model.onnx``; see ``Format.write``."""
        with tempfile.TemporaryDirectory() as made:
            super().write(model, plan, Path(made))
            cls.quantise(Path(made), folder)

    @classmethod
    def quantise(cls, plain: Path, folder: Path) -> None:
        """Quantise what ``Onnx`` wrote.

        Args:
            plain: the folder with it.
            folder: is there, and takes the quantised file.
        """
        import onnx
        from onnxruntime.quantization import QuantType, quantize_dynamic
        from onnxruntime.quantization.shape_inference import quant_pre_process

        ready = plain / "ready.onnx"
        before, root = logging.getLogger().level, logging.getLogger()
        root.setLevel(logging.ERROR)  # it advises pre-processing, which was done
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                # Shapes as ONNX infers them are enough: symbolic ones are for what torch's older exporter wrote.
                quant_pre_process(str(plain / FILE), str(ready), skip_symbolic_shape=True)
                prepared = onnx.load(str(ready))
                scale_by_row(prepared)
                onnx.save(prepared, str(ready))
                # It makes products of the Gemms that were left, and quantises those too unless they are named.
                left = [f"{node.name}_MatMul" for node in prepared.graph.node if node.op_type == "Gemm"]
                quantize_dynamic(
                    str(ready), str(folder / FILE), op_types_to_quantize=PRODUCTS, per_channel=True, reduce_range=True,
                    weight_type=QuantType.QInt8, nodes_to_exclude=left,
                )  # fmt: skip
        finally:
            root.setLevel(before)
