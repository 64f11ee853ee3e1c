"""The simplifying passes: text in, operators out; the meaning stays."""

from __future__ import annotations

import numpy as np
import pytest

from tests.passes.support import load, run_on_random
from tuili.ir import Graph, verify
from tuili.ir.text import to_text
from tuili.passes.pipeline import optimise


def simplified(text: str) -> tuple[Graph, Graph]:
    before, after = load(text), load(text)
    optimise(after, block=16, on_pass=lambda name, graph: verify(graph, after=name))
    return before, after


def ops(graph: Graph) -> list[str]:
    return [node.op for node in graph.nodes]


SHAPES = """
graph main(%x: f32[N, 6, H]) {
  %s = Shape(%x)
  %zero = constant i64[1] [0]
  %one = constant i64[1] [1]
  %n = Gather(%s, %zero)
  %h = Gather(%s, %one)
  %two = constant i64[1] [2]
  %half = Div(%h, %two)
  %to = Concat(%n, %two, %half, %minus) {axis=0}
  %minus = constant i64[1] [-1]
  %y = Reshape(%x, %to)
  return %y
}
"""

CASES: dict[str, tuple[str, list[str]]] = {
    "constants fold": (
        "%a = constant f32[2] [1.0, 2.0]\n %b = Exp(%a)\n %y = Mul(%x, %b)\n return %y",
        ["Mul"],
    ),
    "dead nodes go": ("%a = Exp(%x)\n %y = Relu(%x)\n return %y", ["Relu"]),
    "equal nodes are shared": (
        "%a = Exp(%x)\n %b = Exp(%x)\n %c = Transpose(%a)\n %y = MatMul(%c, %b)\n return %y",
        ["Exp", "Transpose", "MatMul"],
    ),
    "identities go": (
        "%a = Identity(%x)\n %b = Cast(%a) {to=f32}\n %y = Relu(%b)\n return %y",
        ["Relu"],
    ),
    "an identity between input and output stays": ("%y = Identity(%x)\n return %y", ["Identity"]),
    "what is rounded once more is not rounded before": (
        "%y = Cast(%x) {to=f16}\n return %y",
        ["Cast"],
    ),
    "what is read as rounded stays so": (
        "%a = Cast(%x) {to=f16}\n %b = Cast(%a) {to=f32}\n %y = ReduceSum(%b)\n return %a, %y",
        ["RoundTo", "ReduceSum", "Cast"],
    ),
    "a neutral operand goes": (
        "%o = constant f32[] [1.0]\n %a = Mul(%x, %o)\n %y = Relu(%a)\n return %y",
        ["Relu"],
    ),
    "a neutral operand that widens stays": (
        "%o = constant f32[2, 1, 1] [1.0, 1.0]\n %y = Mul(%x, %o)\n return %y",
        ["Mul"],
    ),
    "gelu is recognised": (
        (
            "%r = constant f32[] [1.4142135]\n %o = constant f32[] [1.0]\n"
            " %h = constant f32[] [0.5]\n"
            " %d = Div(%x, %r)\n %e = Erf(%d)\n %p = Add(%o, %e)\n %m = Mul(%x, %p)\n"
            " %y = Mul(%m, %h)\n return %y"
        ),
        ["Gelu"],
    ),
    "layer normalisation is recognised": (
        (
            "%e = constant f32[] [0.001]\n %two = constant f32[] [2.0]\n"
            " %ax = constant i64[1] [-1]\n"
            " %g = constant f32[2] [1.0, 2.0]\n %b = constant f32[2] [0.5, 0.25]\n"
            " %m = ReduceMean(%x, %ax)\n %d = Sub(%x, %m)\n %q = Pow(%d, %two)\n"
            " %v = ReduceMean(%q, %ax)\n %ve = Add(%v, %e)\n %s = Sqrt(%ve)\n %n = Div(%d, %s)\n"
            " %ng = Mul(%n, %g)\n %y = Add(%ng, %b)\n return %y"
        ),
        ["LayerNormalization"],
    ),
}


@pytest.mark.parametrize(("body", "expected"), CASES.values(), ids=CASES)
def test_a_graph_gets_simpler_and_means_the_same(body: str, expected: list[str]) -> None:
    before, after = simplified(f"graph main(%x: f32[3, 2]) {{\n {body}\n}}")
    assert ops(after) == expected
    for one, other in zip(run_on_random(before), run_on_random(after), strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-6)


def test_shape_arithmetic_becomes_symbolic_dims() -> None:
    text = SHAPES.replace("  %minus = constant i64[1] [-1]\n", "").replace(
        "  %two =", "  %minus = constant i64[1] [-1]\n  %two ="
    )
    _, after = simplified(text)
    assert ops(after) == ["Dims", "Reshape"]
    assert [str(dim) for dim in after.outputs[0].shape] == ["N", "2", "3", "H"]


CONV = """
graph main(%x: f32[1, 2, 4, 4]) {{
  %w = constant f32[2, 2, 1, 1] [1.0, 2.0, 3.0, 4.0]
  %scale = constant f32[2] [2.0, 3.0]
  %bias = constant f32[2] [0.5, 0.25]
  %mean = constant f32[2] [0.1, 0.2]
  %var = constant f32[2] [1.0, 4.0]
  %c = Conv(%x, %w)
  {body}
}}
"""


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            "%y = BatchNormalization(%c, %scale, %bias, %mean, %var)\n return %y",
            ["Conv", "Reorder"],
        ),
        (
            "%b = BatchNormalization(%c, %scale, %bias, %mean, %var)\n %y = Relu(%b)\n return %y",
            ["Conv", "Reorder"],
        ),
        (
            "%y = BatchNormalization(%x, %scale, %bias, %mean, %var)\n return %y",
            ["Fused"],
        ),
    ],
)
def test_batch_normalisation_moves_into_the_convolution(body: str, expected: list[str]) -> None:
    before, after = simplified(CONV.format(body=body))
    assert ops(after) == expected
    for one, other in zip(run_on_random(before), run_on_random(after), strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-5)


EXTRACTOR = """
graph main(%x: f32[3, 2]) {
  %i = constant i64[1, 3] [1, 0, 1]
  %y = ai.onnx.ml::ArrayFeatureExtractor(%x, %i)
  return %y
}
"""


def test_an_array_feature_extractor_becomes_a_gather() -> None:
    before, after = simplified(EXTRACTOR)
    assert ops(after) == ["Gather"]
    np.testing.assert_array_equal(run_on_random(after)[0], run_on_random(before)[0])


GEMM = """
graph main(%x: f32[3, 2]) {
  %w = constant f32[4, 3] [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 1.0, 2.0, 3.0]
  %b = constant f32[4] [1.0, 2.0, 3.0, 4.0]
  %y = Gemm(%x, %w, %b) {alpha=0.5, beta=2.0, transA=1, transB=1}
  return %y
}
"""


def test_gemm_becomes_matmul_with_its_bias_in_the_epilogue() -> None:
    before, after = simplified(GEMM)
    assert ops(after) == ["Transpose", "MatMul"]
    np.testing.assert_allclose(run_on_random(after)[0], run_on_random(before)[0], rtol=1e-6)


@pytest.mark.parametrize(("exact", "expected"), [(False, "Mul"), (True, "Div")])
def test_exact_keeps_arithmetic_that_rounds_otherwise(exact: bool, expected: str) -> None:
    graph = load(
        "graph main(%x: f32[N, 4]) {\n %c = constant f32[1] [3.0]\n %y = Div(%x, %c)\n return %y\n}"
    )
    optimise(graph, block=16, on_pass=lambda name, graph: None, exact=exact)
    assert f"{expected}(" in to_text(graph)
