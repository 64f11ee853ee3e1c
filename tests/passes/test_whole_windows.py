"""Pools over whole maps: which windows cover one, and that the answer stays."""

from __future__ import annotations

import numpy as np
import pytest

from tests.passes.support import load, run_on_random
from tuili.passes.whole_windows import whole_windows

WHOLE = (
    "AveragePool(%x) {kernel_shape=[3, 4]}",
    "AveragePool(%x) {ceil_mode=1, kernel_shape=[9, 9], strides=[9, 9]}",
    "AveragePool(%x) {kernel_shape=[4, 5], pads=[1, 1, 0, 0]}",
    "AveragePool(%x) {count_include_pad=1, kernel_shape=[3, 4]}",
    "MaxPool(%x) {kernel_shape=[3, 4]}",
)
PARTIAL = (
    "AveragePool(%x) {count_include_pad=1, kernel_shape=[4, 5], pads=[1, 1, 0, 0]}",
    "MaxPool(%x) {kernel_shape=[3, 4], strides=[5, 5], pads=[0, 0, 2, 2], dilations=[2, 1]}",
    "AveragePool(%x) {kernel_shape=[2, 4]}",
)


def text_of(pool: str) -> str:
    return f"graph main(%x: f32[2, 3, 3, 4]) {{\n  %y = {pool}\n  return %y\n}}\n"


@pytest.mark.parametrize("pool", WHOLE)
def test_a_window_over_the_whole_map_goes(pool: str):
    graph = load(text_of(pool))
    (before,) = run_on_random(graph)
    assert whole_windows(graph)
    assert graph.nodes[0].op.startswith("Global")
    np.testing.assert_allclose(run_on_random(graph)[0], before, rtol=1e-6)


@pytest.mark.parametrize("pool", PARTIAL)
def test_other_windows_stay(pool: str):
    assert not whole_windows(load(text_of(pool)))
