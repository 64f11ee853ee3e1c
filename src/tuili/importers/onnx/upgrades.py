"""Converters from old operator sets to the newest signatures, as one table.

A row `(until, converter)` applies to models of operator sets before `until`. A converter changes
the call in place, or returns the values of its outputs when it has built them itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from onnx import TensorProto

from tuili.importers.onnx.call import Call
from tuili.importers.onnx.contrib import CONTRIB
from tuili.importers.onnx.early import EARLY
from tuili.importers.onnx.tensors import dtype_of
from tuili.ir import Attr, Graph, TensorType, Value
from tuili.ops.table import TABLE, find
from tuili.ops.verify import check_form
from tuili.tensors import DType

Converter: TypeAlias = "Callable[[Call], Sequence[Value] | None]"
ALWAYS = 10**9


def is_known(op: str) -> bool:
    """Whether an operator has a row in the operator table, or becomes one that has."""
    return any(op in table for table in (TABLE, CONTRIB, EARLY, TABLE_OF_UPGRADES)) or bool(
        find(op)
    )


def upgrade(call: Call) -> Sequence[Value] | None:
    """Bring a call to the newest signature; the outputs' values when they are already built."""
    if call.opset < 7:
        call.drop("consumed_inputs")
    if call.op in CONTRIB:
        row = find(call.op)  # no schema has checked it
        if row is not None:
            check_form(call, row)
        return CONTRIB[call.op](call)
    if call.op in EARLY:
        return EARLY[call.op](call)
    for until, convert in TABLE_OF_UPGRADES.get(call.op, ()):
        if call.opset < until:
            results = convert(call)
            if results is not None:
                return results
    return None


# -- attributes that became inputs ---------------------------------------------------------


def _to_input(name: str, index: int) -> Converter:
    """A list of integers that moves from an attribute to an input."""

    def convert(call: Call) -> None:
        numbers = call.take(name)
        if numbers is not None:
            listed = numbers if isinstance(numbers, tuple) else (numbers,)
            call.set_input(index, call.ints(listed, name))

    return convert


def _clip(call: Call) -> None:
    for index, name in enumerate(("min", "max"), 1):
        bound = call.take(name)
        if bound is not None:
            call.set_input(index, call.number(bound, name))


def _pad(call: Call) -> None:
    pads = call.take("pads", call.take("paddings"))
    call.set_input(1, call.ints(pads or (), "pads"))
    value = call.take("value", 0.0)
    if value:
        call.set_input(2, call.number(value, "value"))


def _slice(call: Call) -> None:
    for index, name in enumerate(("starts", "ends", "axes"), 1):
        _to_input(name, index)(call)


def _split(call: Call) -> None:
    if call.opset < 2 and len(call.inputs) > 1:
        # The lengths had the element type of the data.
        call.set_input(1, call.add("Cast", [call.input(1)], {"to": DType.I64}))
    _to_input("split", 1)(call)
    if len(call.inputs) < 2:
        call.attrs["num_outputs"] = len(call.outputs)


def _upsample(call: Call) -> None:
    scales = call.take("scales")
    if scales is None and "height_scale" in call.attrs:
        scales = (1.0, 1.0, call.take("height_scale"), call.take("width_scale"))
    if scales is not None:
        call.set_input(1, call.constant(np.array(scales, np.float32), "scales"))
    _resize_10(call)


def _resize_10(call: Call) -> None:
    """Nearest took the element before the place, or the one after it where the size shrinks."""
    scales = call.input(1).constant
    shrinks = scales is not None and scales.min(initial=1) < 1 and scales.max(initial=1) <= 1
    call.op = "Resize"
    call.inputs = [call.input(0), None, call.input(1)]
    mode = call.take("mode", "nearest")
    call.attrs |= {
        "mode": "linear" if mode == "bilinear" else mode,
        "coordinate_transformation_mode": "asymmetric",
        "nearest_mode": "ceil" if shrinks else "floor",
    }


def _resize_empty(call: Call) -> None:
    # Exporters pass empty tensors for the inputs that they leave out.
    for index, value in enumerate(call.inputs[1:], 1):
        if value is not None and value.constant is not None and value.constant.size == 0:
            call.inputs[index] = None


def _dft(call: Call) -> None:
    call.set_input(2, call.constant(np.array(call.take("axis", 1), np.int64), "axis"))


# -- old rules of broadcasting -------------------------------------------------------------


def _broadcast(call: Call) -> None:
    """Before operator set 7, `axis` said where the second operand's axes belong."""
    axis = call.take("axis")
    if not call.take("broadcast", 0) or axis is None:
        return
    left, right = call.rank(0), call.rank(1)
    missing = left - axis % left - right
    if missing > 0:
        axes = call.ints(range(right, right + missing), "axes")
        call.set_input(1, call.add("Unsqueeze", [call.input(1), axes]))


def _prelu(call: Call) -> None:
    extra = call.rank(0) - 2
    if extra > 0 and call.rank(1) == 1:
        axes = call.ints(range(1, 1 + extra), "axes")
        call.set_input(1, call.add("Unsqueeze", [call.input(1), axes]))


# -- changed meanings ----------------------------------------------------------------------


def _softmax(call: Call) -> Sequence[Value] | None:
    """Before operator set 13 it worked on all axes from `axis` on, as one."""
    axis = call.take("axis", 1)
    rank = call.rank(0)
    if axis in (-1, rank - 1):
        call.attrs["axis"] = -1
        return None
    flat = call.add("Flatten", call.inputs[:1], {"axis": axis})
    soft = call.add(call.op, [flat], {"axis": -1})
    shape = call.add("Shape", call.inputs[:1])
    result = call.graph.add("Reshape", [soft, shape], outputs=call.outputs, name=call.name)
    return result.outputs


def _batch_norm(call: Call) -> Sequence[Value] | None:
    call.drop("is_test", "momentum")
    # More outputs than one came from exporting in training mode by mistake.
    del call.outputs[1:]
    if call.take("spatial", 1):
        return None
    x, scale, bias, mean, variance = (call.input(index) for index in range(5))
    epsilon = call.number(call.take("epsilon", 1e-5), "epsilon")
    deviation = call.add("Sqrt", [call.add("Add", [variance, epsilon])])
    scaled = call.add("Mul", [call.add("Div", [call.add("Sub", [x, mean]), deviation]), scale])
    return call.graph.add("Add", [scaled, bias], outputs=call.outputs, name=call.name).outputs


def _dropout(call: Call) -> None:
    call.drop("is_test", "ratio")


def _group_norm(call: Call) -> None:
    """Before operator set 21, scale and bias were for groups; now they are for channels."""
    groups = call.attrs.get("num_groups")
    shape = call.add("Shape", [call.input(0)], {"start": 1, "end": 2})
    each = call.add("Div", [shape, call.ints([int(groups or 1)], "groups")])  # pyright: ignore[reportArgumentType]
    one = call.ints([1], "one")
    for index in (1, 2):
        column = call.add("Unsqueeze", [call.input(index), one])
        wide = call.add("Tile", [column, call.add("Concat", [one, each], {"axis": 0})])
        call.set_input(index, call.add("Reshape", [wide, call.ints([-1], "flat")]))


def _cast(call: Call) -> None:
    to = call.attrs.get("to")
    if isinstance(to, str):
        call.attrs["to"] = dtype_of(TensorProto.DataType.Value(to), call.label)


def _default(name: str, value: Any) -> Converter:
    """An attribute whose default has changed."""

    def convert(call: Call) -> None:
        call.attrs.setdefault(name, value)

    return convert


def _drop(*names: str) -> Converter:
    return lambda call: call.drop(*names)


def _integer(name: str) -> Converter:
    def convert(call: Call) -> None:
        value: Any = call.attrs.get(name, 2)
        call.attrs[name] = int(value)

    return convert


def _loop(call: Call) -> None:
    """The round and the condition come as numbers, to bodies that declare lists of one as lists.

    `torch.tensor_split` of PyTorch's older exporter cuts by what it gathers with such a round.
    """
    body = call.attrs.get("body")
    if not isinstance(body, Graph):
        return
    first = body.nodes[0] if body.nodes else None
    for index, declared in enumerate(body.inputs[:2]):
        if isinstance(declared.type, TensorType) and declared.type.shape == (1,):
            number = body.add_input(f"{declared.name}.number", TensorType(declared.dtype, ()))
            body.inputs[index] = body.inputs.pop()
            one = body.add_constant(np.array([1], np.int64), "one")
            listed = body.add("Reshape", [number, one], types=[declared.type], before=first)
            body.replace_uses(declared, listed.output)


def _scan(call: Call) -> Sequence[Value]:
    """Scan-8 works on batches: a Scan over axis 0, whose body is the Scan of today."""
    if call.inputs[0] is not None:
        call.fail(
            "Scan of operator set 8 with sequence_lens is not supported; export with operator set 9"
            " or newer"
        )
    inputs = call.inputs[1:]
    attrs = {"body": call.attrs["body"], "num_scan_inputs": call.attrs["num_scan_inputs"]}
    if directions := call.take("directions"):
        attrs["scan_input_directions"] = directions
    batch = Graph(f"{call.title}.batch")
    given = [batch.add_input(f"{call.title}.in{index}", None) for index in range(len(inputs))]
    names = [f"{call.title}.out{index}" for index in range(len(call.outputs))]
    batch.set_outputs(batch.add("Scan", given, attrs, outputs=names, name=call.name).outputs)
    outer: dict[str, Attr] = {"body": batch, "num_scan_inputs": len(inputs)}
    return call.graph.add("Scan", inputs, outer, outputs=call.outputs, name=call.name).outputs


_GRID_MODES = {"bilinear": "linear", "bicubic": "cubic"}


def _grid_sample(call: Call) -> None:
    mode = str(call.attrs.get("mode", "bilinear"))
    call.attrs["mode"] = _GRID_MODES.get(mode, mode)


def _renamed(name: str) -> Converter:
    def convert(call: Call) -> None:
        call.op = name

    return convert


def _only_axis(call: Call) -> None:
    """Scales of a constant [1, n] are along n, whatever axis is named.

    The quantizer of onnxruntime says 0 of the biases of scikit-learn's networks, and onnxruntime
    runs the file.
    """
    x, scale = call.given(0), call.given(1)
    if x is None or scale is None or not (x.is_constant and scale.is_constant):
        return
    longer = [axis for axis, size in enumerate(x.shape) if size != 1]
    if len(longer) == 1 and scale.shape == (x.shape[longer[0]],):
        call.attrs["axis"] = longer[0]


_BROADCASTING = ("Add", "Sub", "Mul", "Div", "Pow", "And", "Or", "Xor", "Equal", "Greater", "Less")
_REDUCTIONS = (
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean",
    "ReduceMin", "ReduceProd", "ReduceSumSquare",
)  # fmt: skip

TABLE_OF_UPGRADES: dict[str, tuple[tuple[int, Converter], ...]] = {
    **dict.fromkeys(_BROADCASTING, ((7, _broadcast),)),
    **{op: ((18, _to_input("axes", 1)),) for op in _REDUCTIONS},
    **dict.fromkeys(("Softmax", "LogSoftmax", "Hardmax"), ((13, _softmax),)),
    "ReduceSum": ((13, _to_input("axes", 1)),),
    "Squeeze": ((13, _to_input("axes", 1)),),
    "Unsqueeze": ((13, _to_input("axes", 1)),),
    "BatchNormalization": ((14, _batch_norm),),
    "Cast": ((6, _cast),),
    "Clip": ((11, _clip),),
    "Concat": ((4, _default("axis", 1)),),
    "DFT": ((20, _dft),),
    "DequantizeLinear": ((ALWAYS, _only_axis),),
    "Dropout": ((12, _dropout),),
    "GRU": ((7, _drop("output_sequence")),),
    "Gemm": ((7, _drop("broadcast")),),
    "GlobalLpPool": ((2, _integer("p")),),
    "GridSample": ((20, _grid_sample),),
    "GroupNormalization": ((21, _group_norm),),
    "Loop": ((ALWAYS, _loop),),
    "LSTM": ((7, _drop("output_sequence")),),
    "LpPool": ((2, _integer("p")),),
    "PRelu": ((7, _prelu),),
    "Pad": ((11, _pad),),
    "RNN": ((7, _drop("output_sequence")),),
    "Reshape": ((5, _to_input("shape", 1)),),
    "Resize": ((11, _resize_10), (ALWAYS, _resize_empty)),
    "RoiAlign": ((16, _default("coordinate_transformation_mode", "output_half_pixel")),),
    "Scan": ((9, _scan),),
    "Scatter": ((ALWAYS, _renamed("ScatterElements")),),
    "Selu": ((6, _default("alpha", 1.6732)), (6, _default("gamma", 1.0507))),
    "Slice": ((10, _slice),),
    "Split": ((18, _split),),
    "TopK": ((10, _to_input("k", 1)),),
    "Upsample": ((ALWAYS, _upsample),),
}
