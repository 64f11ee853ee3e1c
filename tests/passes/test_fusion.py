"""Fusion: text in, text out; the meaning stays."""

from __future__ import annotations

import numpy as np
import pytest

from tests.passes.support import feeds, load
from tuili.ir import verify
from tuili.ir.text import to_text
from tuili.ops.infer import infer
from tuili.ops.interpret import run
from tuili.passes.fuse_elementwise import fuse_elementwise
from tuili.passes.fuse_epilogue import fuse_epilogues

MATMUL = """
graph main(%x: f32[2, 3], %r: f32[2, 4], %w: f32[3, 4]) {{
  %b = constant f32[4] [1.0, 2.0, 3.0, 4.0]
  %one = constant f32[] [1.0]
  %y = MatMul(%x, %w, _)
  {body}
}}
"""

EPILOGUES = {
    "bias and activation": ("%a = Add(%y, %b)\n %z = Relu(%a)\n return %z", ["MatMul"]),
    "residual": ("%z = Add(%r, %y)\n return %z", ["MatMul"]),
    "a diamond": ("%s = Sigmoid(%y)\n %z = Mul(%y, %s)\n return %z", ["MatMul"]),
    "a diamond after a bias": (
        "%a = Add(%y, %b)\n %s = Sigmoid(%a)\n %m = Mul(%a, %s)\n %z = Add(%m, %one)\n return %z",
        ["MatMul"],
    ),
    "a result that is read elsewhere stays": (
        "%z = Relu(%y)\n %t = Transpose(%y) {perm=[1, 0]}\n return %z, %t",
        ["MatMul", "Relu", "Transpose"],
    ),
    "a result that is returned stays": ("%z = Relu(%y)\n return %z, %y", ["MatMul", "Relu"]),
    "the last value may be read twice": (
        "%z = Relu(%y)\n %t = Transpose(%z) {perm=[1, 0]}\n return %z, %t",
        ["MatMul", "Transpose"],
    ),
    "another element type stays out": (
        "%z = Relu(%y)\n %c = Cast(%z) {to=i32}\n return %c",
        ["MatMul", "Cast"],
    ),
}


def assert_same(before: dict[str, np.ndarray], after: dict[str, np.ndarray]) -> None:
    assert list(before) == list(after)
    for name, array in before.items():
        np.testing.assert_allclose(after[name], array, rtol=1e-6)


@pytest.mark.parametrize(("body", "ops"), EPILOGUES.values(), ids=EPILOGUES)
def test_what_follows_a_matmul_joins_it(body: str, ops: list[str]) -> None:
    graph = load(MATMUL.format(body=body))
    before = run(graph, feeds(graph))
    fuse_epilogues(graph)
    verify(graph)
    infer(graph)
    assert [node.op for node in graph.nodes] == ops
    assert_same(before, run(graph, feeds(graph)))


ELEMENTWISE = {
    "a chain": ("%a = Relu(%x)\n %b = Neg(%a)\n %c = Exp(%b)\n return %c", ["Fused"]),
    "a diamond": ("%a = Relu(%x)\n %b = Neg(%a)\n %c = Mul(%a, %b)\n return %c", ["Fused"]),
    "one node stays as it is": ("%a = Relu(%x)\n return %a", ["Relu"]),
    "a value read outside ends a region": (
        "%a = Relu(%x)\n %b = Neg(%a)\n %c = Exp(%b)\n return %c, %a",
        ["Relu", "Fused"],
    ),
    "a small operand is not computed again": (
        "%a = Sigmoid(%v)\n %b = Mul(%x, %a)\n %c = Relu(%b)\n return %c",
        ["Sigmoid", "Fused"],
    ),
    "element types may change": (
        "%a = Greater(%x, %v)\n %b = Cast(%a) {to=f32}\n %c = Mul(%b, %x)\n return %c",
        ["Fused"],
    ),
}


@pytest.mark.parametrize(("body", "ops"), ELEMENTWISE.values(), ids=ELEMENTWISE)
def test_elementwise_regions_fuse(body: str, ops: list[str]) -> None:
    graph = load(f"graph main(%x: f32[2, 3], %v: f32[3]) {{\n {body}\n}}")
    before = run(graph, feeds(graph))
    fuse_elementwise(graph)
    verify(graph)
    infer(graph)
    assert [node.op for node in graph.nodes] == ops
    assert_same(before, run(graph, feeds(graph)))


def test_fused_text_shows_its_body() -> None:
    graph = load("graph main(%x: f32[2]) {\n %a = Relu(%x)\n %b = Neg(%a)\n return %b\n}")
    fuse_elementwise(graph)
    assert "Fused(%x)" in to_text(graph)
    assert "Neg(" in to_text(graph)
