"""Half-precision graphs: f32 between the edges, rounded where the model itself rounds."""

from __future__ import annotations

import numpy as np
import pytest

from tests.passes.support import feeds, load
from tests.passes.test_rewrites import lines
from tuili.ir import verify
from tuili.ir.text import to_text
from tuili.ops.infer import infer
from tuili.ops.interpret import run
from tuili.passes.widen_half import widen_half

CASES = {
    "casts at the edges": (
        """
        graph main(%x: f16[2, 3]) {
          %w = constant f16[3] [1.0, 2.0, 3.0]
          %m: f16[2, 3] = Mul(%x, %w)
          %y: f16[2, 3] = Tanh(%m)
          return %y
        }
        """,
        """
        graph main(%x: f16[2, 3]) {
          %w = constant f32[3] [1.0, 2.0, 3.0]
          %x_f32: f32[2, 3] = Cast(%x) {to=f32}
          %m: f32[2, 3] = Mul(%x_f32, %w)
          %y_f32: f32[2, 3] = Tanh(%m)
          %y: f16[2, 3] = Cast(%y_f32) {to=f16}
          return %y
        }
        """,
    ),
    "a cast of the model rounds": (
        """
        graph main(%x: f32[2]) {
          %h: bf16[2] = Cast(%x) {to=bf16}
          %s: bf16[2] = Add(%h, %h)
          %y: f32[2] = Cast(%s) {to=f32}
          return %y
        }
        """,
        """
        graph main(%x: f32[2]) {
          %h: f32[2] = RoundTo(%x) {to=bf16}
          %s: f32[2] = Add(%h, %h)
          %y: f32[2] = Cast(%s) {to=f32}
          return %y
        }
        """,
    ),
    "an input that is returned stays itself": (
        """
        graph main(%x: f16[2]) {
          %y: f16[2] = Neg(%x)
          return %y, %x
        }
        """,
        """
        graph main(%x: f16[2]) {
          %x_f32: f32[2] = Cast(%x) {to=f32}
          %y_f32: f32[2] = Neg(%x_f32)
          %y: f16[2] = Cast(%y_f32) {to=f16}
          return %y, %x
        }
        """,
    ),
    "bits keep their type": (
        """
        graph main(%x: f16[2]) {
          %d: f16[2] = Add(%x, %x)
          %y: i16[2] = BitCast(%d) {to=i16}
          return %y
        }
        """,
        """
        graph main(%x: f16[2]) {
          %x_f32: f32[2] = Cast(%x) {to=f32}
          %d: f32[2] = Add(%x_f32, %x_f32)
          %cast: f16[2] = Cast(%d) {to=f16}
          %y: i16[2] = BitCast(%cast) {to=i16}
          return %y
        }
        """,
    ),
    "loops are widened with their states": (
        """
        graph main(%n: i64[], %x: f16[2]) {
          %y: f16[2] = Loop(%n, _, %x) {body=graph body(%i: i64[], %c: bool[], %s: f16[2]) {
            %t: f16[2] = Add(%s, %x)
            return %c, %t
          }}
          return %y
        }
        """,
        "",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_half_is_held_as_f32(name: str):
    before, after = CASES[name]
    graph = load(before)
    given = feeds(graph)
    expected = run(graph, given)
    assert widen_half(graph)
    verify(graph)
    infer(graph)
    if after:
        assert to_text(graph) == lines(after)
    found = run(graph, given)
    assert list(found) == list(expected)
    for key, array in expected.items():
        assert found[key].dtype == array.dtype
        np.testing.assert_allclose(
            found[key].astype(np.float32), array.astype(np.float32), rtol=2e-3
        )


def test_a_graph_of_floats_stays():
    graph = load("graph main(%x: f32[2]) {\n  %y: f32[2] = Neg(%x)\n  return %y\n}\n")
    assert not widen_half(graph)
