"""com.microsoft: the standard's operators under their first name."""

from __future__ import annotations

import numpy as np

from tuili.importers.onnx.call import Call, Converter, Results
from tuili.ir import Value
from tuili.tensors import DType


def _renamed(op: str) -> Converter:
    """The same operator in the standard."""

    def convert(call: Call) -> None:
        call.op = op

    return convert


def _expand_dims(call: Call) -> Results:
    axis = call.add("Cast", [call.input(1)], {"to": DType.I64})
    return call.finish("Unsqueeze", [call.input(0), call.add("Reshape", [axis, _vector(call)])])


def _pad(call: Call) -> None:
    """Its pads may be a matrix of one row, and its value a vector of one element."""
    call.op = "Pad"
    call.set_input(1, call.add("Reshape", [call.input(1), _vector(call)]))


def _vector(call: Call) -> Value:
    return call.ints([-1], "vector")


def _range(call: Call) -> Results | None:
    """Its step may be left out; its operands may be vectors of one element."""
    step = call.given(2)
    if step is None:
        first = call.tensor(call.input(0))
        if first is None:
            return None
        step = call.constant(np.array(1, first.dtype.numpy), "step")
    call.op = "Range"
    call.set_input(2, step)
    return None


def _grid_sample(call: Call) -> None:
    call.op = "GridSample"
    mode = str(call.attrs.get("mode", "bilinear"))
    call.attrs["mode"] = {"bilinear": "linear", "bicubic": "cubic"}.get(mode, mode)


def _embedding(call: Call) -> Results:
    return call.finish("Gather", call.inputs[:2])


RENAMED: dict[str, Converter] = {
    "com.microsoft::ExpandDims": _expand_dims,
    "com.microsoft::GatherND": _renamed("GatherND"),
    "com.microsoft::GridSample": _grid_sample,
    "com.microsoft::Pad": _pad,
    "com.microsoft::Range": _range,
    "com.microsoft::TorchEmbedding": _embedding,
    "com.microsoft::Trilu": _renamed("Trilu"),
}
