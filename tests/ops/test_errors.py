"""Broken nodes: every error names the node, what was found and what was expected."""

# ruff: noqa: E501 - the cases are a table
from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tuili.errors import InvalidArgument, InvalidModel, UnsupportedOperator
from tuili.ir import Graph, TensorType
from tuili.ops.infer import infer
from tuili.ops.interpret import run
from tuili.ops.table import TABLE, attr, lookup
from tuili.tensors import DType, Sym

F32, I64 = DType.F32, DType.I64


def infer_one(op: str, types: list[Any], attrs: dict[str, Any], outputs: int = 1) -> None:
    graph = Graph()
    inputs = [
        None
        if item is None
        else graph.add_constant(item)
        if isinstance(item, np.ndarray)
        else graph.add_input(f"x{index}", TensorType(*item))
        for index, item in enumerate(types)
    ]
    node = graph.add(op, inputs, attrs, outputs=[f"y{k}" for k in range(outputs)], name="n")
    graph.set_outputs(node.outputs)
    infer(graph)


def ints(*items: int) -> Any:
    return np.array(items, np.int64)


def floats(*items: float) -> Any:
    return np.array(items, np.float32)


CASES: list[tuple[str, list[Any], dict[str, Any], str]] = [
    ("Relu", [], {}, r"Relu node 'n': input 0 \('X'\) is missing"),
    ("Relu", [(F32, ()), (F32, ())], {}, r"2 inputs are given; it takes 1 \(X\)"),
    ("Relu", [(F32, ())], {"alpha": 1.0}, r"unknown attribute 'alpha'"),
    ("LeakyRelu", [(F32, ())], {"alhpa": 1.0}, r"'alhpa'. Did you mean 'alpha'\?"),
    ("LeakyRelu", [(F32, ())], {"alpha": float("nan")}, r"attribute 'alpha' is NaN; expected a number"),
    ("Cast", [(F32, ())], {"to": 99}, r"attribute 'to' is 99; expected an element type"),
    ("Concat", [(F32, (1,))], {}, r"attribute 'axis' is missing; it is required"),
    ("Add", [(F32, (2,)), (I64, (2,))], {}, r"input 1 \('B'\) is i64.*make T = f32; cast"),
    ("Sqrt", [(I64, (2,))], {}, r"is i64; expected one of bf16, f16, f32, f64"),
    ("Add", [(F32, (2,)), (F32, (3,))], {}, r"\[2\] and \[3\] do not broadcast \(2 against 3\)"),
    ("MatMul", [(F32, (2, 3)), (F32, (4, 5))], {}, r"the last axis of A.*3 against 4"),
    ("Conv", [(F32, (1, 3, 8, 8)), (F32, (4, 2, 3, 3))], {}, r"channels of the input.*3 against 2"),
    ("Conv", [(F32, (1, 3, 2, 8)), (F32, (4, 3, 3, 3))], {}, r"window of 3 does not fit into size 2"),
    ("Conv", [(F32, (1, 3, 8)), (F32, (4, 3, 3, 3))], {}, r"expected equal ranks of 3 or more"),
    ("MaxPool", [(F32, (1, 3, 8))], {"kernel_shape": (2, 2)}, r"expected 1 entries"),
    ("Reshape", [(F32, (2, 3)), ints(4, -1)], {}, r"\[2, 3\]: 6 elements do not divide by 4"),
    ("Reshape", [(F32, (2, 3)), ints(7)], {}, r"cannot reshape \[2, 3\] to \[7\]: 6 elements"),
    ("Reshape", [(F32, (2, 3)), ints(-1, -1)], {}, r"-1 more than once"),
    ("Transpose", [(F32, (2, 3))], {"perm": (0, 0)}, r"name one axis twice"),
    ("Softmax", [(F32, (2, 3))], {"axis": 2}, r"axis 2 is out of range for rank 2; expected -2..1"),
    ("Squeeze", [(F32, (2, 3)), ints(0)], {}, r"its size must be 1: 2 against 1"),
    ("Gather", [(F32, (2, 3)), ints(5)], {}, r"index 5 is out of range for axis 0 of size 2"),
    ("Concat", [(F32, (2, 3)), (F32, (2, 4))], {"axis": 0}, r"sizes along axis 1 differ: 3 against 4"),
    ("Slice", [(F32, (4,)), ints(0), ints(2), ints(0), ints(0)], {}, r"steps must not be 0"),
    ("Gemm", [(F32, (2, 3)), (F32, (2, 3))], {}, r"the inner sizes of A and B differ: 3 against 2"),
    ("Pad", [(F32, (2, 3)), ints(1, 1)], {}, r"2 pads are given for 2 axes"),
    ("Pad", [(F32, (2, 3)), ints(0, -2, 0, -2)], {}, r"axis 1 of \[2, 3\], padded, is -1"),
    ("Einsum", [(F32, (2, 3))], {"equation": "ij->qq"}, r"'qq' names axis 'q' and no input"),
    ("Einsum", [(F32, (2, 3))], {"equation": "ij->ii"}, r"'ii' names axis 'i' twice; expected each"),
    ("Resize", [(F32, (2, 3)), None, floats(1.0, -2.0)], {}, r"scale of axis 1 is -2.0; expected a"),
    ("Resize", [(F32, (2, 3)), None, floats(1.0, 2.0), ints(2, 6)], {}, r"both scales and sizes"),
    ("Resize", [(F32, (2, 3)), None, None, ints(2, -6)], {}, r"the size of axis 1 is -6"),
    ("Einsum", [(F32, (2, 3))], {"equation": "ab,bc->ac"}, r"2 terms for 1 inputs"),
    ("ai.onnx.ml::ZipMap", [(F32, (2, 3))], {}, r"neither classlabels_int64s nor classlabels_strings"),
    ("LSTM", [(F32, (5, 1, 3)), (F32, (2, 16, 3)), (F32, (2, 16, 4))], {}, r"directions of W"),
]  # fmt: skip


@pytest.mark.parametrize(("op", "types", "attrs", "match"), CASES)
def test_broken_node(op: str, types: list[Any], attrs: dict[str, Any], match: str) -> None:
    with pytest.raises(InvalidModel, match=match):
        infer_one(op, types, attrs)


def test_too_many_outputs() -> None:
    with pytest.raises(InvalidModel, match="2 outputs are named; it has 1 at most"):
        infer_one("Relu", [(F32, ())], {}, outputs=2)


def test_split_sizes_must_add_up() -> None:
    with pytest.raises(InvalidModel, match="must add up to its size: 5 against 4"):
        infer_one("Split", [(F32, (4,)), ints(2, 3)], {}, outputs=2)


def test_unknown_operator() -> None:
    with pytest.raises(UnsupportedOperator, match=r"'Covn'. Did you mean 'Conv'\?"):
        lookup("Covn")


def test_defaults_come_from_the_table() -> None:
    graph = Graph()
    node = graph.add("Gemm", [], {"alpha": 2.0})
    assert (attr(node, "alpha"), attr(node, "beta")) == (2.0, 1.0)


def relu() -> Graph:
    graph = Graph()
    x = graph.add_input("x", TensorType(F32, (Sym("N"), 2)))
    graph.set_outputs(graph.add("Relu", [x]).outputs)
    return graph


@pytest.mark.parametrize(
    ("feeds", "match"),
    [
        ({}, "input 'x' is missing"),
        ({"y": np.zeros((1, 2), np.float32)}, "no input is called 'y'"),
        ({"x": np.zeros((1, 2))}, "has dtype f64; expected f32"),
        ({"x": np.zeros((1, 3), np.float32)}, r"has shape \[1, 3\]; expected \[N, 2\]"),
        ({"x": np.zeros(2, np.float32)}, r"has shape \[2\]; expected \[N, 2\]"),
    ],
)
def test_wrong_feeds(feeds: dict[str, Any], match: str) -> None:
    with pytest.raises(InvalidArgument, match=match):
        run(relu(), feeds)


def test_overrides_name_an_input() -> None:
    graph = relu()
    infer(graph, overrides={"x": (3, 2)})
    assert graph.outputs[0].shape == (3, 2)
    with pytest.raises(InvalidArgument, match="no input is called 'z'"):
        infer(graph, overrides={"z": (3, 2)})


def test_a_meaning_that_fails_names_its_node() -> None:
    graph = Graph()
    x = graph.add_input("x", TensorType(F32, (3,)))
    index = graph.add_input("index", TensorType(I64, (1,)))
    graph.set_outputs(graph.add("Gather", [x, index], name="pick").outputs)
    infer(graph)
    feeds = {"x": np.zeros(3, np.float32), "index": np.array([7])}
    with pytest.raises(
        InvalidModel, match=r"Gather node 'pick' fails on \(float32\[3\], int64\[1\]"
    ):
        run(graph, feeds)


@pytest.mark.parametrize("name", sorted(TABLE))
def test_every_row_is_well_formed(name: str) -> None:
    row = TABLE[name]
    required = [slot.optional or slot.variadic for slot in row.inputs]
    assert all(not slot.variadic for slot in row.inputs[:-1])
    assert row.outputs
    assert required.count(True) <= len(required)
