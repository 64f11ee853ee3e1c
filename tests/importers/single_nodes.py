"""Single nodes as data: models of one or many side by side, what they mean, how they compile."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tests.ops.from_onnx import graph_of
from tuili import compile as compile_model
from tuili import load
from tuili.ir import Graph
from tuili.ops.infer import infer
from tuili.ops.interpret import run
from tuili.tensors import Array


class Case(NamedTuple):
    """A node; inputs that `fed` does not describe are weights.

    `fed` has the dims of an input by its slot: a name for an open one, `_` for a known one.
    """

    op: str
    inputs: list[Any]
    fed: dict[int, str]
    attrs: Mapping[str, Any] = MappingProxyType({})
    outputs: str = "y"
    tolerance: float = 1e-4
    domain: str = "com.microsoft"


def model_of(
    cases: Mapping[str, Case], *, is_open: bool = False, opset: int = 17
) -> onnx.ModelProto:
    """The nodes of the cases side by side; names of values start with the case's."""
    nodes, fed, held, results = [], [], [], []
    for prefix, case in cases.items():
        names = ["" if item is None else f"{prefix}.{k}" for k, item in enumerate(case.inputs)]
        outputs = ["" if name == "-" else f"{prefix}.{name}" for name in case.outputs.split()]
        nodes.append(
            helper.make_node(case.op, names, outputs, prefix, domain=case.domain, **case.attrs)
        )
        for slot, (name, item) in enumerate(zip(names, case.inputs, strict=True)):
            if slot not in case.fed:
                held += [numpy_helper.from_array(item, name)] if name else []
                continue
            dims = zip(case.fed[slot].split(), item.shape, strict=True)
            shape = [size if dim == "_" or not is_open else f"{dim}{size}" for dim, size in dims]
            kind = helper.np_dtype_to_tensor_dtype(item.dtype)
            fed.append(helper.make_tensor_value_info(name, kind, shape))
        results += [onnx.ValueInfoProto(name=name) for name in outputs if name]
    graph = helper.make_graph(nodes, "g", fed, results, held)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def feeds_of(prefix: str, case: Case) -> dict[str, Array]:
    return {f"{prefix}.{slot}": case.inputs[slot] for slot in case.fed}


def assert_close(found: Array, wanted: Array, case: Case) -> None:
    assert (found.shape, found.dtype) == (wanted.shape, wanted.dtype)
    np.testing.assert_allclose(
        found.astype(float), wanted.astype(float), rtol=case.tolerance, atol=case.tolerance
    )


def meaning(proto: onnx.ModelProto, feeds: dict[str, Array]) -> tuple[Graph, list[Array]]:
    """The node as it stands, by the table of operators."""
    graph = graph_of(proto)
    infer(graph)
    results = run(graph, feeds)
    return graph, [results[value.name] for value in graph.outputs]


def assert_native(
    cases: Mapping[str, Case], folder: Path, *, is_open: bool, opset: int = 17
) -> None:
    """All nodes in one program: each call of the C compiler costs more than its node."""
    proto = model_of(cases, is_open=is_open, opset=opset)
    artifact = compile_model(proto, folder / "m.tuili")
    assert artifact.manifest.host_steps == []
    feeds = {
        key: item for name, case in cases.items() for key, item in feeds_of(name, case).items()
    }
    found = load(artifact.path).run(feeds)
    for name, case in cases.items():
        alone = model_of({name: case}, opset=opset)
        expected = meaning(alone, feeds_of(name, case))[1]
        for info, wanted in zip(alone.graph.output, expected, strict=True):
            assert_close(found[info.name], wanted, case)
