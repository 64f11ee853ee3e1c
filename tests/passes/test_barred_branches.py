"""A branch of If that cannot run for the given shapes fails the run that takes it."""

from __future__ import annotations

import numpy as np
import pytest

from tuili.errors import InvalidModel
from tuili.ir import Graph, TensorType, verify
from tuili.ops.infer import infer
from tuili.ops.interpret import run
from tuili.passes.branches import inline_branches
from tuili.passes.quantized.recognise import recognise_quantized
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


def test_one_that_a_constant_decides_against_has_no_types_and_is_in_nobodys_way() -> None:
    graph = Graph()
    x = graph.add_input("x", TensorType(DType.I64, ()))
    z = graph.add_input("z", TensorType(DType.F32, (4,)))
    then, other = Graph("then"), Graph("other")
    then.set_outputs(then.add("Neg", [x], outputs=["less"]).outputs)
    cast = other.add("Cast", [x], {"to": DType.F32}, outputs=["real"])
    other.set_outputs(other.add("Cast", [cast.output], {"to": DType.I64}, outputs=["same"]).outputs)
    branches = {"then_branch": then, "else_branch": other}
    yes = graph.add_constant(np.array(True), "yes")
    taken = graph.add("If", [yes], branches, outputs=["y"])
    codes = graph.add("QuantizeLinear", [z, graph.add_constant(np.float32(1), "scale")])
    graph.set_outputs([taken.output, codes.output])
    infer(graph)
    assert cast.output.type is None
    assert not recognise_quantized(graph)
