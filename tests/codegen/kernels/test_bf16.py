"""Products in bfloat16 are those of rounded numbers; what the target lacks is run as plain C."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from tests.codegen.compiled import BEST, Library
from tuili.codegen.targets import Target, find_target
from tuili.codegen.translate import translate
from tuili.compiler import Options
from tuili.errors import InvalidArgument
from tuili.ir import Graph, TensorType, Value
from tuili.ops.infer import infer
from tuili.ops.interpret import run as interpret
from tuili.passes.pipeline import optimise
from tuili.tensors import Array, DType, Sym

# One worker compiles all cases.
pytestmark = pytest.mark.xdist_group("bf16")

# Sums of some hundred products of order 1: the order of adding shows in the last bits only.
TOLERANCE = 2e-5
FLAGS = ("-DTL_PORTABLE", "-O1", *BEST.flags)
WITH_DOTS, WITH_TILES = (
    replace(find_target(name), machine=BEST.machine, flags=FLAGS)
    for name in ("x86-64-avx512-bf16", "x86-64-amx")
)


@dataclass(frozen=True, slots=True)
class Product:
    """A Conv or MatMul of known weights."""

    x: tuple[int, ...]
    w: tuple[int, ...]
    attrs: Mapping[str, Any] = field(default_factory=dict[str, Any])
    bias: bool = False
    then: str = ""
    open_axes: tuple[int, ...] = ()
    is_whole: bool = False  # small integers, which products and transforms do not round

    @property
    def op(self) -> str:
        """MatMul for matrices of weights, else Conv."""
        return "MatMul" if len(self.w) == 2 else "Conv"


PADS = {"pads": [1, 1, 1, 1]}
PRODUCTS = {
    "matmul": Product((7, 64), (64, 48)),
    "one row": Product((1, 96), (96, 40)),
    "odd depth and width": Product((9, 33), (33, 37)),
    "many rows, with a bias and Relu": Product((2, 60, 32), (32, 96), bias=True, then="Relu"),
    "open rows": Product((11, 34), (34, 64), open_axes=(0,)),
    "1x1": Product((1, 32, 9, 8), (64, 32, 1, 1), bias=True, then="Relu"),
    "1x1 with stride, few channels": Product((1, 20, 9, 8), (128, 20, 1, 1), {"strides": [2, 2]}),
    "1x1 with stride, more channels": Product((1, 50, 9, 8), (128, 50, 1, 1), {"strides": [2, 2]}),
    "1x1 with stride": Product((1, 32, 9, 8), (128, 32, 1, 1), {"strides": [2, 2]}),
    "first layer": Product((2, 3, 17, 16), (32, 3, 5, 5), {"pads": [2, 2, 2, 2]}, bias=True),
    "3x3 with stride": Product((1, 32, 11, 13), (33, 32, 3, 3), {**PADS, "strides": [2, 2]}),
    "dilated": Product((1, 32, 12, 12), (32, 32, 3, 3), {"dilations": [2, 2]}, then="Sigmoid"),
    "a few channels of a block": Product((2, 8, 12, 90), (16, 8, 3, 40), {"strides": [1, 2]}),
    "a block and a part": Product((1, 24, 9, 8), (48, 24, 5, 5), PADS, then="Relu"),
    "one channel": Product((1, 1, 413), (32, 1, 41), {"strides": [4]}),
    "dilated, a part of a block": Product((1, 21, 12, 12), (32, 21, 3, 3), {"dilations": [2, 2]}),
    "along a row": Product((1, 32, 40), (48, 32, 5), {"pads": [2, 2]}),
    "open sizes": Product((1, 32, 9, 10), (40, 32, 1, 1), open_axes=(0, 2, 3)),
}  # fmt: skip


def rounded(array: Array) -> Array:
    """Numbers as bfloat16 has them."""
    return array.astype(DType.BF16.numpy).astype(np.float32)


class Products:
    """All products in one library, compiled with the precision, beside rounded operands' own."""

    def __init__(self, target: Target, products: Mapping[str, Product] = PRODUCTS) -> None:
        self.rng = np.random.default_rng(5)
        self.graph, self.meaning = Graph("products"), Graph("meaning")
        self.feeds: dict[str, Array] = {}
        for at, (name, product) in enumerate(products.items()):
            self._add(f"c{at}", name, product)
        infer(self.graph)
        infer(self.meaning)
        feeds = {name: rounded(array) for name, array in self.feeds.items()}
        self.want = interpret(self.meaning, feeds)
        optimise(self.graph, block=target.block, on_pass=lambda name, graph: None)
        program = translate(self.graph, infer(self.graph), target, bf16=True)
        self.families = [name for name, _ in program.families.values()]
        self.library = Library(program, target)

    def _add(self, name: str, output: str, product: Product) -> None:
        if product.is_whole:
            array, weights = self._numbers(product.x, 8), self._numbers(product.w, 4)
        else:
            array = self.rng.standard_normal(product.x).astype(np.float32)
            weights = self.rng.standard_normal(product.w).astype(np.float32)
            weights /= np.float32(np.sqrt(weights.size / max(product.w[0], product.w[-1])))
        outputs = product.w[1] if product.op == "MatMul" else product.w[0]
        bias = self.rng.standard_normal(outputs).astype(np.float32)
        dims = [
            Sym(f"{name}_{axis}") if axis in product.open_axes else size
            for axis, size in enumerate(product.x)
        ]
        self.feeds[f"{name}_x"] = array
        for graph, known in ((self.graph, weights), (self.meaning, rounded(weights))):
            x = graph.add_input(f"{name}_x", TensorType(DType.F32, tuple(dims)))
            made = self._product(graph, product, x, known, bias)
            if product.then:
                made = graph.add(product.then, [made]).output
            made.name = output
            graph.set_outputs([*graph.outputs, made])

    def _numbers(self, shape: tuple[int, ...], most: int) -> Array:
        return self.rng.integers(-most, most, shape, endpoint=True).astype(np.float32)

    def _product(
        self, graph: Graph, product: Product, x: Value, weights: Array, bias: Array
    ) -> Value:
        inputs = [x, graph.add_constant(weights)]
        if product.op == "Conv" and product.bias:
            inputs.append(graph.add_constant(bias))
        made = graph.add(product.op, inputs, dict(product.attrs)).output
        if product.op == "MatMul" and product.bias:
            made = graph.add("Add", [made, graph.add_constant(bias)]).output
        return made

    def check(self, name: str) -> None:
        """Compare one result with the product of rounded numbers."""
        got = self.library.run(self.feeds)[name]
        np.testing.assert_allclose(got, self.want[name], rtol=TOLERANCE, atol=TOLERANCE)


@cache
def _portable(target: Target) -> Products:
    return Products(target)


@pytest.mark.parametrize("target", [WITH_DOTS, WITH_TILES], ids=lambda target: target.name)
@pytest.mark.parametrize("name", PRODUCTS)
def test_a_product_is_that_of_rounded_numbers(name: str, target: Target) -> None:
    _portable(target).check(name)


@pytest.mark.parametrize("target", [WITH_DOTS, WITH_TILES], ids=lambda target: target.name)
def test_every_product_is_in_bfloat16(target: Target) -> None:
    found = [name for name in _portable(target).families if "bf16" in name]
    assert len(found) == len(PRODUCTS)


@pytest.mark.parametrize("target", [WITH_DOTS, WITH_TILES], ids=lambda target: target.name)
def test_threads_share_the_work(target: Target) -> None:
    products = _portable(target)
    alone = products.library.run(products.feeds)
    together = products.library.run(products.feeds, threads=3)
    assert all(np.array_equal(alone[name], together[name]) for name in alone)


@pytest.mark.skipif(not BEST.bf16, reason="this processor multiplies no bfloat16")
@pytest.mark.parametrize("name", PRODUCTS)
def test_the_instruction_does_what_plain_c_does(name: str) -> None:
    Products(BEST, {name: PRODUCTS[name]}).check(name)


def test_numbers_that_are_none_stay_so() -> None:
    products = Products(WITH_DOTS, {"matmul": Product((1, 8), (8, 32))})
    products.feeds["c0_x"][0, 3] = np.array(0x7FFFFFFF, np.uint32).view(np.float32)
    assert np.isnan(products.library.run(products.feeds)["matmul"]).all()


@pytest.mark.parametrize("target", [WITH_DOTS, WITH_TILES], ids=lambda target: target.name)
@pytest.mark.parametrize("channels", [20, 24, 31])
@pytest.mark.parametrize("taps", [1, 3])
def test_what_lies_behind_the_channels_does_not_count(
    taps: int, channels: int, target: Target
) -> None:
    graph, rng = Graph("infinite"), np.random.default_rng(3)
    x = graph.add_input("x", TensorType(DType.F32, (1, 32, 9, 8)))
    first = rng.random((channels, 32, 1, 1)).astype(np.float32)
    # The channels that fill the last block are sums of nothing: their reciprocals are infinite.
    made = graph.add("Reciprocal", [graph.add("Conv", [x, graph.add_constant(first)]).output])
    second = rng.random((40, channels, taps, taps)).astype(np.float32)
    result = graph.add("Conv", [made.output, graph.add_constant(second)]).output
    result.name = "y"
    graph.set_outputs([result])
    infer(graph)
    feeds = {"x": rng.random((1, 32, 9, 8)).astype(np.float32) + np.float32(0.5)}
    want = interpret(graph, feeds)["y"]
    optimise(graph, block=target.block, on_pass=lambda name, graph: None)
    program = translate(graph, infer(graph), target, bf16=True)
    got = Library(program, target).run(feeds)["y"]
    np.testing.assert_allclose(got, want, rtol=2**-7)


def test_elsewhere_weights_are_rounded_and_rows_are_not() -> None:
    products = Products(BEST if not BEST.bf16 else find_target("x86-64-avx2"), {
        "large": Product((3, 256), (256, 512))
    })  # fmt: skip
    assert products.families == ["matmul_halves"]
    x, weights = products.feeds["c0_x"], products.meaning.nodes[0].required(1).constant
    assert weights is not None
    got = products.library.run(products.feeds)["large"]
    np.testing.assert_allclose(got, x @ weights, rtol=TOLERANCE, atol=TOLERANCE)


def test_a_precision_that_there_is_not_or_that_may_not_round_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="unknown precision 'f64'. Known: f32, bf16"):
        Options(precision="f64")  # pyright: ignore[reportArgumentType]
    with pytest.raises(InvalidArgument, match="'bf16' rounds, which `exact` forbids"):
        Options(exact=True, precision="bf16")


def test_what_makes_little_of_each_number_stays_in_f32() -> None:
    kept = {"few outputs": Product((1, 32, 8, 8), (16, 32, 1, 1))}
    assert not [name for name in Products(WITH_DOTS, kept).families if "bf16" in name]


def test_tile_registers_run_what_winograd_would() -> None:
    product = {"winograd": Product((1, 32, 16, 16), (32, 32, 3, 3), PADS, bias=True, then="Relu")}
    products = Products(WITH_TILES, product)
    assert "conv_bf16_amx" in products.families
    products.check("winograd")
