"""A scale for each row: the graph stays equal in float32, and a small row beside a large one keeps its digits."""

import importlib.util

import numpy as np
import pytest

from hf_distill.export.by_row import scale_by_row

RUNTIME = pytest.mark.skipif(importlib.util.find_spec("onnxruntime") is None, reason="needs hf_distill[onnx]")
pytestmark = RUNTIME
WORDS, WIDTH = 6, 16


def draw(*sizes):
    return np.random.default_rng(0).normal(size=sizes).astype(np.float32)


def graph(transposed=True, rounded=False, flat=True, times=20, **attributes):
    """Words are looked up, two products read them, and a Gemm with a bias reads all words, or the last one."""
    from onnx import helper, numpy_helper

    table = draw(WORDS, WIDTH) * np.array([[100], [1], [1], [1], [0.01], [0]], np.float32)
    table = np.tile(table, (times, 1))  # a small one would stay as it is
    if rounded:
        step = np.abs(table).max(1, keepdims=True).clip(1e-9) / 127
        table = (np.round(table / step) * step).astype(np.float32)
    held = {
        "words": table,
        "a": draw(WIDTH, 8),
        "b": draw(WIDTH, 8),
        "bias": draw(3),
        "last": np.array(-1),
        "size": np.array([-1, 8]),
    }
    held["head"] = draw(3, 8) if transposed else draw(8, 3)
    nodes = [
        helper.make_node("Gather", ["words", "ids"], ["x"], name="look"),
        helper.make_node("MatMul", ["x", "a"], ["left"], name="left"),
        helper.make_node("MatMul", ["x", "b"], ["right"], name="right"),
        helper.make_node("Add", ["left", "right"], ["sum"]),
        helper.make_node("Reshape", ["sum", "size"], ["read"])
        if flat
        else helper.make_node("Gather", ["sum", "last"], ["read"], axis=1),
        helper.make_node("Gemm", ["read", "head", "bias"], ["y"], name="head", transB=int(transposed), **attributes),
    ]
    given = [helper.make_tensor_value_info("ids", 7, ["rows", "tokens"])]
    shown = [helper.make_tensor_value_info("sum", 1, None), helper.make_tensor_value_info("y", 1, None)]
    held = [numpy_helper.from_array(one, name) for name, one in held.items()]
    made = helper.make_graph(nodes, "g", given, shown, held)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def run(model, ids):
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"ids": np.array(ids)})


@pytest.mark.parametrize("transposed", [True, False])
def test_in_float32_only_the_table_has_lost_something(transposed):
    wanted = run(graph(transposed, rounded=True), [[0, 1], [4, 5]])
    scale_by_row(model := graph(transposed))
    kinds = [node.op_type for node in model.graph.node]
    assert "Gemm" not in kinds
    assert kinds.count("Div") == 2  # of the words, which both products read, and of what the head reads
    held = {one.name: one for one in model.graph.initializer}
    assert held["words.eight"].data_type == 3
    assert not {"words", "head"} & held.keys()
    for ours, theirs in zip(run(model, [[0, 1], [4, 5]]), wanted, strict=True):
        assert np.allclose(ours, theirs, rtol=1e-4, atol=1e-4)
    assert (run(model, [[5, 5]])[0] == 0).all()  # rows of zeros stay, and are no division by zero


def test_a_small_row_beside_a_large_one_keeps_its_digits(tmp_path):
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    plain = graph()
    wanted = run(plain, [[0, 4]])[0][0, 1]
    far = {}
    for name in ("whole", "rows"):
        model = graph()
        if name == "rows":
            scale_by_row(model)
        onnx.save(model, str(tmp_path / "plain.onnx"))
        quantize_dynamic(
            str(tmp_path / "plain.onnx"), str(tmp_path / "small.onnx"), per_channel=True, reduce_range=True,
            op_types_to_quantize=["MatMul"], weight_type=QuantType.QInt8,
        )  # fmt: skip
        small = onnx.load(str(tmp_path / "small.onnx"))
        assert [node.op_type for node in small.graph.node].count("MatMulInteger") >= 2
        far[name] = np.abs(run(small, [[0, 4]])[0][0, 1] - wanted).max() / np.abs(wanted).max()
    assert far["rows"] < 0.03
    assert far["whole"] > 0.9  # nothing is left of it


@pytest.mark.parametrize("options", [{"alpha": 0.5}, {"flat": False}])
def test_a_gemm_of_one_vector_or_of_weighed_parts_is_left_alone(options):
    wanted = run(graph(rounded=True, **options), [[1, 2]])[1]
    scale_by_row(model := graph(**options))
    assert "Gemm" in [node.op_type for node in model.graph.node]
    assert np.allclose(run(model, [[1, 2]])[1], wanted, rtol=1e-4, atol=1e-4)


def test_a_small_table_stays():
    scale_by_row(model := graph(times=1))
    assert "words" in {one.name for one in model.graph.initializer}
