"""A scale for each row: of the tokens that a matrix product reads, and of the words that are looked up.

Knows: graphs of ONNX. Does not know: how products are quantised, runtimes, tasks.
"""

from __future__ import annotations

from typing import Any

import numpy as np

LEAST = 1e-9
"""A row of zeros is divided by this."""
LARGE = 100
"""Tables of fewer rows stay: they are small, and what a type of token loses is the same in every token, so that no
average over tokens takes it out again."""


def scale_by_row(model: Any) -> None:
    """Give a graph the scales that ONNX Runtime's quantisation does not have: it knows one for a whole tensor.

    A product x W becomes r (x / r) W, with r the largest magnitude of each row of x: equal in float32, and a row that
    is quantised then loses as little alone as beside a larger one. A looked-up table becomes one of eight bits, with a
    scale for each of its rows. A Gemm of flattened tokens becomes a product and a sum. One that reads a single vector
    of a row, as a classifier does, stays: there is little to save.

    Args:
        model: a ``ModelProto`` in float32, of opset 18 or later; it is changed.

    Example:
        >>> import onnx  # doctest: +SKIP
        >>> model = onnx.load("model.onnx")  # doctest: +SKIP
        >>> scale_by_row(model)  # doctest: +SKIP
        >>> onnx.save(model, "rows.onnx")  # doctest: +SKIP
    """
    from onnx import numpy_helper

    graph = model.graph
    held = {one.name: one for one in graph.initializer}
    tables = {name for name, one in held.items() if len(one.dims) == 2 and one.data_type == 1}
    large = {name for name in tables if held[name].dims[0] >= LARGE}
    flat = {name for node in graph.node if node.op_type == "Reshape" for name in node.output}
    rows: dict[str, tuple[str, str]] = {}
    nodes, added = [], {"by_row.last": np.array([-1], np.int64), "by_row.least": np.array([LEAST], np.float32)}
    for node in graph.node:
        if node.op_type == "Gather" and node.input[0] in large and _says(node, axis=0):
            nodes += _looked_up(node, numpy_helper.to_array(held[node.input[0]]), added)
        elif node.op_type == "Gemm" and node.input[0] in flat and node.input[1] in tables and _is_linear(node):
            nodes += _scaled(_product(node, numpy_helper.to_array(held[node.input[1]]), added), rows)
        elif node.op_type == "MatMul" and node.input[1] in tables:
            nodes += _scaled([node], rows)
        else:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.extend(numpy_helper.from_array(one, name) for name, one in added.items())
    used = {name for node in graph.node for name in node.input} | {one.name for one in graph.output}
    kept = [one for one in graph.initializer if one.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _says(node: Any, **asked: float) -> bool:
    """Whether a node's attributes are these; the values are also those of a node that leaves them out."""
    from onnx import helper

    return all(helper.get_attribute_value(one) == asked.get(one.name) for one in node.attribute if one.name in asked)


def _is_linear(node: Any) -> bool:
    return _says(node, alpha=1.0, beta=1.0, transA=0)


def _looked_up(node: Any, table: np.ndarray, added: dict[str, np.ndarray]) -> list[Any]:
    from onnx import TensorProto
    from onnx.helper import make_node

    (name, ids), out = node.input, node.output[0]
    if f"{name}.eight" not in added:
        scale = np.abs(table).max(1, keepdims=True).clip(LEAST) / 127
        added[f"{name}.eight"] = np.round(table / scale).astype(np.int8)
        added[f"{name}.scale"] = scale.astype(np.float32)
    return [
        make_node("Gather", [f"{name}.eight", ids], [f"{out}.eight"]),
        make_node("Gather", [f"{name}.scale", ids], [f"{out}.scale"]),
        make_node("Cast", [f"{out}.eight"], [f"{out}.float"], to=TensorProto.FLOAT),
        make_node("Mul", [f"{out}.float", f"{out}.scale"], [out]),
    ]


def _product(node: Any, weight: np.ndarray, added: dict[str, np.ndarray]) -> list[Any]:
    """A Gemm as a product and a sum: its bias is not to be scaled."""
    from onnx.helper import make_node

    if not _says(node, transB=0):
        weight = np.ascontiguousarray(weight.T)
    out, bias = node.output[0], list(node.input[2:])
    added[f"{out}.weight"] = weight
    before = f"{out}.product" if bias else out
    product = make_node("MatMul", [node.input[0], f"{out}.weight"], [before], name=node.name)
    return [product, *([make_node("Add", [before, *bias], [out])] if bias else [])]


def _scaled(nodes: list[Any], rows: dict[str, tuple[str, str]]) -> list[Any]:
    """The first node is the product; those that read the same rows share their scales."""
    from onnx.helper import make_node

    product, made = nodes[0], []
    read, out = product.input[0], product.output[0]
    if read not in rows:
        rows[read] = f"{read}.row", f"{read}.by_row"
        largest, divided = rows[read]
        made = [
            make_node("Abs", [read], [f"{read}.abs"]),
            make_node("ReduceMax", [f"{read}.abs", "by_row.last"], [f"{read}.largest"], keepdims=1),
            make_node("Max", [f"{read}.largest", "by_row.least"], [largest]),
            make_node("Div", [read, largest], [divided]),
        ]
    largest, divided = rows[read]
    product.input[0], product.output[0] = divided, f"{out}.by_row"
    return [*made, product, make_node("Mul", [f"{out}.by_row", largest], [out]), *nodes[1:]]
