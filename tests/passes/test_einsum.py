"""Einsum in other words: every equation has its NumPy meaning, and no Einsum is left."""

from __future__ import annotations

import numpy as np
import pytest

from tests.passes.support import feeds
from tuili.ir import Graph, TensorType, verify
from tuili.ops.infer import infer
from tuili.ops.interpret import run
from tuili.passes.einsum import einsum_to_matmul
from tuili.tensors import DType, Sym

EQUATIONS = (
    "ij,jk->ik", "ij,jk", "bij,bjk->bik", "bnid,bijd->bnij", "ibnd,jbnd->bnij", "bhid,bhjd->bhij",
    "i,j->ij", "i,i->", "ij->ji", "ij->i", "bij->", "bij,bij->bi", "ijk,kl,lm->ijm", "abc,cd->abd",
    "bqc,bchw->bqhw", "ij,kl->ijkl", "...ij,...jk->...ik", "...i,i->...", "b...i,ij->b...j",
    "ab,bc,ab->c",
)  # fmt: skip
SIZES = dict(zip("abcdhijklmnqw", (2, 3, 4, 5, 6, 3, 4, 5, 2, 3, 2, 3, 4), strict=True))


def graph_of(equation: str) -> Graph:
    graph = Graph()
    terms = equation.partition("->")[0].split(",")
    for index, term in enumerate(terms):
        shape = [2, 3] * ("..." in term) + [SIZES[letter] for letter in term if letter != "."]
        if term.startswith("b..."):
            shape = [SIZES["b"], 2, 3, *shape[3:]]
        graph.add_input(f"x{index}", TensorType(DType.F32, tuple(shape)))
    node = graph.add("Einsum", graph.inputs, {"equation": equation}, outputs=["y"])
    graph.set_outputs([node.output])
    return graph


@pytest.mark.parametrize("equation", EQUATIONS)
def test_an_einsum_becomes_products_and_sums(equation: str):
    graph = graph_of(equation)
    infer(graph)
    given = feeds(graph)
    before = run(graph, given)["y"]
    assert einsum_to_matmul(graph)
    verify(graph)
    infer(graph)
    assert "Einsum" not in {node.op for node in graph.nodes}
    np.testing.assert_allclose(run(graph, given)["y"], before, rtol=1e-5, atol=1e-5)


def open_graph(equation: str, dtype: DType = DType.F32) -> Graph:
    """Every axis of every input has an open dim of its own name."""
    graph = Graph()
    for index, term in enumerate(equation.partition("->")[0].split(",")):
        dims = tuple(Sym(f"{letter}{index}") for letter in term)
        graph.add_input(f"x{index}", TensorType(dtype, dims))
    node = graph.add("Einsum", graph.inputs, {"equation": equation}, outputs=["y"])
    graph.set_outputs([node.output])
    return graph


@pytest.mark.parametrize("equation", [each for each in EQUATIONS if "." not in each])
def test_sizes_of_a_letter_are_one_whatever_their_names(equation: str):
    graph = open_graph(equation)
    infer(graph)
    shape = graph.outputs[0].type
    given = feeds(graph_of(equation))
    before = run(graph, given)["y"]
    assert einsum_to_matmul(graph)
    infer(graph)
    assert graph.outputs[0].type == shape
    assert "Einsum" not in {node.op for node in graph.nodes}
    np.testing.assert_allclose(run(graph, given)["y"], before, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [DType.F64, DType.F16])
def test_other_floats_become_products_of_their_own_type(dtype: DType):
    graph = open_graph("bij,bjk->bik", dtype)
    infer(graph)
    assert einsum_to_matmul(graph)
    infer(graph)
    assert {node.output.dtype for node in graph.nodes if node.op == "MatMul"} == {dtype}


@pytest.mark.parametrize("equation", ["ii->i", "iij->j"])
def test_a_diagonal_stays(equation: str):
    graph = graph_of(equation)
    infer(graph)
    assert not einsum_to_matmul(graph)
