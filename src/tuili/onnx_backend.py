"""The ONNX backend interface: `onnx.backend.test` and the public scoreboard run tuili through it.

Models whose values are all tensors of numbers are compiled. The others (text, sequences,
optionals, maps between nodes) are run by the interpreter; `is_native` says which.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto
from onnx.backend.base import Backend, BackendRep

from tuili.compiler import compile as compile_model
from tuili.host import HostSteps
from tuili.importers.onnx import import_model
from tuili.ir import Graph, TensorType, ValueType
from tuili.ops.infer import infer
from tuili.ops.interpret import run
from tuili.runtime import load
from tuili.tensors import DType

LAST: dict[str, str] = {}  # how the model prepared last is run; for reports


class TuiliRep(BackendRep):
    """A model ready to run."""

    def __init__(self, model: ModelProto) -> None:
        graph = import_model(model)
        infer(graph)
        self.names = [value.name for value in graph.inputs]
        self.is_native = is_compilable(graph)
        self._graph = graph
        self._scratch = tempfile.TemporaryDirectory(prefix="tuili-backend-")
        LAST["how"] = "interpreted"
        if self.is_native:
            path = Path(self._scratch.name) / "model.tuili"
            # The compiler changes the graph that it is given: it gets one of its own.
            artifact = compile_model(import_model(model), path)
            self.host_steps = list(artifact.manifest.host_steps)
            self._model = load(artifact.path, host=HostSteps)
            LAST["how"] = "partly native" if self.host_steps else "native"

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        """The outputs, in order, for inputs in order or by name."""
        feeds = (
            inputs if isinstance(inputs, Mapping) else dict(zip(self.names, inputs, strict=False))
        )
        if not self.is_native:
            return tuple(run(self._graph, feeds).values())
        arrays = {name: np.asarray(array) for name, array in feeds.items()}
        return tuple(self._model.run(arrays).values())


def is_compilable(graph: Graph) -> bool:
    """Whether every value is a tensor of numbers whose rank is known."""
    values = [value for inner in _graphs(graph) for value in inner.defined()]
    return all(_is_numeric(value.type) for value in values)


def _graphs(graph: Graph) -> list[Graph]:
    nested = [inner for node in graph.nodes for inner in node.graphs()]
    return [graph, *(deep for inner in nested for deep in _graphs(inner))]


def _is_numeric(type_: ValueType | None) -> bool:
    if not isinstance(type_, TensorType) or type_.shape is None:
        return False
    return type_.dtype is not DType.STR


class TuiliBackend(Backend):
    """`onnx.backend.base.Backend` over tuili's compiler, for the CPU."""

    @classmethod
    def prepare(cls, model: ModelProto, device: str = "CPU", **kwargs: Any) -> TuiliRep:  # noqa: ARG003
        """Import and compile a model."""
        return TuiliRep(model)

    @classmethod
    def run_model(
        cls, model: ModelProto, inputs: Any, device: str = "CPU", **kwargs: Any
    ) -> tuple[Any, ...]:
        """Prepare and run in one step."""
        return cls.prepare(model, device, **kwargs).run(inputs)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """Only the CPU."""
        return device == "CPU"


prepare = TuiliBackend.prepare
run_model = TuiliBackend.run_model
supports_device = TuiliBackend.supports_device
