"""Converters of the fused operators that ONNX Runtime's optimizer writes (domain com.microsoft).

Each becomes operators of the standard; the passes fuse them again in their own way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tuili.importers.onnx.call import Call
from tuili.ir import Value

Results = Sequence[Value]


def _gelu(call: Call) -> Results:
    return call.finish("Gelu", call.inputs[:1])


def _fast_gelu(call: Call) -> Results:
    x = _plus(call, call.input(0), 1)
    return call.finish("Gelu", [x], {"approximate": "tanh"})


def _bias_gelu(call: Call) -> Results:
    return call.finish("Gelu", [_plus(call, call.input(0), 1)])


def _quick_gelu(call: Call) -> Results:
    return call.finish("Swish", call.inputs[:1], {"alpha": call.take("alpha", 1.702)})


def _plus(call: Call, value: Value, index: int) -> Value:
    """The value, plus an input where it is given."""
    term = call.inputs[index] if index < len(call.inputs) else None
    return value if term is None else call.add("Add", [value, term])


def _matmul(call: Call) -> Results | None:
    if call.attrs.get("transBatchA") or call.attrs.get("transBatchB"):
        return None
    call.drop("transBatchA", "transBatchB")
    operands = [_turned(call, index, f"trans{name}") for index, name in enumerate("AB")]
    alpha = call.take("alpha", 1.0)
    if alpha == 1:
        return call.finish("MatMul", operands)
    return call.finish("Mul", [call.add("MatMul", operands), call.number(alpha, "alpha")])


def _turned(call: Call, index: int, flag: str) -> Value:
    if not call.take(flag, 0):
        return call.input(index)
    rank = call.rank(index)
    perm = (*range(rank - 2), rank - 1, rank - 2)
    return call.add("Transpose", [call.input(index)], {"perm": perm})


def _conv(call: Call) -> Results:
    activation, params = call.take("activation", ""), call.take("activation_params", ())
    result = call.add("Conv", call.inputs[:3], call.attrs)
    return _activated(call, _plus(call, result, 3), str(activation), params)


def _gemm(call: Call) -> Results:
    activation = str(call.take("activation", ""))
    alpha = call.take("activation_alpha", call.take("leaky_relu_alpha"))
    params = [alpha, call.take("activation_beta"), call.take("activation_gamma")]
    result = call.add("Gemm", call.inputs[:3], call.attrs)
    return _activated(call, result, activation, [item for item in params if item is not None])


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


def _activated(call: Call, value: Value, activation: str, params: Sequence[float]) -> Results:
    if activation == "Clip":
        if len(params) != 2:
            call.fail(f"Clip as its activation has {len(params)} parameters; expected 2")
        low, high = (call.number(bound, "bound") for bound in params)
        return call.finish("Clip", [value, low, high])
    if not activation:
        return call.finish("Identity", [value])
    if activation not in _ACTIVATIONS:
        known = ", ".join([*_ACTIVATIONS, "Clip"])
        call.fail(f"activation {activation!r} is not known; expected one of {known}")
    attrs = dict(zip(_ACTIVATIONS[activation], params, strict=False))
    return call.finish(activation, [value], attrs)


def _skip_layer_norm(call: Call) -> Results | None:
    if any(call.outputs[1:3]):  # the mean and the deviation
        return None
    total = _plus(call, call.add("Add", [call.input(0), call.input(1)]), 4)
    epsilon = call.take("epsilon", 1e-12)
    operands = [total, *call.inputs[2:4]]
    return _with_sum(call, call.finish("LayerNormalization", operands, {"epsilon": epsilon}), total)


def _skip_rms_norm(call: Call) -> Results | None:
    if any(call.outputs[1:3]):
        return None
    total = _plus(call, call.add("Add", [call.input(0), call.input(1)]), 3)
    epsilon = call.take("epsilon", 1e-12)
    operands = [total, call.input(2)]
    return _with_sum(call, call.finish("RMSNormalization", operands, {"epsilon": epsilon}), total)


def _with_sum(call: Call, results: Results, total: Value) -> Results:
    """The fourth output is the sum that was normalised; nobody reads the two before it."""
    return [results[0], total, total, total][: len(call.outputs)]


def _rms_norm(call: Call) -> Results | None:
    if len(call.outputs) > 1:
        return None
    call.drop("stash_type")
    return call.finish("RMSNormalization", call.inputs[:2], call.attrs)


# A converter returns None where only the fused operator can say what the node says.
CONTRIB: dict[str, Callable[[Call], Results | None]] = {
    "com.microsoft::BiasGelu": _bias_gelu,
    "com.microsoft::FastGelu": _fast_gelu,
    "com.microsoft::FusedConv": _conv,
    "com.microsoft::FusedGemm": _gemm,
    "com.microsoft::FusedMatMul": _matmul,
    "com.microsoft::Gelu": _gelu,
    "com.microsoft::QuickGelu": _quick_gelu,
    "com.microsoft::SkipLayerNormalization": _skip_layer_norm,
    "com.microsoft::SkipSimplifiedLayerNormalization": _skip_rms_norm,
    # Written into the standard's domain, where it does not exist.
    "SimplifiedLayerNormalization": _rms_norm,
}
