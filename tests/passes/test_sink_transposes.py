"""Transpositions sink below what does not care for the order of axes, where that saves some."""

# ruff: noqa: E501 - the cases are a table
from __future__ import annotations

import numpy as np
import pytest

from tests.passes.support import feeds, load
from tuili.ir import verify
from tuili.ops.infer import infer
from tuili.ops.interpret import run
from tuili.passes.dead import remove_dead
from tuili.passes.movement import merge_movement
from tuili.passes.sink_transposes import sink_transposes

X = """graph main(%x: f32[N, 4, H, 6], %y: f32[N, 4, H, 6], %z: f32[N, 1, 1, 4]) {
  %xt = Transpose(%x) {perm=[0, 2, 3, 1]}
  %yt = Transpose(%y) {perm=[0, 2, 3, 1]}
  %c = constant f32[4] [1.0, 2.0, 3.0, 4.0]
  %scale = constant f32[] [0.5]
  %zero = constant u8[] [7]
"""
BACK = "%r = Transpose(%out) {perm=[0, 3, 1, 2]}\n return %r\n}"

# what stands between, and how many transpositions are left
CASES = {
    "a sum of two": ("%s = Add(%xt, %yt)\n %out = Relu(%s)", BACK, 0),
    "a constant along the channels": ("%out = Mul(%xt, %c)", BACK, 0),
    "codes and back": (
        "%q = QuantizeLinear(%xt, %scale, %zero)\n %out = DequantizeLinear(%q, %scale, %zero)",
        BACK,
        0,
    ),
    "one number for each channel, of which only ones move": ("%out = Mul(%xt, %z)", BACK, 0),
    "pieces side by side": ("%out = Concat(%xt, %yt) {axis=-1}", BACK, 0),
    "two become one": ("%s = Add(%xt, %yt)\n %out = Relu(%s)", "return %out\n}", 1),
    "nobody undoes it": ("%out = Relu(%xt)", "return %out\n}", 1),
    "the channels are summed": ("%s = Relu(%xt)\n %a = constant i64[1] [3]\n %out = ReduceSum(%s, %a)", BACK, 1),
    "another order meets it": ("%y2 = Transpose(%y) {perm=[0, 3, 2, 1]}\n %y3 = Relu(%y2)\n %out = Relu(%xt)", BACK, 0),
    "a shape with other axes": ("%s = constant i64[4] [0, 6, -1, 4]\n %v = Reshape(%y, %s)\n %w = Shape(%xt)\n %u = Reshape(%v, %w)\n %out = Add(%xt, %u)", BACK, 2),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_is_left_means_the_same(case: str) -> None:
    body, end, left = CASES[case]
    graph, given = load(f"{X} {body}\n {end}"), {}
    whole = load(f"{X} {body}\n {end}".replace("N", "2").replace("H,", "5,").replace("H]", "5]"))
    given = feeds(whole)
    before = run(graph, given)
    for _ in range(3):
        sink_transposes(graph)
        merge_movement(graph, infer(graph))
        remove_dead(graph)
        verify(graph)
    after = run(graph, given)
    assert list(after) == list(before)
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array)
    perms = [node for node in graph.nodes if node.op == "Transpose"]
    moving = [node for node in perms if node.attrs["perm"] != (0, 1, 2, 3)]
    assert len(moving) == left
