"""Layout assignment: few reorders, plain outputs, names kept."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuili.ir import Graph, TensorType, Value, verify
from tuili.passes.layout import assign_layouts, weight
from tuili.passes.min_cut import SINK, SOURCE, MinCut
from tuili.tensors import DType, Sym


def image(channels: int) -> TensorType:
    return TensorType(DType.F32, (1, channels, Sym("H"), Sym("W")))


def conv(graph: Graph, x: Value, channels: int, group: int = 1) -> Value:
    weights = graph.add_constant(np.ones((channels, x.shape[1] // group, 1, 1), np.float32), "w")
    return graph.add(
        "Conv", [x, weights, None], {"group": group}, outputs=["c"], types=[image(channels)]
    ).output


def unary(graph: Graph, op: str, x: Value) -> Value:
    return graph.add(op, [x], outputs=[op.lower()], types=[x.type]).output


def ops(graph: Graph) -> list[str]:
    return [node.op for node in graph.nodes]


def test_a_chain_of_convolutions_is_reordered_once_at_its_end() -> None:
    graph = Graph()
    x = graph.add_input("x", image(3))
    y = conv(graph, unary(graph, "Relu", conv(graph, x, 32)), 32)
    graph.rename(y, "y")
    graph.set_outputs([y])
    assert assign_layouts(graph, 16)
    verify(graph)
    assert ops(graph) == ["Conv", "Relu", "Conv", "Reorder"]
    assert [(value.name, value.layout) for value in graph.outputs] == [("y", "")]
    assert graph.nodes[1].output.layout == "nchw16c"


def test_readers_share_a_reorder() -> None:
    graph = Graph()
    x = graph.add_input("x", image(64))
    a, b = conv(graph, x, 16), conv(graph, x, 16)
    graph.set_outputs([a, b])
    assign_layouts(graph, 16)
    verify(graph)
    assert ops(graph).count("Reorder") == 3


def test_a_follower_between_plain_neighbours_stays_plain() -> None:
    graph = Graph()
    x = graph.add_input("x", image(64))
    kept = unary(graph, "Relu", x)
    graph.set_outputs([kept, conv(graph, x, 16)])
    assign_layouts(graph, 16)
    assert kept.layout == ""


@pytest.mark.parametrize("pieces", [(16, 16), (32, 8)])
def test_concat_of_whole_blocks_stays_blocked(pieces: tuple[int, int]) -> None:
    graph = Graph()
    x = graph.add_input("x", image(3))
    parts = [conv(graph, x, channels) for channels in pieces]
    joined = graph.add("Concat", parts, {"axis": 1}, types=[image(sum(pieces))]).output
    graph.set_outputs([conv(graph, joined, 16)])
    assign_layouts(graph, 16)
    assert ops(graph).count("Reorder") == 1


def test_a_constant_beside_blocked_pieces_is_reordered() -> None:
    graph = Graph()
    x = graph.add_input("x", image(3))
    known = graph.add_constant(np.ones((1, 16, 4, 4), np.float32), "known")
    joined = graph.add("Concat", [conv(graph, x, 16), known], {"axis": 1}, types=[image(32)]).output
    graph.set_outputs([conv(graph, joined, 16)])
    assign_layouts(graph, 16)
    verify(graph)
    assert joined.producer is not None
    assert {value.layout for value in joined.producer.inputs if value} == {joined.layout}


def test_concat_of_broken_blocks_is_plain() -> None:
    graph = Graph()
    x = graph.add_input("x", image(3))
    joined = graph.add(
        "Concat", [conv(graph, x, 8), conv(graph, x, 16)], {"axis": 1}, types=[image(24)]
    ).output
    graph.set_outputs([conv(graph, joined, 16)])
    assign_layouts(graph, 16)
    assert joined.layout == ""


def test_a_graph_without_convolutions_is_left_alone() -> None:
    graph = Graph()
    graph.set_outputs([unary(graph, "Relu", graph.add_input("x", image(16)))])
    assert not assign_layouts(graph, 16)


EDGES = st.lists(
    st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(0, 9)), min_size=1, max_size=14
)


@given(EDGES)
def test_the_cut_is_as_cheap_as_the_best_of_all_choices(edges: list[tuple[int, int, int]]) -> None:
    network = MinCut()
    for _ in range(5):
        network.vertex()
    for start, end, price in edges:
        network.edge(start, end, price)

    def cost(side: set[int]) -> int:
        return sum(price for a, b, price in edges if a in side and b not in side)

    found = network.source_side()
    sides = [{SOURCE} | {v for v in range(2, 7) if bits >> v & 1} for bits in range(0, 128, 4)]
    assert SOURCE in found
    assert SINK not in found
    assert cost(found) == min(cost(side) for side in sides)


def test_sizes_that_divide_by_nothing_for_one_guess_are_weighed_by_another() -> None:
    graph, length = Graph(), Sym("length")
    x = graph.add_input("x", TensorType(DType.F32, (4096 // ((length - 40) // 320 + 1) + 2,)))
    assert weight(x) >= 4
    y = graph.add_input("y", TensorType(DType.F32, (length // ((length - 40) // 320),)))
    assert weight(y) >= 4
