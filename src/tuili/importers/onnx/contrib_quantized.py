"""com.microsoft: products and sums of codes, spelt as the standard's quantizer spells them.

`passes/quantized_products.py` knows these spellings and makes one product of each.
"""

from __future__ import annotations

from tuili.importers.onnx.call import Call, Converter, Results
from tuili.ir import Value
from tuili.tensors import DType


def _real_product(call: Call, operands: list[Value | None], scale: Value) -> Results:
    """Codes and zero points multiplied, scaled and added to the last input, where it is given."""
    total = call.add("MatMulInteger", operands)
    kind = call.tensor(scale)
    real = call.add("Cast", [total], {"to": DType.F32 if kind is None else kind.dtype})
    bias = call.given(_BIAS[call.op])
    if bias is None:
        return call.finish("Mul", [real, scale])
    return call.finish("Add", [call.add("Mul", [real, scale]), bias])


_BIAS = {"com.microsoft::MatMulIntegerToFloat": 6, "com.microsoft::DynamicQuantizeMatMul": 4}


def _integer_to_float(call: Call) -> Results:
    scale = call.add("Mul", [call.input(2), call.input(3)])
    return _real_product(call, [*call.inputs[:2], call.given(4), call.given(5)], scale)


def _dynamic_matmul(call: Call) -> Results:
    names = [f"{call.title}.{part}" for part in ("codes", "scale", "zero")]
    codes, scale, zero = call.graph.add(
        "DynamicQuantizeLinear", [call.input(0)], outputs=names
    ).outputs
    scale = call.add("Mul", [scale, call.input(2)])
    return _real_product(call, [codes, call.input(1), zero, call.given(3)], scale)


# -- whole numbers -------------------------------------------------------------------------


def _shifted(call: Call, index: int) -> Value:
    """Codes less their zero point, which follows them."""
    parts = [value for value in (call.input(index), call.given(index + 1)) if value is not None]
    wide = [call.add("Cast", [value], {"to": DType.I32}) for value in parts]
    return wide[0] if len(wide) == 1 else call.add("Sub", wide)


def _mul_integer(call: Call) -> Results:
    return call.finish("Mul", [_shifted(call, 0), _shifted(call, 2)])


def _sum_integer(call: Call) -> Results | None:
    kind = call.tensor(call.input(0))
    if kind is None:
        return None
    unsigned = kind.dtype.is_unsigned_int
    wide = call.add("Cast", [call.input(0)], {"to": DType.U32 if unsigned else DType.I32})
    axes = call.ints(call.take("axes", ()), "axes")
    return call.finish("ReduceSum", [wide, axes], {"keepdims": call.take("keepdims", 1)})


QUANTIZED: dict[str, Converter] = {
    "com.microsoft::DynamicQuantizeMatMul": _dynamic_matmul,
    "com.microsoft::MatMulIntegerToFloat": _integer_to_float,
    "com.microsoft::MulInteger": _mul_integer,
    "com.microsoft::ReduceSumInteger": _sum_integer,
}
