"""Thin groups of convolutions are joined; what they compute stays."""

from __future__ import annotations

import numpy as np
import pytest

from tuili.ir import Graph, TensorType
from tuili.ops.infer import infer
from tuili.ops.interpret import run
from tuili.passes.merge_groups import merge_groups
from tuili.tensors import DType


def conv(channels: int, outputs: int, groups: int, taps: int = 3) -> Graph:
    rng = np.random.default_rng(0)
    graph = Graph()
    x = graph.add_input("x", TensorType(DType.F32, (1, channels, 5, 6)))
    weights = rng.standard_normal((outputs, channels // groups, taps, taps)).astype(np.float32)
    w = graph.add_constant(weights, "w")
    graph.set_outputs([graph.add("Conv", [x, w, None], {"group": groups}, outputs=["y"]).output])
    infer(graph)
    return graph


@pytest.mark.parametrize(
    ("channels", "outputs", "groups", "left"),
    [(32, 32, 4, 2), (32, 64, 8, 2), (64, 64, 16, 4), (64, 32, 16, 2), (60, 30, 3, 1)],
)
def test_thin_groups_become_whole_blocks(
    channels: int, outputs: int, groups: int, left: int
) -> None:
    graph = conv(channels, outputs, groups)
    feeds = {"x": np.random.default_rng(1).standard_normal((1, channels, 5, 6)).astype(np.float32)}
    before = run(graph, feeds)["y"]
    assert merge_groups(graph, 16)
    assert graph.nodes[0].attrs["group"] == left
    np.testing.assert_allclose(run(graph, feeds)["y"], before, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("channels", "outputs", "groups"), [(32, 32, 32), (32, 32, 1), (32, 32, 2), (30, 30, 10)]
)
def test_other_groups_stay(channels: int, outputs: int, groups: int) -> None:
    assert not merge_groups(conv(channels, outputs, groups), 16)


@pytest.mark.parametrize(
    ("channels", "outputs", "groups", "stays"),
    [(60, 240, 3, True), (240, 60, 3, True), (80, 40, 8, True), (64, 64, 16, False)],
)
def test_groups_of_one_tap_stay_where_zeros_cost_more(
    channels: int, outputs: int, groups: int, stays: bool
) -> None:
    assert merge_groups(conv(channels, outputs, groups, taps=1), 8) is not stays
