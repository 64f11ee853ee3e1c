"""com.microsoft: products and sums of codes, spelt as the standard's quantizer spells them.

`passes/quantized_products.py` knows these spellings and makes one product of each.
"""

from __future__ import annotations

import numpy as np

from tuili.importers.onnx.call import Call, Converter, Results, Step
from tuili.ir import Value
from tuili.tensors import DType


def _real_product(
    call: Call, operands: list[Value | None], scale: Value, bias: Value | None
) -> Step:
    """Codes and zero points multiplied, scaled, and added to a bias."""
    total = call.add("MatMulInteger", operands)
    kind = call.tensor(scale)
    real = call.add("Cast", [total], {"to": DType.F32 if kind is None else kind.dtype})
    if bias is None:
        return "Mul", [real, scale], {}
    return "Add", [call.add("Mul", [real, scale]), bias], {}


def _integer_to_float(call: Call) -> Results:
    scale = call.add("Mul", call.inputs[2:4])
    operands = [*call.inputs[:2], call.given(4), call.given(5)]
    return call.finish(*_real_product(call, operands, scale, call.given(6)))


def _dynamic_matmul(call: Call) -> Results:
    names = [f"{call.title}.{part}" for part in ("codes", "scale", "zero")]
    made = call.graph.add("DynamicQuantizeLinear", [call.input(0)], outputs=names)
    codes, scale, zero = made.outputs
    scale = call.add("Mul", [scale, call.input(2)])
    operands = [codes, call.input(1), zero, call.given(3)]
    return call.finish(*_real_product(call, operands, scale, call.given(4)))


_MASK, _PAST = 5, 8


def _attention(call: Call) -> Results | None:
    """The projection of codes, then attention over what it gives: queries, keys and values."""
    if call.attrs.get("do_rotary") or call.attrs.get("past_present_share_buffer"):
        return None
    call.drop("do_rotary", "past_present_share_buffer")
    scale = call.add("Mul", call.inputs[3:5])
    operands = [*call.inputs[:2], call.given(6), call.given(7)]
    packed = call.add(*_real_product(call, operands, scale, call.input(2)))
    inputs = [packed, None, None, None, call.given(_MASK), None, *_halves(call, call.given(_PAST))]
    while inputs[-1] is None:
        inputs.pop()
    names = [call.outputs[0], f"{call.title}.key", f"{call.title}.value"]
    count = 3 if call.wants(1) else 1
    made = call.graph.add(
        "com.microsoft::MultiHeadAttention",
        inputs,
        call.attrs,
        outputs=names[:count],
        name=call.name,
    )
    if count == 1:
        return made.outputs
    first = call.ints([0], "first")
    both = [call.add("Unsqueeze", [value, first]) for value in made.outputs[1:]]
    return [made.output, call.add("Concat", both, {"axis": 0})]


def _halves(call: Call, past: Value | None) -> list[Value | None]:
    """Old keys and old values out of [2, batch, heads, length, size]."""
    if past is None:
        return [None, None]
    places = (call.constant(np.array(at, np.int64), "place") for at in (0, 1))
    return [call.add("Gather", [past, place], {"axis": 0}) for place in places]


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
    "com.microsoft::QAttention": _attention,
    "com.microsoft::ReduceSumInteger": _sum_integer,
}
