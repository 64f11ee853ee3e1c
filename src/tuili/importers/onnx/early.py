"""Converters of operators that ONNX had before its version 1.5 and does not define any more.

Caffe2, Core ML and PyTorch 0.4 wrote them; ONNX Runtime still reads them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tuili.importers.onnx.call import Call
from tuili.ir import Value
from tuili.tensors import DType

Results = Sequence[Value]


def _scaled(call: Call, value: Value, factor: float, hint: str) -> Value:
    return value if factor == 1 else call.add("Mul", [value, call.number(factor, hint)])


def _affine(call: Call) -> Results:
    product = _scaled(call, call.input(0), call.take("alpha", 1.0), "alpha")
    return call.finish("Add", [product, call.number(call.take("beta", 0.0), "beta")])


def _scale(call: Call) -> Results:
    return call.finish("Mul", [call.input(0), call.number(call.take("scale", 1.0), "scale")])


def _image_scaler(call: Call) -> Results:
    """A factor for all of a picture [N, C, H, W], and a term for each channel."""
    product = _scaled(call, call.input(0), call.take("scale", 1.0), "scale")
    bias = np.array(call.take("bias", (0.0,)), np.float32).reshape(-1, 1, 1)
    return call.finish("Add", [product, call.constant(bias, "bias")])


def _parametric_softplus(call: Call) -> Results:
    inner = _scaled(call, call.input(0), call.take("beta", 1.0), "beta")
    soft = call.add("Softplus", [inner])
    return call.finish("Mul", [soft, call.number(call.take("alpha", 1.0), "alpha")])


def _scaled_tanh(call: Call) -> Results:
    inner = _scaled(call, call.input(0), call.take("beta", 1.0), "beta")
    wave = call.add("Tanh", [inner])
    return call.finish("Mul", [wave, call.number(call.take("alpha", 1.0), "alpha")])


def _crop(call: Call) -> Results:
    """Rows and columns off the borders; `scale` says how many stay from the first corner on."""
    left, top, right, bottom = call.take("border", (0, 0, 0, 0))
    size: Any = call.take("scale")
    if size:
        ends = (top + size[0], left + size[1])
    else:
        ends = tuple(-cut if cut else np.iinfo(np.int64).max for cut in (bottom, right))
    starts = call.ints((top, left), "starts")
    operands = [call.input(0), starts, call.ints(ends, "ends"), call.ints((2, 3), "axes")]
    return call.finish("Slice", operands)


def _dynamic_slice(call: Call) -> Results:
    return call.finish("Slice", call.inputs)


def _constant_fill(call: Call) -> Results:
    """A value in a shape: an attribute, the elements of the input, or the shape of the input."""
    dtype = call.take("dtype", DType.F32)
    value = np.array([call.take("value", 0.0)]).astype(dtype.numpy)
    extra = call.ints(call.take("extra_shape", ()), "extra_shape")
    shape: Value
    if not call.inputs:
        shape = call.ints(call.take("shape", ()), "shape")
    elif call.take("input_as_shape", 0):
        shape = call.add("Cast", [call.input(0)], {"to": DType.I64})
    else:
        shape = call.add("Shape", [call.input(0)])
    whole = call.add("Concat", [shape, extra], {"axis": 0})
    return call.finish("ConstantOfShape", [whole], {"value": value})


def _label_encoder(call: Call) -> None:
    """LabelEncoder-1: texts become their places in a list, and numbers the texts there."""
    classes = call.take("classes_strings")
    if classes is None:
        return
    value = call.input(0)
    if value.type is None:
        call.infer()
    places = tuple(range(len(classes)))
    if value.dtype is DType.STR:
        call.attrs |= {"keys_strings": classes, "values_int64s": places}
    else:
        call.attrs |= {"keys_int64s": places, "values_strings": classes}


def _tile(call: Call) -> None:
    """Tile-1: how often, along one axis."""
    if len(call.inputs) < 3:
        return
    tiles, axis = (call.input(index).constant for index in (1, 2))
    if tiles is None or axis is None:
        call.fail("its tiles and axis are no constants; export the model with operator set 6")
    repeats = np.ones(call.rank(0), np.int64)
    repeats[int(axis.item())] = int(tiles.item())
    call.inputs = [call.input(0), call.ints(repeats.tolist(), "repeats")]


def _mean_variance(call: Call) -> None:
    if call.take("across_channels", 0):
        call.attrs["axes"] = tuple(range(call.rank(0)))
    if not call.take("normalize_variance", 1):
        call.fail("normalize_variance = 0 is not supported")


EARLY: dict[str, Callable[[Call], Results | None]] = {
    "Affine": _affine,
    "ConstantFill": _constant_fill,
    "Crop": _crop,
    "DynamicSlice": _dynamic_slice,
    "ImageScaler": _image_scaler,
    "MeanVarianceNormalization": _mean_variance,
    "ParametricSoftplus": _parametric_softplus,
    "Scale": _scale,
    "ScaledTanh": _scaled_tanh,
    "Tile": _tile,
    "ai.onnx.ml::LabelEncoder": _label_encoder,
}
