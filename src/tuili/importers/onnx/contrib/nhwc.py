"""com.microsoft: operators with the channels last, as ONNX Runtime's NHWC transformer writes them.

Each becomes the operator of the standard between two transpositions; those between two such
operators cancel each other (`passes/movement.py`).
"""

from __future__ import annotations

from collections.abc import Sequence

from tuili.importers.onnx.call import Call, Converter, Results
from tuili.importers.onnx.contrib.elementwise import activation
from tuili.ir import Value


def to_front(call: Call, value: Value, rank: int) -> Value:
    """[N, ..., C] as [N, C, ...]."""
    return call.add("Transpose", [value], {"perm": (0, rank - 1, *range(1, rank - 1))})


def finish_at_back(call: Call, value: Value, rank: int) -> Results:
    """[N, C, ...] as [N, ..., C], the node's result."""
    return call.finish("Transpose", [value], {"perm": (0, *range(2, rank), 1)})


def _conv(call: Call) -> Results | None:
    """From the optimiser for Stable Diffusion: weights are [M, ..., C / group]."""
    shape = call.shape(call.input(1))
    if shape is None:
        return None
    rank = len(shape)
    operands = [to_front(call, call.input(at), rank) for at in (0, 1)]
    made = call.add("Conv", [*operands, call.given(2)], call.attrs)
    return finish_at_back(call, made, rank)


def _fused_conv(call: Call) -> Results | None:
    """From the NHWC transformer of a session: weights are [M, C / group, ...]."""
    shape = call.shape(call.input(1))
    if shape is None:
        return None
    rank = len(shape)
    name, parameters = str(call.take("activation", "")), call.take("activation_params", ())
    operands = [to_front(call, call.input(0), rank), *call.inputs[1:3]]
    made = call.add("Conv", operands, call.attrs)
    if call.given(3) is not None:
        made = call.add("Add", [made, to_front(call, call.input(3), rank)])
    return finish_at_back(call, call.add(*activation(call, made, name, parameters)), rank)


def _max_pool(call: Call) -> Results:
    kernel: Sequence[int] = call.take("kernel_shape", ())
    rank = len(kernel) + 2
    attrs = {**call.attrs, "kernel_shape": tuple(kernel)}
    made = call.add("MaxPool", [to_front(call, call.input(0), rank)], attrs)
    return finish_at_back(call, made, rank)


def _last(slot: int) -> Converter:
    """An operator on codes that may have its channels last; input `slot` has its rank."""

    def convert(call: Call) -> Results | None:
        shape = call.shape(call.input(slot)) if call.attrs.get("channels_last") else None
        if shape is None:
            return None
        call.drop("channels_last")
        x = to_front(call, call.input(0), len(shape))
        made = call.add(call.op, [x, *call.inputs[1:]], call.attrs)
        return finish_at_back(call, made, len(shape))

    return convert


NHWC: dict[str, Converter] = {
    "com.microsoft::NhwcConv": _conv,
    "com.microsoft::NhwcFusedConv": _fused_conv,
    "com.microsoft::NhwcMaxPool": _max_pool,
    "com.microsoft::QLinearAveragePool": _last(0),
    "com.microsoft::QLinearConv": _last(3),
    "com.microsoft::QLinearGlobalAveragePool": _last(0),
}
