"""Convolution nodes for the tests of kernels, and the check against the operators' meaning."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.foreign import chosen_target
from benchmarks.single_kernel import SingleKernel, single_node, this_target
from tests.codegen.compiled import one_per
from tuili.codegen.targets import TARGETS, Target
from tuili.ir import Graph, Node, TensorType
from tuili.ops.infer import infer
from tuili.ops.interpret import run_node
from tuili.tensors import Array, DType, Shape, Sym

X86 = [target for target in TARGETS.values() if target.machine == "x86_64"]


def targets_here() -> list[Target]:
    """The targets that this machine runs, one of those whose f32 kernels are alike."""
    best = this_target()
    if chosen_target() is not None:
        return [best]
    runnable = [t for t in X86 if set(t.requires) <= set(best.requires)]
    return one_per(lambda target: target.lanes, runnable) or [best]


def symbolic(shape: tuple[int, ...], axes: str) -> tuple[Shape, dict[str, int]]:
    """The shape with a symbol on each axis named, and what the symbols stand for."""
    names = {
        letter: axis for axis, letter in enumerate({3: "NCW", 4: "NCHW", 5: "NCDHW"}[len(shape)])
    }
    dims: list[Any] = list(shape)
    values: dict[str, int] = {}
    for axis in axes:
        dims[names[axis]] = Sym(axis)
        values[axis] = shape[names[axis]]
    return tuple(dims), values


def scalar_body(*ops: str, extra: int = 0) -> Graph:
    """A chain of unary operators, then Add of each extra operand."""
    body = Graph("body")
    element = TensorType(DType.F32, ())
    value = body.add_input("e", element)
    for op in ops:
        value = body.add(op, [value], types=[element]).output
    for index in range(extra):
        operand = body.add_input(f"r{index}", element)
        value = body.add("Add", [value, operand], types=[element]).output
    body.set_outputs([value])
    return body


def window_node(
    op: str,
    target: Target,
    shape: tuple[int, ...],
    attrs: dict[str, Any],
    *,
    weights: Array | None = None,
    bias: Array | None = None,
    axes: str = "",
    layout: str | None = None,
    epilogue: Graph | None = None,
    residual: bool = False,
    out_layout: str | None = None,
    dtype: DType = DType.F32,
) -> tuple[Node, dict[str, int]]:
    """A node over one blocked (or plain) input, and the values of its symbols."""
    graph = Graph()
    dims, values = symbolic(shape, axes)
    layout = target.layout if layout is None else layout
    out_layout = layout if out_layout is None else out_layout
    x = graph.add_input("x", TensorType(dtype, dims, layout))
    inputs: list[Any] = [x]
    if weights is not None:
        inputs.append(graph.add_constant(weights, "w"))
        if bias is not None or epilogue is not None:
            inputs.append(None if bias is None else graph.add_constant(bias, "b"))
    attrs = dict(attrs)
    node = graph.add(op, inputs, attrs)
    graph.set_outputs([node.output])
    infer(graph)
    node.output.type = node.output.tensor.with_layout(out_layout)
    if epilogue is not None:
        node.attrs["epilogue"] = epilogue
        if residual:
            r = graph.add_input("r", node.output.tensor)
            node.set_inputs([*node.inputs, r])
    return single_node(graph), values


def check(
    node: Node,
    target: Target,
    values: dict[str, int],
    *,
    family: str = "",
    tolerance: float = 2e-5,
    exact: bool = False,
) -> SingleKernel:
    """Compile and run the node on random inputs, in one and in three parts of its grid."""
    rng = np.random.default_rng(5)
    feeds: dict[str, Array] = {}
    arrays: list[Array | None] = []
    for value in node.inputs:
        if value is None or value.constant is not None:
            arrays.append(None if value is None else value.constant)
            continue
        shape = tuple(values.get(str(dim), dim) for dim in value.shape)
        if value.name == "r":
            shape = None
        feeds[value.name] = (
            np.empty(0) if shape is None else rng.standard_normal(shape).astype(value.dtype.numpy)
        )
        arrays.append(feeds[value.name])
    if "r" in feeds:
        plain = run_node(_without_epilogue(node), arrays[:3] if len(arrays) > 2 else arrays[:1])[0]
        feeds["r"] = rng.standard_normal(plain.shape).astype(np.float32)
        arrays[[v is not None and v.name == "r" for v in node.inputs].index(True)] = feeds["r"]
    expected = run_node(node, arrays)
    kernel = SingleKernel(node, target, family=family, level="-O1", exact=exact)
    for parts in (1, 3):
        found = kernel(feeds, parts, **values)
        for mine, right in zip(found, expected, strict=True):
            assert mine.shape == right.shape
            scale = max(float(np.abs(right).max(initial=0)), 1e-3)
            np.testing.assert_allclose(
                mine.astype(np.float64), right.astype(np.float64), rtol=0, atol=tolerance * scale
            )
    return kernel


def _without_epilogue(node: Node) -> Node:
    graph = Graph()
    inputs = [
        None if v is None else graph.add_input(v.name, v.type)
        for v in node.inputs
        if v is None or v.name != "r"
    ]
    attrs = {name: attr for name, attr in node.attrs.items() if name != "epilogue"}
    copy = graph.add(node.op, inputs, attrs)
    copy.output.type = node.output.type
    return copy


def weights_of(*shape: int) -> Array:
    """Random weights of unit gain."""
    rng = np.random.default_rng(3)
    fan = int(np.prod(shape[1:]))
    return (rng.standard_normal(shape) / fan**0.5).astype(np.float32)
