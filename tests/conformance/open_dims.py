"""The backend suite with every dim of every input open: nothing is known until the run."""

from __future__ import annotations

from typing import Any

from onnx import ModelProto, TypeProto

from tuili.onnx_backend import TuiliBackend, TuiliRep


class OpenBackend(TuiliBackend):
    """Compiles models that have lost the sizes of their inputs and the shapes of their outputs."""

    @classmethod
    def prepare(cls, model: ModelProto, device: str = "CPU", **kwargs: Any) -> TuiliRep:
        """Import and compile the opened model."""
        return TuiliRep(opened(model))


def opened(model: ModelProto) -> ModelProto:
    """A copy whose inputs have a symbol for every dim, and whose outputs have no shape."""
    result = ModelProto()
    result.CopyFrom(model)
    held = {tensor.name for tensor in result.graph.initializer}
    for index, value in enumerate(result.graph.input):
        if value.name not in held:
            _open(value.type, f"in{index}")
    for value in result.graph.output:
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")
    del result.graph.value_info[:]
    return result


def _open(type_: TypeProto, name: str) -> None:
    if type_.HasField("tensor_type"):
        for axis, dim in enumerate(type_.tensor_type.shape.dim):
            dim.dim_param = f"{name}_{axis}"
