"""com.microsoft: normalisations with the skips, biases, gates and activations around them."""

from __future__ import annotations

from tuili.importers.onnx.call import Call, Converter, Results
from tuili.importers.onnx.contrib.nhwc import finish_at_back, to_front
from tuili.ir import Value
from tuili.tensors import DType

_TINY = 1e-12

# -- over the last axis --------------------------------------------------------------------


def _skip_layer_norm(call: Call) -> Results | None:
    total = call.plus(call.add("Add", call.inputs[:2]), 4)
    return _normalised(call, "LayerNormalization", [total, *call.inputs[2:4]])


def _skip_rms_norm(call: Call) -> Results | None:
    total = call.plus(call.add("Add", call.inputs[:2]), 3)
    return _normalised(call, "RMSNormalization", [total, call.input(2)])


def _normalised(call: Call, op: str, operands: list[Value | None]) -> Results | None:
    """The norm of a sum; the fourth output is the sum. Statistics have no other name."""
    if any(call.outputs[1:3]):
        return None
    results = call.finish(op, operands, {"axis": -1, "epsilon": call.take("epsilon", _TINY)})
    total = call.graph.nodes[-1].required(0)
    return [results[0], total, total, total][: len(call.outputs)]


def _rms_norm(call: Call) -> Results | None:
    if any(call.outputs[1:]):
        return None
    call.drop("stash_type")
    return call.finish("RMSNormalization", call.inputs[:2], call.attrs)


def _gated_rms_norm(call: Call) -> Results | None:
    """Rows as long as the scale, of which the last axis may hold several."""
    x, scale = call.shape(call.input(0)), call.shape(call.input(1))
    if x is None or scale is None or not isinstance(scale[0], int):
        return None
    rows = call.input(0)
    whole = x[-1] == scale[0]
    if not whole:
        rows = call.add("Reshape", [rows, call.ints([-1, scale[0]], "rows")])
    attrs = {"axis": -1, "epsilon": call.take("epsilon", 1e-5)}
    normal = call.add("RMSNormalization", [rows, call.input(1)], attrs)
    if not whole:
        normal = call.add("Reshape", [normal, call.add("Shape", call.inputs[:1])])
    gate = "Sigmoid" if call.take("activation", "silu") == "sigmoid" else "Swish"
    return call.finish("Mul", [normal, call.add(gate, [call.input(2)])])


# -- over groups of channels ---------------------------------------------------------------


def _group_norm(call: Call) -> Results | None:
    shape = call.shape(call.input(0))
    if shape is None:
        return None
    last = bool(call.take("channels_last", 1))
    return _grouped(call, call.input(0), len(shape), last=last)


def _grouped(call: Call, x: Value, rank: int, *, last: bool) -> Results:
    """GroupNormalization in f32, as scale and bias are, and a Swish where one is asked for."""
    types = [call.tensor(value) for value in (x, call.input(1))]
    narrow = types[0].dtype if types[0] and types[1] and types[0].dtype != types[1].dtype else None
    x = to_front(call, x, rank) if last else x
    if narrow is not None:
        x = call.add("Cast", [x], {"to": DType.F32})
    attrs = {"num_groups": call.take("groups", 1), "epsilon": call.take("epsilon", 1e-5)}
    made = call.add("GroupNormalization", [x, call.input(1), call.input(2)], attrs)
    if call.take("activation", 0):
        made = call.add("Swish", [made])
    if narrow is not None:
        made = call.add("Cast", [made], {"to": narrow})
    return finish_at_back(call, made, rank) if last else call.finish("Identity", [made])


def _skip_group_norm(call: Call) -> Results | None:
    """The skip is [N, C, ...], [N, ..., C] or one number for each channel."""
    shapes = [call.shape(call.input(index)) for index in (0, 3)]
    x, skip = shapes
    if x is None or skip is None or len(x) != 4:
        return None
    last, term = bool(call.attrs.get("channels_last", 1)), call.input(3)
    if not last and len(skip) == 4:
        if not all(isinstance(dim, int) for dim in (x[1], x[-1], skip[-1])):
            return None
        if skip[-1] == x[1] != x[-1]:
            term = to_front(call, term, 4)
    if len(skip) == 2:
        term = call.add("Unsqueeze", [term, call.ints((1, 2) if last else (2, 3), "axes")])
    call.drop("channels_last")
    total, bias = call.add("Add", [call.input(0), term]), call.given(4)
    if bias is not None and not last:
        bias = call.add("Unsqueeze", [bias, call.ints((1, 2), "places")])
    if bias is not None:
        total = call.add("Add", [total, bias])
    return [*_grouped(call, total, 4, last=last), total][: len(call.outputs)]


NORMS: dict[str, Converter] = {
    "com.microsoft::GatedRMSNorm": _gated_rms_norm,
    "com.microsoft::GroupNorm": _group_norm,
    "com.microsoft::SkipGroupNorm": _skip_group_norm,
    "com.microsoft::SkipLayerNormalization": _skip_layer_norm,
    "com.microsoft::SkipSimplifiedLayerNormalization": _skip_rms_norm,
    # Written into the standard's domain, where it does not exist.
    "SimplifiedLayerNormalization": _rms_norm,
}
