"""Sizes that only the run knows, and that make no sense: a clear error, and never a wild read."""

# ruff: noqa: E501 - the cases are a table
from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from tuili import compile as compile_model
from tuili import load
from tuili.errors import InvalidArgument

X = np.ones((2, 3), np.float32)
KINDS = {"f": onnx.TensorProto.FLOAT, "i": onnx.TensorProto.INT64}


def model(
    nodes: list[onnx.NodeProto], inputs: dict[str, tuple[str, list[Any]]], outputs: int = 1
) -> onnx.ModelProto:
    """Nodes from `inputs` to y0, y1, ..., whose sizes are open."""
    given = [
        helper.make_tensor_value_info(name, KINDS[kind], shape)
        for name, (kind, shape) in inputs.items()
    ]
    made = [onnx.ValueInfoProto(name=f"y{k}") for k in range(outputs)]
    graph = helper.make_graph(nodes, "g", given, made)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def node(op: str, inputs: str, outputs: str = "y0", **attrs: Any) -> onnx.NodeProto:
    return helper.make_node(
        op, ["" if name == "_" else name for name in inputs.split()], outputs.split(), **attrs
    )


DATA, SIZES = {"x": ("f", ["N", 3])}, {"s": ("i", [2])}
FILL = node("ConstantOfShape", "s", "filled")
MODELS: dict[str, onnx.ModelProto] = {
    "fill": model([node("ConstantOfShape", "s")], SIZES),
    "reshape": model([node("Reshape", "x s")], DATA | SIZES),
    "expand": model([node("Expand", "x s")], DATA | SIZES),
    "tile": model([node("Tile", "x s")], DATA | SIZES),
    "pad": model([node("Pad", "x p")], DATA | {"p": ("i", [4])}),
    "split": model([node("Split", "x s", "y0 y1", axis=1)], DATA | SIZES, 2),
    "top": model([node("TopK", "x k", "y0 y1")], DATA | {"k": ("i", [1])}, 2),
    "gather": model([node("Gather", "x i")], DATA | {"i": ("i", ["K"])}),
    "range": model([node("Range", "a b c")], {name: ("i", []) for name in "abc"}),
    "resize": model([node("Resize", "p _ c")], {"p": ("f", [1, 1, 4, 4]), "c": ("f", [4])}),
    "add": model([FILL, node("Add", "x filled")], DATA | SIZES),
    "matmul": model([FILL, node("MatMul", "x filled")], DATA | SIZES),
    "concat": model([FILL, node("Concat", "x filled", axis=1)], DATA | SIZES),
}  # fmt: skip
PICTURE = np.ones((1, 1, 4, 4), np.float32)

# model, inputs, the message
CASES: list[tuple[str, dict[str, Any], str]] = [
    ("fill", {"s": [-1, 2]}, r"ConstantOfShape node 'y0': a size to fill must not be negative: v0 = -1"),
    ("fill", {"s": [2**40, 2**20]}, r"tensor 'y0', whose shape depends on data, needs \d+ bytes.*limit data_bytes"),
    ("reshape", {"x": X, "s": [-5, 2]}, r"Reshape node 'y0'.*a size below -1"),
    ("reshape", {"x": X, "s": [7, 2]}, r"Reshape node 'y0'.*cannot reshape array of size 6"),
    ("expand", {"x": X, "s": [-3, 3]}, r"Expand node 'y0': sizes that broadcast together: N = 2 and v0 = -3"),
    ("expand", {"x": X[:1], "s": [2**40, 3]}, r"limit data_bytes"),
    ("tile", {"x": X, "s": [-1, -1]}, r"Tile node 'y0': a size of 'y0' is negative: .* = -[23]"),
    ("tile", {"x": X, "s": [2**30, 2**30]}, r"limit data_bytes"),
    ("pad", {"x": X, "p": [-5, 0, 0, 0]}, r"Pad node 'y0': a size of 'y0' is negative"),
    ("pad", {"x": X, "p": [2**40, 0, 0, 0]}, r"limit data_bytes"),
    ("split", {"x": X, "s": [2, 5]}, r"Split node 'y0': the sizes along axis 1 must add up.*= 7 and 3"),
    ("split", {"x": X, "s": [-1, 4]}, r"Split node 'y0': a size of 'y0' is negative: v0 = -1"),
    ("top", {"x": X, "k": [9]}, r"TopK node 'y0': elements along axis 1 against how many are wanted"),
    ("top", {"x": X, "k": [-9]}, r"TopK node 'y0': a size of 'y\d' is negative: v0 = -9"),
    ("gather", {"x": X, "i": [9]}, r"Gather node 'y0': an index is out of range for an axis of the data"),
    ("range", {"a": 0, "b": 5, "c": 0}, r"Range node 'y0': the delta of a Range is 0; expected a step"),
    ("range", {"a": 0, "b": 2**60, "c": 1}, r"limit data_bytes"),
    ("resize", {"p": PICTURE, "c": np.array([1, 1, np.nan, 2], np.float32)}, r"Resize node 'y0'.*every scale must be above 0"),
    ("resize", {"p": PICTURE, "c": np.array([1, 1, -1, 2], np.float32)}, r"Resize node 'y0'.*every scale must be above 0"),
    ("add", {"x": X, "s": [2, 5]}, r"Add node 'y0': sizes that broadcast together: 3 and .* = 5"),
    ("matmul", {"x": X, "s": [5, 4]}, r"MatMul node 'y0': the last axis of A and the second last of B differ: 3 and .* = 5"),
    ("concat", {"x": X, "s": [3, 4]}, r"Concat node 'y0': sizes along axis 0 differ: N = 2 and .* = 3"),
]  # fmt: skip


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder: Path = tmp_path_factory.mktemp("bad")
    return {
        name: load(compile_model(proto, folder / f"{name}.tuili").path)
        for name, proto in MODELS.items()
    }


@pytest.mark.parametrize(
    ("name", "feeds", "message"), CASES, ids=[f"{case[0]}-{n}" for n, case in enumerate(CASES)]
)
def test_a_size_that_makes_no_sense_is_refused(
    loaded: dict[str, Any], name: str, feeds: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidArgument, match=f"(?s){message}"):
        loaded[name].run({key: np.asarray(item) for key, item in feeds.items()})


def test_sizes_that_fit_are_taken(loaded: dict[str, Any]) -> None:
    assert loaded["add"].run({"x": X, "s": np.array([1, 1])})["y0"].shape == (2, 3)
    assert loaded["matmul"].run({"x": X, "s": np.array([3, 0])})["y0"].shape == (2, 0)
    assert loaded["split"].run({"x": X, "s": np.array([3, 0])})["y1"].shape == (2, 0)
    assert loaded["tile"].run({"x": X, "s": np.array([0, 2])})["y0"].shape == (0, 6)
