"""Quantized graphs of every form become products of codes, and mean what they meant."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from tuili.ir import Attr, Graph, TensorType, Value
from tuili.ops.infer import infer
from tuili.ops.interpret import run
from tuili.passes.dead import remove_dead
from tuili.passes.fold import fold_constants
from tuili.passes.pipeline import optimise
from tuili.passes.quantized.recognise import KEPT, recognise_quantized
from tuili.tensors import Array, DType

RNG = np.random.default_rng(5)
W = RNG.integers(-127, 128, (6, 4, 3, 3)).astype(np.int8)
SCALES = RNG.uniform(0.001, 0.004, 6).astype(np.float32)
BIAS = RNG.integers(-3000, 3000, 6).astype(np.int32)
MATRIX = RNG.integers(0, 256, (8, 5)).astype(np.uint8)


Operand = Value | Array


class Builder:
    """A graph of one f32 input, and constants by value."""

    def __init__(self, *shape: int) -> None:
        self.graph = Graph("quantized")
        self.x = self.graph.add_input("x", TensorType(DType.F32, shape))

    def add(self, op: str, *inputs: Operand, **attrs: Attr) -> Value:
        values = [self.graph.add_constant(v) if isinstance(v, np.ndarray) else v for v in inputs]
        return self.graph.add(op, values, attrs).output

    def coded(self, value: Operand, scale: float, zero: int, kind: type = np.uint8) -> Value:
        return self.add("QuantizeLinear", value, number(scale), number(zero, kind))

    def real(self, value: Operand, scale: float, zero: int, kind: type = np.uint8) -> Value:
        return self.add("DequantizeLinear", value, number(scale), number(zero, kind))

    def done(self, *outputs: Value) -> Graph:
        self.graph.set_outputs(outputs)
        infer(self.graph)
        return self.graph


def number(value: float, kind: type = np.float32) -> Array:
    return np.array(value, kind)


def qdq_conv() -> Graph:
    """conv -> relu -> add of the input's codes -> codes, as exporters write it."""
    b = Builder(1, 4, 6, 6)
    q = b.coded(b.x, 0.02, 120)
    weights = b.add("DequantizeLinear", W, SCALES, np.zeros(6, np.int8), axis=0)
    bias = b.add("DequantizeLinear", BIAS, SCALES * np.float32(0.02), axis=0)
    conv = b.add("Conv", b.real(q, 0.02, 120), weights, bias, pads=(1, 1, 1, 1))
    codes = b.coded(b.add("Relu", conv), 0.013, 0)
    twice = b.add("Add", b.real(codes, 0.013, 0), b.real(codes, 0.013, 0))
    return b.done(b.coded(twice, 0.02, 0))


def four_bit_conv() -> Graph:
    """Weights of 4 bits: the product is one of bytes all the same."""
    b = Builder(1, 4, 6, 6)
    q = b.coded(b.x, 0.02, 120)
    few = np.clip(W, -8, 7).astype(DType.I4.numpy)
    weights = b.add("DequantizeLinear", few, SCALES, axis=0)
    conv = b.add("Conv", b.real(q, 0.02, 120), weights, pads=(1, 1, 1, 1))
    return b.done(b.coded(conv, 0.013, 0))


def qoperator_conv() -> Graph:
    """The same in operators on codes."""
    b = Builder(1, 4, 6, 6)
    q = b.coded(b.x, 0.02, 120)
    conv = b.add(
        "QLinearConv", q, number(0.02), number(120, np.uint8), W, SCALES, np.zeros(6, np.int8),
        number(0.013), number(0, np.uint8), BIAS, pads=(1, 1, 1, 1),
    )  # fmt: skip
    parts = (conv, number(0.013), number(0, np.uint8))
    add = b.add("com.microsoft::QLinearAdd", *parts, *parts, number(0.02), number(0, np.uint8))
    return b.done(add)


def asymmetric_gemm() -> Graph:
    """Weights in u8 with a zero point, turned; a real bias."""
    b = Builder(3, 8)
    q = b.coded(b.x, 0.02, -3, np.int8)
    weights = b.real(np.ascontiguousarray(MATRIX.T), 0.01, 130)
    bias = np.linspace(-1, 1, 5).astype(np.float32)
    gemm = b.add("Gemm", b.real(q, 0.02, -3, np.int8), weights, bias, transB=1)
    return b.done(b.coded(b.add("Clip", gemm, number(-0.5), number(6)), 0.03, 90))


def qlinear_matmul() -> Graph:
    """Known weights per column."""
    b = Builder(2, 3, 8)
    q = b.coded(b.x, 0.02, 128)
    scales = np.linspace(0.01, 0.02, 5).astype(np.float32)
    y = b.add(
        "QLinearMatMul", q, number(0.02), number(128, np.uint8), MATRIX, scales,
        np.full(5, 127, np.uint8), number(0.1), number(3, np.int8),
    )  # fmt: skip
    return b.done(y)


def dynamic_matmul() -> Graph:
    """Quantized as it runs."""
    b = Builder(4, 8)
    node = b.graph.add("DynamicQuantizeLinear", [b.x], outputs=["q", "s", "z"])
    q, scale, zero = node.outputs
    total = b.add("MatMulInteger", q, MATRIX, zero, np.array(128, np.uint8))
    factor = b.add("Mul", scale, np.linspace(0.01, 0.02, 5).astype(np.float32))
    real = b.add("Mul", b.add("Cast", total, to=DType.F32), factor)
    return b.done(b.add("Add", real, np.ones(5, np.float32)))


def dynamic_conv() -> Graph:
    """As it runs too, with a bias that is quantized as it runs and added in whole numbers."""
    b = Builder(1, 4, 6, 6)
    node = b.graph.add("DynamicQuantizeLinear", [b.x], outputs=["q", "s", "z"])
    q, scale, zero = node.outputs
    weights = np.arange(3 * 4 * 9, dtype=np.uint8).reshape(3, 4, 3, 3)
    total = b.add("ConvInteger", q, weights, zero, np.array(60, np.uint8), pads=(1, 1, 1, 1))
    factor = b.add("Mul", scale, number(0.01))
    bias = b.add("Floor", b.add("Div", np.ones((1, 3, 1, 1), np.float32), factor))
    sums = b.add("Add", total, b.add("Cast", bias, to=DType.I32))
    return b.done(b.add("Mul", b.add("Cast", sums, to=DType.F32), factor))


def moved_codes() -> Graph:
    """Pooling and movement between equal codes."""
    b = Builder(1, 4, 6, 6)
    q = b.coded(b.x, 0.02, 120)
    pooled = b.add("MaxPool", b.real(q, 0.02, 120), kernel_shape=(2, 2), strides=(2, 2))
    codes = b.coded(pooled, 0.02, 120)
    flat = b.add("Reshape", b.real(codes, 0.02, 120), np.array([1, -1], np.int64))
    return b.done(b.coded(flat, 0.02, 120))


# graph: how many products it becomes, and what must not be left
FORMS = {
    qdq_conv: ({"QConv": 1}, {"Conv"}),
    four_bit_conv: ({"QConv": 1}, {"Conv"}),
    qoperator_conv: ({"QConv": 1}, {"QLinearConv", "com.microsoft::QLinearAdd"}),
    asymmetric_gemm: ({"QMatMul": 1}, {"Gemm", "MatMul"}),
    qlinear_matmul: ({"QMatMul": 1}, {"QLinearMatMul"}),
    dynamic_matmul: ({"QMatMul": 1}, {"MatMulInteger", "Cast"}),
    dynamic_conv: ({"QConv": 1}, {"ConvInteger"}),
    moved_codes: ({}, {"DequantizeLinear"}),
}


def _feeds(graph: Graph) -> dict[str, Array]:
    rng = np.random.default_rng(3)
    return {v.name: rng.normal(0, 1, v.shape).astype(np.float32) for v in graph.inputs}


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_every_form_becomes_products(form: Callable[[], Graph]) -> None:
    graph, (wanted, gone) = form(), FORMS[form]
    fold_constants(graph, KEPT)
    recognise_quantized(graph)
    remove_dead(graph)
    found = Counter(node.op for node in graph.nodes)
    assert {op: found[op] for op in wanted} == wanted
    assert not gone & set(found)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_codes_keep_their_meaning(form: Callable[[], Graph]) -> None:
    graph = form()
    feeds = _feeds(graph)
    (want,) = run(graph, feeds).values()
    optimise(graph, block=8, on_pass=lambda name, graph: None)
    (got,) = run(graph, feeds).values()
    if want.dtype.kind == "f":
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    else:
        assert got.dtype == want.dtype
        assert np.abs(got.astype(int) - want.astype(int)).max() <= 1


def test_what_follows_a_product_is_in_its_stores() -> None:
    graph = qdq_conv()
    optimise(graph, block=8, on_pass=lambda name, graph: None)
    ops = [node.op for node in graph.nodes if node.op != "Reorder"]
    assert ops == ["QuantizeLinear", "QConv"]


def squared_codes(op: str) -> Graph:
    """codes -> x * x -> codes, as exporters write variances and norms."""
    b = Builder(2, 8)
    x = b.real(b.coded(b.x, 0.02, 120), 0.02, 120)
    return b.done(b.real(b.coded(b.add(op, x, x), 0.013, 0), 0.013, 0))


def squared_product(op: str) -> Graph:
    """codes x weights -> y * y -> codes."""
    b = Builder(2, 8)
    weights = b.real(MATRIX, 0.01, 128)
    y = b.add("MatMul", b.real(b.coded(b.x, 0.02, 120), 0.02, 120), weights)
    return b.done(b.real(b.coded(b.add(op, y, y), 0.013, 0), 0.013, 0))


@pytest.mark.parametrize("make", [squared_codes, squared_product])
@pytest.mark.parametrize("op", ["Mul", "Div", "Add", "Sub", "PRelu", "Max"])
def test_a_scale_moves_up_once_where_a_value_is_both_operands(
    make: Callable[[str], Graph], op: str
) -> None:
    graph = make(op)
    x = RNG.uniform(-1, 1, graph.inputs[0].shape).astype(np.float32)
    wanted = run(graph, {"x": x})
    recognise_quantized(graph)
    for key, found in run(graph, {"x": x}).items():
        np.testing.assert_allclose(found, wanted[key], atol=0.0131)


def bytes_of(kind: type, *shape: int) -> Array:
    limits = np.iinfo(kind)
    return RNG.integers(limits.min, limits.max + 1, shape).astype(kind)


# op: inputs, the positions of those that are known, attributes, what it becomes
UNSCALED: dict[str, tuple[str, list[Array], set[int], dict[str, Attr], str]] = {
    "known weights": ("MatMulInteger", [bytes_of(np.uint8, 3, 40), bytes_of(np.int8, 40, 5)],
                      {1}, {}, "QMatMul"),
    "sums beyond f32": (
        "MatMulInteger", [bytes_of(np.uint8, 3, 900), np.full((900, 5), -128, np.int8)],
        {1}, {}, "MatMul",
    ),
    "late, zero points by row": (
        "MatMulInteger",
        [bytes_of(np.uint8, 2, 3, 64), bytes_of(np.uint8, 2, 64, 5), bytes_of(np.uint8, 3),
         bytes_of(np.uint8, 5)],
        set(), {}, "MatMul",
    ),
    "late and deep": (
        "MatMulInteger", [np.full((3, 900), 255, np.uint8), np.full((900, 5), 255, np.uint8)],
        set(), {}, "MatMul",
    ),
    "vectors": ("MatMulInteger", [bytes_of(np.int8, 7), bytes_of(np.int8, 7)], set(), {}, "MatMul"),
    "known convolution": (
        "ConvInteger", [bytes_of(np.uint8, 1, 4, 6, 6), W, number(77, np.uint8)], {1, 2},
        {"pads": (1, 1, 1, 1)}, "QConv",
    ),
    "late convolution": (
        "ConvInteger",
        [bytes_of(np.uint8, 1, 4, 6, 6), bytes_of(np.uint8, 6, 2, 3, 3), number(77, np.uint8),
         bytes_of(np.uint8, 6)],
        set(), {"group": 2, "strides": (2, 1)}, "Conv",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", UNSCALED)
def test_products_that_nothing_scales_stay_exact(case: str) -> None:
    op, arrays, known, attrs, expected = UNSCALED[case]
    graph = Graph("whole")
    inputs = [
        graph.add_constant(array, f"c{slot}")
        if slot in known
        else graph.add_input(f"x{slot}", TensorType(DType.of(array.dtype), array.shape))
        for slot, array in enumerate(arrays)
    ]
    feeds = {f"x{slot}": array for slot, array in enumerate(arrays) if slot not in known}
    graph.set_outputs([graph.add(op, inputs, attrs).output])
    infer(graph)
    (before,) = run(graph, feeds).values()
    assert recognise_quantized(graph)
    assert expected in {node.op for node in graph.nodes}
    (after,) = run(graph, feeds).values()
    assert after.dtype == before.dtype
    np.testing.assert_array_equal(after, before)
