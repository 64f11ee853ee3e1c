"""com.microsoft: activations with what surrounds them, and small arithmetic."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tuili.importers.onnx.call import Call, Converter, Results, Step
from tuili.ir import Value
from tuili.tensors import DType

# -- activations ---------------------------------------------------------------------------


def _gelu(call: Call) -> Results:
    return call.finish("Gelu", call.inputs[:1])


def _fast_gelu(call: Call) -> Results:
    return call.finish("Gelu", [call.plus(call.input(0), 1)], {"approximate": "tanh"})


def _bias_gelu(call: Call) -> Results:
    return call.finish("Gelu", [call.plus(call.input(0), 1)])


def _quick_gelu(call: Call) -> Results:
    return call.finish("Swish", call.inputs[:1], {"alpha": call.take("alpha", 1.702)})


def _scaled_silu(call: Call) -> Results:
    scale = call.given(1)
    factor = scale if scale is not None else call.number(call.take("alpha", 1.0), "alpha")
    return call.finish("Swish", [call.add("Mul", [call.input(0), factor])])


# What the parameters of a fused activation are called by the operator itself.
_ACTIVATIONS: dict[str, tuple[str, ...]] = {
    "Elu": ("alpha",),
    "Gelu": (),
    "HardSigmoid": ("alpha", "beta"),
    "HardSwish": (),
    "LeakyRelu": ("alpha",),
    "Relu": (),
    "Sigmoid": (),
    "Softplus": (),
    "Tanh": (),
}


def activation(call: Call, value: Value, name: str, params: Sequence[float]) -> Step:
    """The node that a fused node's activation is; "" names none."""
    if name == "Clip":
        if len(params) != 2:
            call.fail(f"Clip as its activation has {len(params)} parameters; expected 2")
        return "Clip", [value, *(call.number(bound, "bound") for bound in params)], {}
    if not name:
        return "Identity", [value], {}
    if name not in _ACTIVATIONS:
        known = ", ".join([*_ACTIVATIONS, "Clip"])
        call.fail(f"activation {name!r} is not known; expected one of {known}")
    return name, [value], dict(zip(_ACTIVATIONS[name], params, strict=False))


# -- gates: one half behind an activation, times the other ----------------------------------


def halves(call: Call, value: Value) -> Sequence[Value]:
    """The value cut in two along its last axis."""
    return call.graph.add(
        "Split",
        [value],
        {"axis": -1, "num_outputs": 2},
        outputs=[f"{call.title}.left", f"{call.title}.right"],
    ).outputs


def _bias_split_gelu(call: Call) -> Results:
    left, right = halves(call, call.plus(call.input(0), 1))
    return call.finish("Mul", [left, call.add("Gelu", [right])])


def _swiglu(call: Call) -> Results:
    call.drop("round_activation")  # rounds what f32 arithmetic keeps
    gate, up = (call.input(0), call.given(1))
    if up is None:
        gate, up = halves(call, gate)
    limit, shift = call.take("limit", 0.0), call.take("activation_beta", 0.0)
    if limit > 0:
        low, high = call.number(-limit, "low"), call.number(limit, "high")
        gate = call.add("Min", [gate, high])
        up = call.add("Clip", [up, low, high])
    if shift:
        up = call.add("Add", [up, call.number(shift, "shift")])
    opened = call.add("Swish", [gate], {"alpha": call.take("activation_alpha", 1.0)})
    return call.finish("Mul", [opened, up])


# -- biases --------------------------------------------------------------------------------


def _bias_add(call: Call) -> Results:
    return call.finish("Add", [call.plus(call.input(0), 1), call.input(2)])


def _bias_dropout(call: Call) -> Results | None:
    """Without training nothing is dropped, and the mask keeps everything."""
    training = call.given(4)
    if training is not None and (training.constant is None or training.constant.any()):
        return None
    terms, residual = call.inputs[:2], call.given(2)
    if residual is not None:
        terms = [call.add("Add", terms), residual]
    results = call.finish("Add", terms)
    if not call.wants(1):
        return results
    shape = call.add("Shape", call.inputs[:1])
    return [results[0], call.add("ConstantOfShape", [shape], {"value": np.array([True])})]


def _bias_softmax(call: Call) -> Results | None:
    """The softmax of a sum; all axes from `axis` on are one."""
    shapes = [call.shape(call.input(index)) for index in (0, 1)]
    if shapes[0] is None or shapes[1] is None:
        return None
    rank, missing = len(shapes[0]), len(shapes[0]) - len(shapes[1])
    bias = call.input(1)
    if not call.take("is_inner_broadcast", 1) and missing > 0:
        bias = call.add("Unsqueeze", [bias, call.ints(range(1, 1 + missing), "axes")])
    total = call.add("Add", [call.input(0), bias])
    axis = int(call.take("axis", 1)) % rank
    if axis == rank - 1:
        return call.finish("Softmax", [total], {"axis": -1})
    flat = call.add("Reshape", [total, call.ints([0] * axis + [-1], "flat")])
    soft = call.add("Softmax", [flat], {"axis": -1})
    return call.finish("Reshape", [soft, call.add("Shape", [total])])


# -- others --------------------------------------------------------------------------------


def _complex_mul(sign: int) -> Converter:
    """The product of pairs (real, imaginary); `sign` is -1 for the second one's conjugate."""

    def convert(call: Call) -> Results:
        a, b = halves(call, call.input(0))
        c, d = halves(call, call.input(1))

        def sum_of(op: str, left: tuple[Value, Value], right: tuple[Value, Value]) -> Value:
            return call.add(op, [call.add("Mul", left), call.add("Mul", right)])

        if sign > 0:
            parts = [sum_of("Sub", (a, c), (b, d)), sum_of("Add", (a, d), (b, c))]
        else:
            parts = [sum_of("Add", (a, c), (b, d)), sum_of("Sub", (b, c), (a, d))]
        return call.finish("Concat", parts, {"axis": -1})

    return convert


def _all_finite(call: Call) -> Results:
    """Whether no element of any input is infinite or no number."""
    only = [
        op for op, flag in (("IsInf", "isinf_only"), ("IsNaN", "isnan_only")) if call.take(flag)
    ]
    found: list[Value] = []
    for value in filter(None, call.inputs):
        for op in only[:1] or ("IsInf", "IsNaN"):
            bad = call.add("Cast", [call.add(op, [value])], {"to": DType.F32})
            flat = call.add("Reshape", [bad, call.ints([-1], "flat")])
            found.append(call.add("ReduceSum", [flat], {"keepdims": 0}))
    total = found[0] if len(found) == 1 else call.add("Sum", found)
    return call.finish("Equal", [total, call.constant(np.array(0, np.float32), "none")])


ELEMENTWISE: dict[str, Converter] = {
    f"com.microsoft::{name}": convert
    for name, convert in {
        "BiasAdd": _bias_add,
        "BiasDropout": _bias_dropout,
        "BiasGelu": _bias_gelu,
        "BiasSoftmax": _bias_softmax,
        "BiasSplitGelu": _bias_split_gelu,
        "ComplexMul": _complex_mul(1),
        "ComplexMulConj": _complex_mul(-1),
        "FastGelu": _fast_gelu,
        "Gelu": _gelu,
        "IsAllFinite": _all_finite,
        "QuickGelu": _quick_gelu,
        "ScaledSiLU": _scaled_silu,
        "SwiGLU": _swiglu,
    }.items()
}
