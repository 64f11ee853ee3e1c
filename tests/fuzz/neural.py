"""Steps of neural networks: products, convolutions, pools, norms, reductions, recurrences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.fuzz.elementwise import some_type
from tests.fuzz.part import FLOATS, Discard, Part
from tuili.ir import Graph, TensorType, Value
from tuili.tensors import DType

MATMUL = (DType.F32, DType.F64, DType.I32, DType.I64)
REAL = (DType.F32, DType.F64)


def weights(p: Part, *shape: int, dtype: DType = DType.F32) -> Value:
    return p.leaf(dtype, shape, -1, 1, constant=70, sealed=True)


def scales(p: Part, *shape: int, dtype: DType = DType.F32) -> Value:
    return p.leaf(dtype, shape, 0.5, 1.5, constant=70, sealed=True)


# -- products ------------------------------------------------------------------------------


def matmul(p: Part) -> None:
    x = p.pick(some_type(p, MATMUL), lambda rank: rank >= 1)
    shape, dtype = p.of(x).shape, p.dtype(x)
    right = [shape[-1]] if p.chance(10) else [shape[-1], p.one((1, 2, 3, 5, 8, 16, 17, 33))]
    if len(right) == 2 and p.chance(30):
        right = [*p.partner(shape[:-2]), *right]
    if p.chance(75):
        p.node("MatMul", [x, weights(p, *right, dtype=dtype)], exact=True)
    elif len(shape) >= 2:
        rows = p.one((1, 3, 8))
        p.node("MatMul", [weights(p, rows, shape[-2], dtype=dtype), x], exact=True)
    else:
        raise Discard


def gemm(p: Part) -> None:
    x = p.pick(some_type(p, MATMUL), lambda rank: rank == 2)
    turn_a, turn_b = p.below(2), p.below(2)
    rows, inner = p.of(x).shape[:: -1 if turn_a else 1]
    columns = p.one((1, 3, 4, 16, 17))
    b = weights(p, *((columns, inner) if turn_b else (inner, columns)), dtype=p.dtype(x))
    inputs = [x, b]
    if p.chance(60):
        c = p.one(((columns,), (1, columns), (rows, columns), (rows, 1), ()))
        inputs.append(weights(p, *c, dtype=p.dtype(x)))
    attrs: dict[str, Any] = {"transA": turn_a, "transB": turn_b}
    if p.dtype(x).is_float and p.chance(40):
        attrs |= {"alpha": p.one((0.5, 2.0)), "beta": p.one((1.0, 0.5, 0.0))}
    p.node("Gemm", inputs, attrs)


EQUATIONS = (
    ("ij,jk->ik", "ab", "bc"), ("bij,bjk->bik", "zab", "zbc"), ("ij->ji", "ab"), ("ij->", "ab"),
    ("ii->i", "aa"), ("bij,bkj->bik", "zab", "zcb"), ("bhid,bhjd->bhij", "zhac", "zhbc"),
    ("i,j->ij", "a", "b"), ("ij,ij->i", "ab", "ab"), ("...ij,jk->...ik", "zab", "bc"),
    ("bij,jk", "zab", "bc"),
)  # fmt: skip


def einsum(p: Part) -> None:
    equation, *operands = p.one(EQUATIONS)
    sizes = {letter: p.one((1, 2, 3, 4, 8)) for letter in "abczh"}
    inputs = [weights(p, *(sizes[letter] for letter in operand)) for operand in operands]
    p.node("Einsum", inputs, {"equation": equation}, exact=True)


def attention(p: Part) -> None:
    """Scaled products, a softmax and a second product, as exporters write attention."""
    batch, heads, queries, keys, size = (
        p.one(n) for n in ((1, 2), (1, 2, 3), (1, 3, 8), (1, 4, 9), (4, 8))
    )
    q, k, v = (p.leaf(DType.F32, (batch, heads, n, size)) for n in (queries, keys, keys))
    (turned,) = p.node("Transpose", [k], {"perm": (0, 1, 3, 2)}, exact=True)
    (scores,) = p.node("MatMul", [q, turned], exact=True)
    (scaled,) = p.node("Mul", [scores, p.constant(np.float32(size**-0.5))])
    if p.chance(50):
        mask = p.leaf(
            DType.F32, p.one(((queries, keys), (batch, 1, 1, keys), (batch, heads, queries, keys)))
        )
        (scaled,) = p.node("Add", [scaled, mask])
    (soft,) = p.node("Softmax", [scaled], {"axis": -1})
    (out,) = p.node("MatMul", [soft, v])
    if p.chance(50):
        p.node("Transpose", [out], {"perm": (0, 2, 1, 3)})


# -- windows -------------------------------------------------------------------------------


def image(p: Part, channels: int | None = None) -> Value:
    def fits(value: Value) -> bool:
        shape = p.of(value).shape
        return len(shape) in {3, 4} and 0 not in shape and p.of(value).dtype == np.float32

    if channels is None and p.chance(60):
        try:
            return p.pick(fits=fits)
        except Discard:
            pass
    count = channels or p.one((1, 2, 3, 4, 8, 16, 20))
    spatial = [p.one((1, 3, 5, 6, 7, 8, 9, 12)) for _ in range(p.one((2, 2, 2, 1, 3)))]
    while count * np.prod(spatial) > 2500:
        spatial[int(np.argmax(spatial))] = 3
    return p.leaf(DType.F32, (1 + p.below(2), count, *spatial), constant=0)


def window(p: Part, spatial: tuple[int, ...], *, dilated: bool = True) -> dict[str, Any]:
    """Kernel shape, strides, dilations and padding that fit."""
    kernel, dilations = [], []
    for _ in spatial:
        k, d = p.one((1, 2, 3, 3, 5)), p.one((1, 1, 1, 2)) if dilated else 1
        kernel.append(k)
        dilations.append(d)
    attrs: dict[str, Any] = {"kernel_shape": tuple(kernel)}
    if p.chance(50):
        attrs["strides"] = tuple(p.one((1, 2, 2, 3)) for _ in spatial)
    if any(d != 1 for d in dilations):
        attrs["dilations"] = tuple(dilations)
    if p.chance(20):
        attrs["auto_pad"] = p.one(("SAME_UPPER", "SAME_LOWER", "VALID"))
    elif p.chance(70):
        attrs["pads"] = tuple(p.below(min(k, 3)) for k in kernel * 2)
    _check_fits(spatial, kernel, dilations, attrs)
    return attrs


def _check_fits(
    spatial: tuple[int, ...], kernel: list[int], dilations: list[int], attrs: dict[str, Any]
) -> None:
    pads = attrs.get("pads", (0,) * (2 * len(spatial)))
    if attrs.get("auto_pad", "").startswith("SAME"):
        if any(d != 1 for d in dilations):
            raise Discard
        return
    for axis, size in enumerate(spatial):
        reach = (kernel[axis] - 1) * dilations[axis] + 1
        if size + pads[axis] + pads[axis + len(spatial)] < reach:
            raise Discard


def conv(p: Part) -> None:
    x = image(p)
    _, channels, *spatial = p.of(x).shape
    attrs = window(p, tuple(spatial))
    divisors = [n for n in (1, 1, 2, 4, channels) if channels % n == 0]
    group = p.one(divisors)
    out = group * p.one((1, 2, 3, 4, 8, 16))
    if out > 40:
        out = group
    w = weights(p, out, channels // group, *attrs["kernel_shape"])
    inputs = [x, w, weights(p, out)] if p.chance(60) else [x, w]
    if p.chance(50):
        del attrs["kernel_shape"]
    (y,) = p.node("Conv", inputs, {**attrs, "group": group}, exact=True)
    after_conv(p, y, out)


def after_conv(p: Part, y: Value, channels: int) -> None:
    """What follows convolutions in real networks, and fuses with them."""
    rank = p.of(y).ndim
    if p.chance(30):
        parts = [
            scales(p, channels),
            weights(p, channels),
            weights(p, channels),
            scales(p, channels),
        ]
        (y,) = p.node("BatchNormalization", [y, *parts])
    if p.chance(25):
        (y,) = p.node("Add", [y, p.leaf(DType.F32, p.of(y).shape, constant=10)], exact=True)
    if p.chance(25):
        (y,) = p.node("Mul", [y, weights(p, channels, *[1] * (rank - 2))], exact=True)
    if p.chance(50):
        (y,) = p.node(p.one(("Relu", "Sigmoid", "HardSwish", "Tanh", "LeakyRelu", "Mish")), [y])


def conv_transpose(p: Part) -> None:
    x = image(p)
    _, channels, *spatial = p.of(x).shape
    attrs = window(p, tuple(spatial), dilated=p.chance(30))
    attrs.pop("auto_pad", None)
    group = p.one([n for n in (1, 1, 2, channels) if channels % n == 0])
    out = p.one((1, 2, 3, 8))
    strides = attrs.get("strides", (1,) * len(spatial))
    if p.chance(30):
        attrs["output_padding"] = tuple(p.below(max(s, 1)) for s in strides)
    w = weights(p, channels, out, *attrs["kernel_shape"])
    inputs = [x, w, weights(p, out * group)] if p.chance(50) else [x, w]
    p.node("ConvTranspose", inputs, {**attrs, "group": group}, exact=True)


def pool(op: str) -> Callable[[Part], None]:
    def step(p: Part) -> None:
        x = image(p)
        attrs = window(p, p.of(x).shape[2:], dilated=op != "LpPool")
        if p.chance(20) and "auto_pad" not in attrs:
            attrs["ceil_mode"] = 1
        if op == "AveragePool":
            attrs["count_include_pad"] = p.below(2)
        if op == "LpPool":
            attrs["p"] = p.one((2, 1, 3))
        exact = op == "MaxPool"
        outputs = 1
        if exact and p.chance(20) and x not in p.inexact:
            outputs = 2
        p.node(op, [x], attrs, exact=exact, outputs=outputs)

    return step


def global_pool(p: Part) -> None:
    op = p.one(("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"))
    p.node(op, [image(p)], exact=op == "GlobalMaxPool")


def squeeze_excite(p: Part) -> None:
    x = image(p)
    channels = p.of(x).shape[1]
    ones = [1] * (p.of(x).ndim - 2)
    (mean,) = p.node("GlobalAveragePool", [x])
    (small,) = p.node("Conv", [mean, weights(p, 4, channels, *ones)])
    (large,) = p.node("Conv", [p.node("Relu", [small])[0], weights(p, channels, 4, *ones)])
    p.node("Mul", [x, p.node("Sigmoid", [large])[0]])


def resize(p: Part) -> None:
    x = image(p)
    mode = p.one(("nearest", "linear", "cubic") if p.of(x).ndim == 4 else ("nearest", "linear"))
    attrs: dict[str, Any] = {"mode": mode}
    modes = ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")
    attrs["coordinate_transformation_mode"] = p.one(modes)
    if mode == "nearest":
        attrs["nearest_mode"] = p.one(("round_prefer_floor", "floor", "ceil", "round_prefer_ceil"))
    spatial = p.of(x).shape[2:]
    if p.chance(50):
        factors = [1.0, 1.0, *(p.one((2.0, 1.0, 0.5, 1.5)) for _ in spatial)]
        if any(int(f * s) < 1 for f, s in zip(factors[2:], spatial, strict=True)):
            raise Discard
        p.node("Resize", [x, None, p.constant(np.array(factors, np.float32))], attrs)
    else:
        sizes = [*p.of(x).shape[:2], *(p.one((1, 2, 4, 5, 8)) for _ in spatial)]
        p.node("Resize", [x, None, None, p.ints(sizes)], attrs)


# -- norms and reductions ------------------------------------------------------------------


def softmax(p: Part) -> None:
    x = p.pick(some_type(p, FLOATS), lambda rank: rank > 0)
    p.node(p.one(("Softmax", "LogSoftmax")), [x], {"axis": p.axis(p.of(x).ndim)})


def hardmax(p: Part) -> None:
    x = p.pick(rank=lambda rank: rank > 0, exact=True)
    p.node("Hardmax", [x], {"axis": p.axis(p.of(x).ndim)}, jumps=True)


def layer_norm(p: Part) -> None:
    x = p.pick(some_type(p, (DType.F32, DType.F16, DType.F64)), lambda rank: rank >= 2)
    rank = p.of(x).ndim
    axis = 1 + p.below(rank - 1)
    shape = p.of(x).shape[axis:]
    op = p.one(("LayerNormalization", "LayerNormalization", "RMSNormalization"))
    inputs = [x, scales(p, *shape, dtype=p.dtype(x))]
    if op == "LayerNormalization" and p.chance(60):
        inputs.append(weights(p, *shape, dtype=p.dtype(x)))
    attrs = {"axis": axis - rank if p.chance(50) else axis, "epsilon": p.one((1e-5, 1e-2))}
    p.node(op, inputs, attrs)


def batch_norm(p: Part) -> None:
    x = p.pick(some_type(p, REAL), lambda rank: rank >= 2)
    channels, dtype = p.of(x).shape[1], p.dtype(x)
    parts = [
        scales(p, channels, dtype=dtype), weights(p, channels, dtype=dtype),
        weights(p, channels, dtype=dtype), scales(p, channels, dtype=dtype),
    ]  # fmt: skip
    p.node("BatchNormalization", [x, *parts], {"epsilon": p.one((1e-5, 1e-2))})


def instance_norm(p: Part) -> None:
    x = image(p)
    channels = p.of(x).shape[1]
    p.node("InstanceNormalization", [x, scales(p, channels), weights(p, channels)])


def group_norm(p: Part) -> None:
    x = image(p)
    channels = p.of(x).shape[1]
    groups = p.one([n for n in (1, 2, 4, channels) if channels % n == 0])
    inputs = [x, scales(p, channels), weights(p, channels)]
    p.node("GroupNormalization", inputs, {"num_groups": groups})


def line_norm(p: Part) -> None:
    x = p.pick(some_type(p, REAL), lambda rank: rank > 0)
    p.node("LpNormalization", [x], {"axis": p.axis(p.of(x).ndim), "p": 1 + p.below(2)})


def local_norm(p: Part) -> None:
    attrs = {"size": p.one((1, 3, 5)), "alpha": p.one((1e-4, 0.5)), "beta": p.one((0.75, 0.5))}
    p.node("LRN", [image(p)], attrs)


def mean_variance(p: Part) -> None:
    x = p.pick(rank=lambda rank: rank == 4)
    p.node("MeanVarianceNormalization", [x], {"axes": p.one(((0, 2, 3), (2, 3), (1,)))})


def reduce(op: str) -> Callable[[Part], None]:
    def step(p: Part) -> None:
        kinds = (*REAL, DType.I32, DType.I64, DType.F16)
        low = 0.25 if op == "ReduceLogSum" else None
        x = p.pick(some_type(p, kinds), low=low)
        if not p.dtype(x).is_float and op in {"ReduceLogSum", "ReduceLogSumExp", "ReduceL2"}:
            raise Discard  # integers there are left open by the standard
        rank = p.of(x).ndim
        inputs = [x]
        attrs = {"keepdims": p.below(2)}
        if p.chance(75):
            inputs.append(p.ints(p.axes(rank), 0))
            attrs["noop_with_empty_axes"] = p.below(2)
        p.node(
            op,
            inputs,
            attrs,
            exact=op not in {"ReduceMean", "ReduceL2", "ReduceProd"} and "Log" not in op,
        )

    return step


def reduce_by_hand(p: Part) -> None:
    """Mean and variance, as layer norms were written before they had an operator."""
    x = p.pick(rank=lambda rank: rank >= 2)
    axes = p.ints([-1], 0)
    (mean,) = p.node("ReduceMean", [x, axes])
    (centred,) = p.node("Sub", [x, mean])
    (square,) = p.node("Mul", [centred, centred])
    (variance,) = p.node("ReduceMean", [square, axes])
    (shifted,) = p.node("Add", [variance, p.constant(np.float32(1e-2))])
    (scaled,) = p.node("Div", [centred, p.node("Sqrt", [shifted])[0]])
    if p.chance(60):
        p.node("Mul", [scaled, scales(p, p.of(x).shape[-1])])


def arg(p: Part) -> None:
    x = p.pick(
        some_type(p, (*REAL, DType.I32, DType.I8, DType.U8)), lambda rank: rank > 0, exact=True
    )
    attrs = {"axis": p.axis(p.of(x).ndim), "keepdims": p.below(2), "select_last_index": p.below(2)}
    p.node(p.one(("ArgMax", "ArgMin")), [x], attrs, jumps=True)


def top_k(p: Part) -> None:
    x = p.pick(some_type(p, (*REAL, DType.I64, DType.I32)), lambda rank: rank > 0, exact=True)
    axis = p.axis(p.of(x).ndim)
    size = p.of(x).shape[axis]
    if not size:
        raise Discard
    k = p.ints([1 + p.below(size)])
    attrs = {"axis": axis, "largest": p.below(2)}
    p.node("TopK", [x, k], attrs, outputs=2, exact=True, jumps=True)


def cumulative(p: Part) -> None:
    x = p.pick(some_type(p, (*REAL, DType.I32, DType.I64)), lambda rank: rank > 0)
    axis = p.constant(np.array(p.axis(p.of(x).ndim), np.int64))
    attrs = {"exclusive": p.below(2), "reverse": p.below(2)}
    p.node(p.one(("CumSum", "CumSum", "CumProd")), [x, axis], attrs)


# -- recurrences and control ---------------------------------------------------------------


def recurrent(p: Part) -> None:
    op, gates = p.one((("LSTM", 4), ("GRU", 3), ("RNN", 1)))
    steps, batch, size, hidden = (p.one(n) for n in ((1, 3, 5), (1, 2, 3), (1, 4, 7), (1, 3, 8)))
    direction = p.one(("forward", "reverse", "bidirectional"))
    ways = 2 if direction == "bidirectional" else 1
    x = p.leaf(DType.F32, (steps, batch, size), constant=0)
    inputs: list[Value | None] = [
        x, weights(p, ways, gates * hidden, size), weights(p, ways, gates * hidden, hidden),
    ]  # fmt: skip
    inputs.append(weights(p, ways, 2 * gates * hidden) if p.chance(60) else None)
    lengths = np.array([1 + p.below(steps) for _ in range(batch)], np.int32)
    inputs.append(p.given(lengths, 50) if p.chance(30) else None)
    inputs.append(weights(p, ways, batch, hidden) if p.chance(40) else None)
    if op == "LSTM":
        inputs.append(weights(p, ways, batch, hidden) if p.chance(40) else None)
        inputs.append(weights(p, ways, 3 * hidden) if p.chance(30) else None)
    while inputs[-1] is None:
        inputs.pop()
    attrs: dict[str, Any] = {"hidden_size": hidden, "direction": direction}
    if op == "GRU":
        attrs["linear_before_reset"] = p.below(2)
    if p.chance(20):
        attrs["clip"] = 1.0
    p.node(op, inputs, attrs, outputs=1 + p.below(3 if op == "LSTM" else 2))


def branch(p: Part) -> None:
    x = p.pick()
    condition = p.pick((DType.BOOL,), lambda rank: rank == 0, fresh=60)
    sides = {}
    for name in ("then_branch", "else_branch"):
        side = Graph(f"{p.prefix}{name}", outer=p.graph)
        (value,) = side.add(p.one(("Neg", "Abs", "Relu", "Identity", "Sin")), [x]).outputs
        if p.chance(50):
            (value,) = side.add("Add", [value, x]).outputs
        side.set_outputs([value])
        sides[name] = side
    p.node("If", [condition], sides)


def loop(p: Part) -> None:
    x = p.pick((DType.F32,))
    trips = p.given(np.array(p.below(4), np.int64), 40)
    body = Graph(f"{p.prefix}body", outer=p.graph)
    body.add_input("i", TensorType(DType.I64, ()))
    going = body.add_input("going", TensorType(DType.BOOL, ()))
    state = body.add_input("state", TensorType(DType.F32, p.of(x).shape))
    half = body.add_constant(np.float32(0.5), "half")
    (halved,) = body.add("Mul", [state, half]).outputs
    (moved,) = body.add(p.one(("Add", "Sub")), [halved, x]).outputs
    results = [body.add("Identity", [going]).output, moved]
    if p.chance(50):
        results.append(body.add("Neg", [moved]).output)
    body.set_outputs(results)
    p.node("Loop", [trips, None, x], {"body": body}, outputs=len(results) - 1)


def scan(p: Part) -> None:
    x = p.pick((DType.F32,), lambda rank: rank >= 2)
    shape = p.of(x).shape
    start = p.leaf(DType.F32, shape[1:])
    body = Graph(f"{p.prefix}body", outer=p.graph)
    state = body.add_input("state", TensorType(DType.F32, shape[1:]))
    row = body.add_input("row", TensorType(DType.F32, shape[1:]))
    (total,) = body.add("Add", [state, row]).outputs
    (seen,) = body.add(p.one(("Neg", "Abs", "Identity")), [total]).outputs
    body.set_outputs([total, seen])
    attrs: dict[str, Any] = {"body": body, "num_scan_inputs": 1}
    if p.chance(30):
        attrs["scan_input_directions"] = (1,)
    p.node("Scan", [start, x], attrs, outputs=2)


_REDUCTIONS = ("Sum", "Prod", "Mean", "Max", "Min", "L1", "L2", "SumSquare", "LogSum", "LogSumExp")

STEPS: dict[str, Callable[[Part], None]] = {
    "MatMul": matmul, "Gemm": gemm, "Einsum": einsum, "attention": attention,
    "Conv": conv, "Conv, more": conv, "ConvTranspose": conv_transpose,
    **{op: pool(op) for op in ("MaxPool", "AveragePool", "LpPool")},
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"), global_pool),
    "squeeze and excite": squeeze_excite, "Resize": resize,
    "Softmax": softmax, "LogSoftmax": softmax, "Hardmax": hardmax,
    "LayerNormalization": layer_norm, "RMSNormalization": layer_norm,
    "BatchNormalization": batch_norm, "InstanceNormalization": instance_norm,
    "GroupNormalization": group_norm, "LpNormalization": line_norm, "LRN": local_norm,
    "MeanVarianceNormalization": mean_variance,
    **{
        f"Reduce{name}": reduce(f"Reduce{name}")
        for name in _REDUCTIONS
    },
    "norm by hand": reduce_by_hand, "ArgMax": arg, "ArgMin": arg, "TopK": top_k,
    "CumSum": cumulative, "CumProd": cumulative,
    **dict.fromkeys(("LSTM", "GRU", "RNN"), recurrent),
    "If": branch, "Loop": loop, "Scan": scan,
}  # fmt: skip
