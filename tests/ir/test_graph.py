"""Graph edits keep uses right, and unsafe edits are refused."""

from __future__ import annotations

import numpy as np
import pytest

from tuili.errors import InternalError, InvalidModel
from tuili.ir import Graph, TensorType, verify
from tuili.tensors import DType

F32 = TensorType(DType.F32, (2,))


def chain() -> Graph:
    graph = Graph("chain")
    x = graph.add_input("x", F32)
    a = graph.add("Relu", [x], outputs=["a"], types=[F32]).output
    b = graph.add("Neg", [a], outputs=["b"], types=[F32]).output
    graph.set_outputs([b])
    return graph


def test_replacing_uses_rewires_readers_and_outputs() -> None:
    graph = chain()
    relu, neg = graph.nodes
    graph.replace_uses(neg.output, relu.output)
    assert graph.outputs == (relu.output,)
    graph.remove(neg)
    verify(graph)
    assert [node.op for node in graph.nodes] == ["Relu"]


def test_a_node_that_is_read_cannot_be_removed() -> None:
    graph = chain()
    with pytest.raises(InternalError, match="cannot remove Relu node 'a': 'a' is read by"):
        graph.remove(graph.nodes[0])


def test_a_constant_that_is_read_cannot_be_removed() -> None:
    graph = chain()
    one = graph.add_constant(np.ones(2, np.float32), "one")
    graph.nodes[0].set_input(0, one)
    with pytest.raises(InternalError, match="cannot remove constant 'one'"):
        graph.remove_constant(one)


def test_names_are_made_unique() -> None:
    graph = chain()
    assert graph.add_constant(np.ones(1), "a").name == "a_1"
    assert graph.add_constant(np.ones(1), "a").name == "a_2"


def test_a_nested_graph_lists_what_it_captures() -> None:
    graph = chain()
    body = Graph("body")
    body.set_outputs([body.add("Abs", [graph.inputs[0]], outputs=["inner"]).output])
    graph.add("If", [graph.outputs[0]], {"then_branch": body}, outputs=["c"])
    assert body.captured() == [graph.inputs[0]]
    verify(graph)


def test_sorting_puts_definitions_before_uses() -> None:
    graph = chain()
    graph.nodes.reverse()
    with pytest.raises(InternalError, match="before it is defined"):
        verify(graph)
    graph.sort()
    verify(graph, after="sort")


def test_a_cycle_is_named() -> None:
    graph = chain()
    relu, neg = graph.nodes
    relu.set_input(0, neg.output)
    with pytest.raises(InvalidModel, match="has a cycle through Relu node 'a', Neg node 'b'"):
        graph.sort()


def test_the_verifier_names_the_pass_and_the_broken_use() -> None:
    graph = chain()
    graph.inputs[0].uses.clear()
    with pytest.raises(InternalError, match="after pass 'fold'.*'x' does not list its use by Relu"):
        verify(graph, after="fold")


def test_a_missing_required_input_names_the_node() -> None:
    graph = Graph()
    node = graph.add("Relu", [], outputs=["r"])
    with pytest.raises(InvalidModel, match="Relu node 'r': input 0 is missing"):
        node.required(0)
