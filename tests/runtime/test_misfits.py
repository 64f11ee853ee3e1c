"""Sizes that an operator takes for granted: refused when compiled, or, where open, when run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import tuili
from tuili.errors import InvalidArgument, InvalidModel
from tuili.ir import Graph, TensorType
from tuili.tensors import Array, DType, Sym


def f32(*shape: int) -> Array:
    return np.ones(shape, np.float32)


def i64(*values: int) -> Array:
    return np.array(values, np.int64)


TREE: dict[str, Any] = {
    "nodes_featureids": (5, 0, 0),
    "nodes_falsenodeids": (2, 0, 0),
    "nodes_modes": ("BRANCH_LEQ", "LEAF", "LEAF"),
    "nodes_nodeids": (0, 1, 2),
    "nodes_treeids": (0, 0, 0),
    "nodes_truenodeids": (1, 0, 0),
    "nodes_values": (0.5, 0.0, 0.0),
    "target_ids": (0, 0),
    "target_nodeids": (1, 2),
    "target_treeids": (0, 0),
    "target_weights": (1.0, 2.0),
}
LINE = {"coefficients": (0.5, 1.5, 2.5), "intercepts": (1.0,)}

# Operator, attributes, inputs that fit, inputs that do not; all dims are open in the second half.
CASES: dict[str, tuple[str, dict[str, Any], list[Array], list[Array]]] = {
    "window": ("MaxPool", {"kernel_shape": (3, 3)}, [f32(1, 2, 5, 5)], [f32(1, 2, 5, 2)]),
    "padded window": (
        "Conv", {"pads": (1, 1, 1, 1)},
        [f32(1, 2, 4, 4), f32(3, 2, 3, 3)], [f32(1, 2, 0, 4), f32(3, 2, 3, 3)],
    ),
    "transposed": (
        "ConvTranspose", {"pads": (2, 2)},
        [f32(1, 2, 4), f32(2, 1, 3)], [f32(1, 2, 1), f32(2, 1, 3)],
    ),
    "blocks": ("DepthToSpace", {"blocksize": 2}, [f32(1, 8, 2, 2)], [f32(1, 6, 2, 2)]),
    "rows of blocks": ("SpaceToDepth", {"blocksize": 2}, [f32(1, 1, 4, 2)], [f32(1, 1, 3, 2)]),
    "gate": ("SwiGLU", {}, [f32(2, 4), f32(2, 4)], [f32(2, 4), f32(1, 4)]),
    "elements": (
        "GatherElements", {"axis": 1}, [f32(3, 4), i64(0, 1).reshape(2, 1)],
        [f32(1, 4), i64(0, 1).reshape(2, 1)],
    ),
    "lengths": ("ReverseSequence", {}, [f32(4, 2), i64(1, 3)], [f32(4, 3), i64(1, 3)]),
    "batch of a grid": (
        "GridSample", {}, [f32(2, 1, 4, 4), f32(2, 3, 3, 2)], [f32(2, 1, 4, 4), f32(3, 3, 3, 2)],
    ),
    "places of a grid": (
        "GridSample", {}, [f32(2, 1, 4, 4), f32(2, 3, 3, 2)], [f32(2, 1, 4, 4), f32(2, 3, 3, 3)],
    ),
    "labels": (
        "NegativeLogLikelihoodLoss", {"reduction": "none"},
        [f32(3, 4), i64(0, 1, 2)], [f32(2, 4), i64(0, 1, 2)],
    ),
    "square": ("Det", {}, [f32(2, 3, 3)], [f32(2, 3, 2)]),
    "keys": (
        "com.microsoft::MultiHeadAttention", {"num_heads": 2},
        [f32(1, 3, 8), f32(1, 4, 8), f32(1, 4, 6)], [f32(1, 3, 8), f32(1, 4, 8), f32(1, 5, 6)],
    ),
    "keys of the standard": (
        "Attention", {"q_num_heads": 2, "kv_num_heads": 2},
        [f32(1, 3, 8), f32(1, 4, 8), f32(1, 4, 6)], [f32(1, 3, 8), f32(1, 4, 8), f32(1, 5, 6)],
    ),
    "heads of the standard": (
        "Attention", {"q_num_heads": 2, "kv_num_heads": 2},
        [f32(1, 3, 8), f32(1, 4, 8), f32(1, 4, 6)], [f32(1, 3, 8), f32(1, 4, 8), f32(1, 4, 5)],
    ),
    "batches of the standard": (
        "Attention", {},
        [f32(2, 2, 3, 8), f32(2, 2, 4, 8), f32(2, 2, 4, 8)],
        [f32(2, 2, 3, 8), f32(1, 2, 4, 8), f32(1, 2, 4, 8)],
    ),
    "widths of the standard": (
        "Attention", {},
        [f32(2, 2, 3, 8), f32(2, 2, 4, 8), f32(2, 2, 4, 8)],
        [f32(2, 2, 3, 8), f32(2, 2, 4, 6), f32(2, 2, 4, 8)],
    ),
    "mask of fused attention": (
        "FusedAttention", {},
        [f32(2, 2, 3, 8), f32(2, 2, 4, 8), f32(2, 2, 4, 8), f32(3, 4)],
        [f32(2, 2, 3, 8), f32(2, 2, 4, 8), f32(2, 2, 4, 8), f32(3, 3)],
    ),
    "values of fused attention": (
        "FusedAttention", {},
        [f32(2, 2, 3, 8), f32(2, 2, 4, 8), f32(2, 2, 4, 8)],
        [f32(2, 2, 3, 8), f32(2, 2, 4, 8), f32(2, 2, 3, 8)],
    ),
    "batches": (
        "GatherND", {"batch_dims": 1}, [f32(2, 4), i64(0, 1).reshape(2, 1)],
        [f32(3, 4), i64(0, 1).reshape(2, 1)],
    ),
    "updates": (
        "ScatterElements", {"axis": 0}, [f32(4), i64(0, 1), f32(2)], [f32(4), i64(0, 1), f32(1)],
    ),
    "slices of updates": (
        "ScatterND", {}, [f32(4, 3), i64(0, 1).reshape(2, 1), f32(2, 3)],
        [f32(4, 3), i64(0, 1).reshape(2, 1), f32(1, 3)],
    ),
    "scales": (
        "DequantizeLinear", {"axis": 1},
        [np.ones((2, 3), np.int8), f32(3)], [np.ones((2, 2), np.int8), f32(3)],
    ),
    "features of a tree": (
        "ai.onnx.ml::TreeEnsembleRegressor", {**TREE, "n_targets": 1}, [f32(2, 6)], [f32(2, 5)],
    ),
    "features of a line": ("ai.onnx.ml::LinearRegressor", LINE, [f32(2, 3)], [f32(2, 4)]),
    "scaled features": (
        "ai.onnx.ml::Scaler", {"offset": (1.0, 2.0), "scale": (1.0, 2.0)}, [f32(2, 2)], [f32(2, 3)],
    ),
}  # fmt: skip


def graph_of(op: str, attrs: dict[str, Any], arrays: list[Array], *, open_: bool) -> Graph:
    graph = Graph("g")
    inputs = []
    for index, array in enumerate(arrays):
        dims = [Sym(f"d{index}_{axis}") for axis in range(array.ndim)] if open_ else None
        rigid = op in ("Conv", "ConvTranspose") and index == 1
        shape = array.shape if rigid or dims is None else tuple(dims)
        inputs.append(graph.add_input(f"x{index}", TensorType(DType.of(array.dtype), shape)))
    graph.set_outputs([graph.add(op, inputs, attrs, outputs=["y"], name="n").output])
    return graph


@pytest.mark.parametrize("case", CASES)
def test_known_sizes_that_do_not_fit_are_refused_by_the_compiler(case: str, tmp_path: Path) -> None:
    op, attrs, _, wrong = CASES[case]
    with pytest.raises(InvalidModel, match="node 'n': "):
        tuili.compile(graph_of(op, attrs, wrong, open_=False), tmp_path / "m.tuili")


@pytest.mark.parametrize("case", CASES)
def test_open_sizes_that_do_not_fit_are_refused_by_the_run(case: str, tmp_path: Path) -> None:
    op, attrs, right, wrong = CASES[case]
    artifact = tuili.compile(graph_of(op, attrs, right, open_=True), tmp_path / "m.tuili")
    model = tuili.load(artifact.path)
    model.run({f"x{index}": array for index, array in enumerate(right)})
    with pytest.raises(InvalidArgument, match="node 'n'|output 'y'"):
        model.run({f"x{index}": array for index, array in enumerate(wrong)})


def test_a_size_that_must_be_enough_for_one_node_and_equal_for_another(tmp_path: Path) -> None:
    """Both compare the size with 1, and only the second refuses 2."""
    graph = Graph("g")
    size = Sym("a")
    x = graph.add_input("x", TensorType(DType.F32, (1, 2, 3, size)))
    c = graph.add_input("c", TensorType(DType.F32, (1, 5)))
    pooled = graph.add("MaxPool", [x], {"kernel_shape": (1, 1)}, outputs=["p"], name="pool")
    product = graph.add("MatMul", [x, c], {}, outputs=["y"], name="product")
    graph.set_outputs([pooled.output, product.output])
    model = tuili.load(tuili.compile(graph, tmp_path / "m.tuili").path)
    model.run({"x": f32(1, 2, 3, 1), "c": f32(1, 5)})
    with pytest.raises(InvalidArgument, match="node 'product'.*must be equal"):
        model.run({"x": f32(1, 2, 3, 2), "c": f32(1, 5)})


# What is known of the second operand on decides: inputs that fit, inputs that do not.
KNOWN: dict[str, tuple[str, list[Array], list[Array]]] = {
    "columns of blocks": ("Col2Im", [f32(1, 8, 9), i64(4, 4), i64(2, 2)], [f32(1, 8, 4)]),
    "matrices of a grid": ("AffineGrid", [f32(2, 2, 3), i64(2, 3, 4, 5)], [f32(1, 2, 3)]),
    "frames of a signal": ("STFT", [f32(1, 16, 1), np.array(4), f32(8)], [f32(1, 7, 1)]),
}


@pytest.mark.parametrize("case", KNOWN)
def test_open_sizes_are_held_against_what_constants_say(case: str, tmp_path: Path) -> None:
    op, (first, *rest), (wrong,) = KNOWN[case]
    graph = Graph("g")
    dims = tuple(Sym(f"d{axis}") if axis != 1 or op != "Col2Im" else 8 for axis in range(3))
    x = graph.add_input("x", TensorType(DType.F32, dims))
    known = [graph.add_constant(each, f"c{at}") for at, each in enumerate(rest)]
    graph.set_outputs([graph.add(op, [x, *known], {}, outputs=["y"], name="n").output])
    model = tuili.load(tuili.compile(graph, tmp_path / "m.tuili").path)
    model.run({"x": first})
    with pytest.raises(InvalidArgument, match="node 'n': "):
        model.run({"x": wrong})


@pytest.mark.parametrize("size", [1 << 31, 1 << 32, 1 << 40])
def test_empty_inputs_that_claim_huge_sizes_make_no_small_plan(size: int, tmp_path: Path) -> None:
    """4 * 2^32 * 2^32 bytes wrapped around to none, and the run wrote all over the memory."""
    proto = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 17]>
    net (float[a, n] x, float[n, b] z) => (float y)
    { f = MatMul (x, z)  e = Exp (f)  y = ReduceMax <keepdims = 0> (e) }""")
    model = tuili.load(tuili.compile(proto, tmp_path / "m.tuili").path)
    empty = np.empty((size, 0), np.float32)
    with pytest.raises(InvalidArgument, match=r"inputs too large|no plan for such sizes"):
        model.run({"x": empty, "z": empty.T})
