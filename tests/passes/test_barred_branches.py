"""A branch of If that cannot run for the given shapes fails the run that takes it."""

from __future__ import annotations

import numpy as np
import pytest

from tuili.errors import InvalidModel
from tuili.ir import Graph, TensorType, verify
from tuili.ops.infer import infer
from tuili.ops.interpret import run
from tuili.passes.branches import inline_branches
from tuili.tensors import DType


def test_it_becomes_a_fault() -> None:
    graph = Graph()
    x = graph.add_input("x", TensorType(DType.F32, (2, 4)))
    flag = graph.add_input("flag", TensorType(DType.BOOL, ()))
    then, other = Graph("then"), Graph("other")
    axes = then.add_constant(np.array([1]), "axes")
    then.set_outputs(then.add("Squeeze", [x, axes], outputs=["less"]).outputs)
    other.set_outputs(other.add("Identity", [x], outputs=["same"]).outputs)
    branches = {"then_branch": then, "else_branch": other}
    graph.set_outputs(graph.add("If", [flag], branches, outputs=["y"]).outputs)
    assert inline_branches(graph, infer(graph))
    verify(graph)
    assert infer(graph).impossible == {}
    assert [node.op for node in graph.walk()] == ["If", "Fault", "Identity"]
    image = np.ones((2, 4), np.float32)
    np.testing.assert_array_equal(run(graph, {"x": image, "flag": np.array(False)})["y"], image)
    with pytest.raises(InvalidModel, match="its size must be 1: 4 against 1"):
        run(graph, {"x": image, "flag": np.array(True)})
