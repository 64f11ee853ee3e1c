"""Steps for com.microsoft operators and those of signals, vision, losses and attention."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tests.fuzz.movement import indices
from tests.fuzz.neural import image, scales, weights
from tests.fuzz.part import Discard, Part
from tuili.ir import Value
from tuili.tensors import DType


def fused_matmul(p: Part) -> None:
    x = p.pick(rank=lambda rank: rank >= 2)
    turn = p.below(2)
    inner = p.of(x).shape[-2 if turn else -1]
    b = weights(p, inner, p.one((1, 3, 8)))
    attrs = {"transA": turn, "alpha": p.one((1.0, 0.5))}
    p.node("com.microsoft::FusedMatMul", [x, b], attrs)


def gelus(p: Part) -> None:
    x = p.pick(rank=lambda rank: rank >= 1)
    op = p.one(("Gelu", "FastGelu", "QuickGelu", "BiasGelu"))
    inputs = [x]
    if op == "BiasGelu" or (op == "FastGelu" and p.chance(50)):
        inputs.append(weights(p, p.of(x).shape[-1]))
    p.node(f"com.microsoft::{op}", inputs)


def skip_norm(p: Part) -> None:
    x = p.pick(rank=lambda rank: rank == 3)
    size = p.of(x).shape[-1]
    skip = p.leaf(DType.F32, p.of(x).shape)
    inputs: list[Value | None] = [x, skip, scales(p, size)]
    if p.chance(60):
        op = "SkipLayerNormalization"
        inputs += [weights(p, size)] if p.chance(60) else []
    else:
        op = "SkipSimplifiedLayerNormalization"
    p.node(f"com.microsoft::{op}", inputs, {"epsilon": 1e-2})


def heads(p: Part) -> None:
    batch, queries, keys = p.one((1, 2)), p.one((1, 3, 5)), p.one((1, 4))
    count, size = p.one((1, 2)), p.one((4, 8))
    shared = p.one((1, count))
    q = p.leaf(DType.F32, (batch, queries, count * size))
    if p.chance(40):
        k, v = (p.leaf(DType.F32, (batch, keys, count * size)) for _ in "kv")
        inputs: list[Value | None] = [q, k, v]
        if p.chance(50):
            inputs += [None, p.leaf(DType.I32, (batch, keys), 0, 1)]
        p.node("com.microsoft::MultiHeadAttention", inputs, {"num_heads": count})
        return
    k, v = (p.leaf(DType.F32, (batch, keys, shared * size)) for _ in "kv")
    inputs = [q, k, v]
    if p.chance(50):
        shape = p.one(((queries, keys), (batch, 1, 1, keys)))
        inputs.append(p.leaf(p.one((DType.BOOL, DType.F32)), shape))
    attrs = {"q_num_heads": count, "kv_num_heads": shared, "is_causal": p.below(2)}
    p.node("Attention", inputs, attrs)


def projected_heads(p: Part) -> None:
    batch, length, count, size = p.one((1, 2)), p.one((1, 3)), p.one((1, 2)), p.one((4, 8))
    width = count * size
    x = p.leaf(DType.F32, (batch, length, 6))
    inputs: list[Value | None] = [x, weights(p, 6, 3 * width), weights(p, 3 * width)]
    if p.chance(50):
        inputs.append(p.leaf(DType.I32, (batch, length), 0, 1))
    attrs = {"num_heads": count, "unidirectional": p.below(2)}
    p.node("com.microsoft::Attention", inputs, attrs)


def grouped_heads(p: Part) -> None:
    batch, length, past, shared = p.one((1, 2)), p.one((1, 3)), p.one((0, 4)), p.one((1, 2))
    count, size = 2 * shared, 16
    q = p.leaf(DType.F32, (batch, length, count * size))
    k, v = (p.leaf(DType.F32, (batch, length, shared * size)) for _ in "kv")
    old = [p.leaf(DType.F32, (batch, shared, past, size)) for _ in "kv"]
    last = p.given(np.full(batch, past + length - 1, np.int32), 50)
    total = p.constant(np.array(past + length, np.int32))
    attrs = {"num_heads": count, "kv_num_heads": shared}
    p.node("com.microsoft::GroupQueryAttention", [q, k, v, *old, last, total], attrs, outputs=3)


def rotary(p: Part) -> None:
    batch, count, length, size = p.one((1, 2)), p.one((1, 2)), p.one((1, 3)), p.one((4, 8))
    x = p.leaf(DType.F32, (batch, count, length, size))
    cos, sin = (p.leaf(DType.F32, (8, size // 2)) for _ in range(2))
    at = indices(p, (batch, length), 8, DType.I64)
    if (p.of(at) < 0).any():
        raise Discard
    p.node("RotaryEmbedding", [x, cos, sin, at], {"interleaved": p.below(2)})


def grid_sample(p: Part) -> None:
    x = p.leaf(DType.F32, (1 + p.below(2), 1 + p.below(3), 2 + p.below(4), 2 + p.below(4)))
    grid = p.leaf(DType.F32, (p.of(x).shape[0], 3, 2, 2), -1, 1, grain=1 / 16)
    attrs = {
        "mode": "linear", "align_corners": p.below(2),
        "padding_mode": p.one(("zeros", "border", "reflection")),
    }  # fmt: skip
    p.node("GridSample", [x, grid], attrs)


def roi_align(p: Part) -> None:
    x = p.leaf(DType.F32, (1, 2, 8, 8))
    rois = p.given(np.array([[0, 0, 4, 6], [1, 2, 7, 5]], np.float32), 50)
    at = p.given(np.zeros(2, np.int64), 50)
    attrs = {"output_height": 2, "output_width": 3, "sampling_ratio": p.below(3)}
    p.node("RoiAlign", [x, rois, at], attrs)


def loss(p: Part) -> None:
    batch, classes = p.one((1, 3, 5)), p.one((2, 4))
    scores = p.leaf(DType.F32, (batch, classes))
    at = indices(p, (batch,), classes, DType.I64)
    if (p.of(at) < 0).any():
        raise Discard
    op = p.one(("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"))
    p.node(op, [scores, at], {"reduction": p.one(("mean", "sum", "none"))})


def determinant(p: Part) -> None:
    p.node("Det", [p.leaf(DType.F32, (*p.shape(0, 1), 3, 3))])


def fourier(p: Part) -> None:
    x = p.leaf(DType.F32, (1 + p.below(2), p.one((4, 8, 5)), 1))
    attrs = {"onesided": p.below(2)}
    p.node("DFT", [x, None, p.constant(np.array(1, np.int64))], attrs)


def column(p: Part) -> None:
    x = p.leaf(DType.F32, (1, 2 * 4, 9))
    p.node("Col2Im", [x, p.ints([4, 4], 0), p.ints([2, 2], 0)], exact=True)


def unpool(p: Part) -> None:
    x = image(p, 2)
    if p.of(x).ndim != 4 or min(p.of(x).shape[2:]) < 2:
        raise Discard
    attrs = {"kernel_shape": (2, 2), "strides": (2, 2)}
    pooled, at = p.node("MaxPool", [x], attrs, outputs=2, exact=True)
    p.node("MaxUnpool", [pooled, at], attrs, exact=True)


def features(p: Part) -> None:
    x = p.pick(rank=lambda rank: rank == 2, exact=True)
    size = p.of(x).shape[1]
    if not size:
        raise Discard
    ml = "ai.onnx.ml::"
    choice = p.below(4)
    if choice == 0:
        attrs = {"offset": (0.5,) * size, "scale": (2.0,) * size}
        p.node(f"{ml}Scaler", [x], attrs)
    elif choice == 1:
        p.node(
            f"{ml}Normalizer",
            [p.leaf(DType.F32, p.of(x).shape, 0.5, 2)],
            {"norm": p.one(("L1", "L2", "MAX"))},
        )
    elif choice == 2:
        p.node(f"{ml}Binarizer", [x], {"threshold": 0.5}, exact=True, jumps=True)
    else:
        attrs = {"coefficients": (0.5, -0.25) * size, "intercepts": (1.0, 0.0), "targets": 2}
        p.node(f"{ml}LinearRegressor", [x], attrs)


STEPS: dict[str, Callable[[Part], None]] = {
    "com.microsoft::FusedMatMul": fused_matmul, "Gelu of com.microsoft": gelus,
    "com.microsoft::SkipLayerNormalization": skip_norm, "Attention": heads,
    "com.microsoft::Attention": projected_heads,
    "com.microsoft::GroupQueryAttention": grouped_heads,
    "RotaryEmbedding": rotary, "GridSample": grid_sample, "RoiAlign": roi_align,
    "SoftmaxCrossEntropyLoss": loss, "Det": determinant, "DFT": fourier, "Col2Im": column,
    "MaxUnpool": unpool, "ai.onnx.ml": features,
}  # fmt: skip
