"""com.microsoft: matrix products and convolutions with activations and transpositions in them."""

from __future__ import annotations

from tuili.importers.onnx.call import Call, Converter, Results, Step
from tuili.importers.onnx.contrib.elementwise import activation
from tuili.ir import Value


def _perm(rank: int, *, batch: bool, last: bool) -> tuple[int, ...]:
    """transBatch brings the first axis behind the others but one; trans swaps the last two."""
    axes = [*range(rank)]
    if batch:
        axes = [*axes[1:-1], axes[0], axes[-1]]
    if last and rank > 1:
        axes[-2:] = axes[:-3:-1]
    return tuple(axes)


def _product(call: Call) -> Step | None:
    """alpha times the product of the operands as the flags turn them; None without their ranks."""
    operands: list[Value] = []
    for index, name in enumerate("AB"):
        value = call.input(index)
        batch, last = (bool(call.attrs.get(f"{flag}{name}")) for flag in ("transBatch", "trans"))
        if batch or last:
            shape = call.shape(value)
            if shape is None:
                return None
            perm = _perm(len(shape), batch=batch, last=last)
            if perm != tuple(range(len(shape))):
                value = call.add("Transpose", [value], {"perm": perm})
        operands.append(value)
    call.drop("transA", "transB", "transBatchA", "transBatchB")
    alpha = call.take("alpha", 1.0)
    if alpha == 1:
        return "MatMul", operands, {}
    return "Mul", [call.add("MatMul", operands), call.number(alpha, "alpha")], {}


def _matmul(call: Call) -> Results | None:
    step = _product(call)
    return None if step is None else call.finish(*step)


def _matmul_activation(call: Call) -> Results | None:
    step = _product(call)
    if step is None:
        return None
    made = call.add(*step)
    name, axis = str(call.take("activation", "")), call.take("activation_axis")
    if name == "Softmax":
        return call.finish("Softmax", [made], {"axis": -1 if axis is None else axis})
    return call.finish(*activation(call, made, name, _parameters(call)))


def _gemm(call: Call) -> Results:
    name, parameters = str(call.take("activation", "")), _parameters(call)
    made = call.add("Gemm", call.inputs[:3], call.attrs)
    return call.finish(*activation(call, made, name, parameters))


def _parameters(call: Call) -> list[float]:
    """What an activation has beside its name; LeakyRelu's had a name of its own at first."""
    first = call.take("leaky_relu_alpha")
    found = [call.take(f"activation_{name}") for name in ("alpha", "beta", "gamma")]
    found[0] = first if found[0] is None else found[0]
    return [item for item in found if item is not None]


def _gemm_fast_gelu(call: Call) -> Results:
    product = call.add("MatMul", call.inputs[:2])
    return call.finish("Gelu", [call.plus(product, 2)], {"approximate": "tanh"})


def _fused_conv(call: Call) -> Results:
    name, parameters = str(call.take("activation", "")), call.take("activation_params", ())
    made = call.plus(call.add("Conv", call.inputs[:3], call.attrs), 3)
    return call.finish(*activation(call, made, name, parameters))


PRODUCTS: dict[str, Converter] = {
    "com.microsoft::FusedConv": _fused_conv,
    "com.microsoft::FusedGemm": _gemm,
    "com.microsoft::FusedMatMul": _matmul,
    "com.microsoft::FusedMatMulActivation": _matmul_activation,
    "com.microsoft::GemmFastGelu": _gemm_fast_gelu,
    "com.microsoft::TransposeMatMul": _matmul,
}
