"""Products whose sums become a logarithm are not rounded; what other functions hide is."""

from __future__ import annotations

import numpy as np
import pytest

from tuili.codegen.kernels.rounding import becomes_logarithm
from tuili.codegen.targets import find_target
from tuili.codegen.translate import translate
from tuili.ir import Graph, TensorType
from tuili.ops.infer import infer
from tuili.passes.pipeline import optimise
from tuili.tensors import DType

PATHS = {
    "alone": (["Log"], True),
    "a spectrum": (["Abs", "Sqrt", "MatMul", "Log"], True),
    "bounded": (["Abs", "Clip", "Transpose", "Log"], True),
    "no logarithm": (["Abs", "Sqrt", "Relu"], False),
    "behind an activation": (["Relu", "MatMul", "Log"], False),
    "Softplus in parts": (["Exp", "Log"], False),
    "probabilities": (["Softmax", "Log"], False),
}


def _graph(path: list[str]) -> Graph:
    graph, rng = Graph("path"), np.random.default_rng(0)
    weights = graph.add_constant(rng.random((64, 64)).astype(np.float32))
    x = graph.add_input("x", TensorType(DType.F32, (8, 64)))
    value = graph.add("MatMul", [x, weights]).output
    for op in path:
        operands = [value, weights] if op == "MatMul" else [value]
        value = graph.add(op, operands, {"perm": [0, 1]} if op == "Transpose" else {}).output
    graph.set_outputs([value])
    infer(graph)
    return graph


@pytest.mark.parametrize("name", PATHS)
def test_a_logarithm_is_seen_through_what_keeps_small_numbers(name: str) -> None:
    path, expected = PATHS[name]
    assert becomes_logarithm(_graph(path).nodes[0]) == expected


@pytest.mark.parametrize("target", ["x86-64-avx512-bf16", "x86-64-amx", "x86-64-avx2"])
@pytest.mark.parametrize("name", ["a spectrum", "behind an activation"])
def test_also_where_it_is_part_of_a_fused_node(name: str, target: str) -> None:
    path, is_exact = PATHS[name]
    graph, row = _graph([*path, "Neg"]), find_target(target)
    optimise(graph, block=row.block, on_pass=lambda name, graph: None)
    program = translate(graph, infer(graph), row, bf16=True)
    products = [family for label, (family, _) in program.families.items() if "MatMul" in label]
    first = "matmul_packed" if is_exact or target == "x86-64-avx2" else "matmul_bf16"
    assert products == [first, "matmul_packed"]
