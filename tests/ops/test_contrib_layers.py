"""Mixtures of experts, layers with a state, and what onnxruntime runs on other devices only."""

# ruff: noqa: E501 - the cases are a table
from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.ops.beside_onnxruntime import Case, check, f32, i32, model_of, u8
from tests.ops.from_onnx import graph_of
from tuili.ops.activations import gelu, sigmoid
from tuili.ops.infer import infer
from tuili.ops.interpret import run
from tuili.tensors import Array

TOKENS, EXPERTS, WIDTH, INNER = 5, 4, 32, 32


def experts(rows: int = INNER) -> list[Any]:
    return [
        f32(TOKENS, WIDTH),
        f32(TOKENS, EXPERTS),
        f32(EXPERTS, rows, WIDTH) / 4,
        f32(EXPERTS, rows),
        f32(EXPERTS, WIDTH, INNER) / 4,
        f32(EXPERTS, WIDTH),
    ]


def packed(block: int, *, zeros: bool, rows: int = INNER, bits: int = 4) -> list[Any]:
    def scales(count: int, width: int) -> Array:
        shape = (EXPERTS, count, width // block) if block else (EXPERTS, count)
        return (np.abs(f32(*shape)) / 20 + 0.01).astype(np.float32)

    def middle(count: int, width: int) -> Array:
        return (
            u8(EXPERTS, count, -(-(width // block) * bits // 8))
            if block
            else u8(EXPERTS, count * bits // 8)
        )

    each = 8 // bits
    return [
        f32(TOKENS, WIDTH), f32(TOKENS, EXPERTS), u8(EXPERTS, rows, WIDTH // each), scales(rows, WIDTH), f32(EXPERTS, rows),
        u8(EXPERTS, WIDTH, INNER // each), scales(WIDTH, INNER), f32(EXPERTS, WIDTH),
        *([None, None, None, middle(rows, WIDTH), middle(WIDTH, INNER)] if zeros else []),
    ]  # fmt: skip


SWIGLU = {"activation_type": "swiglu", "swiglu_fusion": 1, "k": 2, "normalize_routing_weights": 1}
QUANTIZED = {"expert_weight_bits": 4, "weights_prepacked": 0}
B, T, H, D, M = 2, 4, 2, 4, 3


def linear(rule: str, past: Any, *, wide: bool = False, queries: int = H) -> Case:
    inputs = [f32(B, T, queries * D), f32(B, T, H * D) / 2, f32(B, T, H * M), past, None, None]
    if "gated" in rule:
        inputs[4] = -np.abs(f32(B, T, H * D if wide else H))
    if "delta" in rule:
        inputs[5] = np.abs(f32(B, T, H)) / 4
    while inputs[-1] is None:
        inputs.pop()
    return (
        "LinearAttention",
        inputs,
        {"q_num_heads": queries, "kv_num_heads": H, "update_rule": rule},
        2,
        1e-4,
    )


CASES: list[Case] = [
    *[("MoE", experts(), {"activation_type": name, "k": k}, 1, 1e-4) for name in ("relu", "gelu", "silu", "identity") for k in (1, 2)],
    ("MoE", experts(), {"activation_type": "silu", "k": 2, "normalize_routing_weights": 1}, 1, 1e-4),
    ("MoE", experts(2 * INNER), {**SWIGLU, "activation_alpha": 1.702, "activation_beta": 1.0, "swiglu_limit": 1.0}, 1, 1e-4),
    *[linear(rule, past, wide=wide) for rule in ("linear", "gated", "delta", "gated_delta") for past in (None, f32(B, H, D, M)) for wide in (False, True)],
    linear("linear", f32(B, H, D, M), queries=4),
    linear("linear", f32(B, H, D, M), queries=1),
    ("LinearAttentionGate", [f32(2, 3, 4), f32(4), -np.abs(f32(4)), f32(2, 3, 4)], {}, 2, 1e-5),
    ("CausalConvWithState", [f32(2, 5, 7), f32(5, 1, 3)], {}, 2, 1e-5),
    ("CausalConvWithState", [f32(2, 5, 1), f32(5, 1, 4), f32(5), f32(2, 5, 3)], {"activation": "swish"}, 2, 1e-5),
    ("CausalConvWithState", [f32(2, 5, 7), f32(5, 1, 3), f32(5), f32(2, 5, 4)], {"dilation": 2}, 2, 1e-5),
    ("CausalConvWithState", [f32(2, 7, 5), f32(5, 1, 3), f32(5), f32(2, 2, 5)], {"channels_last": 1}, 2, 1e-5),
    ("GatedRMSNorm", [f32(2, 3, 8), f32(4), f32(2, 3, 8)], {}, 1, 1e-5),
    ("GatedRMSNorm", [f32(2, 3, 8), f32(8), f32(2, 3, 8)], {"activation": "sigmoid"}, 1, 1e-5),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=[f"{case[0]}-{n}" for n, case in enumerate(CASES)])
def test_agrees_with_onnxruntime(case: Case) -> None:
    check(case)


@pytest.mark.parametrize("block", [0, 16])
@pytest.mark.parametrize("zeros", [False, True])
def test_experts_of_four_bits_agree_with_onnxruntime(block: int, zeros: bool) -> None:
    attrs = {**SWIGLU, **QUANTIZED, **({"block_size": block} if block else {})}
    inputs = packed(block, zeros=zeros, rows=2 * INNER)
    # The router's scores are the second input; everything else of it is weights.
    check(("QMoE", inputs, attrs, 1, 2e-2), weights=True)


# -- operators that onnxruntime has no kernel for on the CPU -------------------------------


def alone(op: str, inputs: list[Any], outputs: int = 1, **attrs: Any) -> list[Array]:
    model = model_of(op, inputs, attrs, outputs)
    graph = graph_of(model)
    infer(graph)
    return list(
        run(graph, {f"i{k}": item for k, item in enumerate(inputs) if item is not None}).values()
    )


def test_attention_over_packed_tokens_is_attention_without_the_padding() -> None:
    x, weights, bias, counts = f32(3, 4, 8), f32(8, 24), f32(24), i32(1, 2, 4)
    tokens, offsets, sums, most = alone("RemovePadding", [x, counts], 4)
    assert (sums.tolist(), most.tolist()) == ([0, 1, 3, 7], [4])
    assert offsets.ravel().tolist() == [0, 4, 5, 8, 9, 10, 11, 1, 2, 3, 6, 7]
    (packed_y,) = alone("PackedAttention", [tokens, weights, bias, offsets, sums], num_heads=2)
    (y,) = alone("RestorePadding", [packed_y, offsets])
    (expected,) = alone("Attention", [x, weights, bias, counts], num_heads=2)
    for row, count in enumerate(counts):
        np.testing.assert_allclose(y[row, :count], expected[row, :count], rtol=1e-5, atol=1e-5)
        assert not y[row, count:].any()
    q, k, v = np.split(tokens @ weights, 3, -1)
    (same,) = alone("PackedMultiHeadAttention", [q, k, v, bias, offsets, sums], num_heads=2)
    np.testing.assert_allclose(same, packed_y, rtol=1e-5, atol=1e-5)


def test_relative_positions_fall_into_the_buckets_of_t5() -> None:
    table = np.arange(32, dtype=np.float32)[:, None]
    length = np.array([200], np.int64)
    (one_way,) = alone("RelativePositionBias", [table, length, length], max_distance=128)
    # Looking back: each near distance has a bucket of its own, far ones share them.
    assert one_way[0, 0, 150, [150, 149, 135, 134, 126, 60, 0, 199]].tolist() == [
        0,
        1,
        15,
        16,
        19,
        29,
        31,
        0,
    ]
    (both,) = alone(
        "RelativePositionBias", [table, length, length], max_distance=128, is_bidirectional=1
    )
    assert both[0, 0, 100, [100, 99, 101, 107, 108, 199]].tolist() == [0, 1, 17, 23, 24, 31]


@pytest.mark.parametrize("last", [0, 1])
@pytest.mark.parametrize("shape", [(2, 4), (2, 4, 1, 1), (2, 4, 5, 6)])
def test_a_skip_before_a_group_norm_is_added(last: int, shape: tuple[int, ...]) -> None:
    x, skip, bias, gamma, beta = f32(2, 4, 5, 6), f32(*shape), f32(4), f32(4), f32(4)
    total = x + skip.reshape(*shape[:2], *(shape[2:] or (1, 1))) + bias[:, None, None]
    expected = gelu_free_group_norm(total, gamma, beta)
    if last:
        x = np.ascontiguousarray(np.moveaxis(x, 1, -1))
        skip = np.ascontiguousarray(np.moveaxis(skip, 1, -1)) if skip.ndim == 4 else skip
    y, s = alone(
        "SkipGroupNorm", [x, gamma, beta, skip, bias], 2, groups=2, activation=1, channels_last=last
    )
    y, s = (np.moveaxis(item, -1, 1) if last else item for item in (y, s))
    np.testing.assert_allclose(s, total, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)


def gelu_free_group_norm(x: Array, gamma: Array, beta: Array) -> Array:
    groups = x.reshape(2, 2, -1)
    normal = (groups - groups.mean(-1, keepdims=True)) / np.sqrt(
        groups.var(-1, keepdims=True) + 1e-5
    )
    y = normal.reshape(x.shape) * gamma[:, None, None] + beta[:, None, None]
    return y * sigmoid(y)


X, W, BIAS = f32(2, 8), f32(8, 6), f32(6)
ALONE: list[tuple[str, list[Any], dict[str, Any], Array]] = [
    ("BiasSplitGelu", [X, f32(8) * 0], {}, X[:, :4] * gelu(X[:, 4:])),
    ("SwiGLU", [X], {}, X[:, :4] * sigmoid(X[:, :4]) * X[:, 4:]),
    ("FusedMatMulActivation", [X, W], {"activation": "Relu", "alpha": 0.5}, np.maximum(X @ W / 2, 0)),
    ("GemmFastGelu", [X, W, BIAS], {}, gelu(X @ W + BIAS, "tanh")),
    ("Rfft", [X], {}, np.stack([np.fft.rfft(X).real, np.fft.rfft(X).imag], -1)),
    ("Irfft", [f32(2, 5, 2) * 0 + 1], {"signal_ndim": 1}, np.fft.irfft(np.full((2, 5), 1 + 1j))),
    ("MulInteger", [u8(3), np.array(3, np.uint8), np.array([9, 2, 7], np.uint8), np.array(5, np.uint8)], {}, None),
    ("ReduceSumInteger", [np.array([[200, 100], [1, 2]], np.uint8)], {"axes": [1], "keepdims": 0}, np.array([300, 3], np.uint32)),
    ("IsAllFinite", [X, np.array([np.inf], np.float32)], {}, np.array(False)),
    ("BiasDropout", [X, BIAS[:1], X], {}, X + BIAS[:1] + X),
    ("GatedRelativePositionBias", [f32(1, 2, 4) * 0, f32(4) * 0, np.ones((1, 2, 2, 2), np.float32), f32(2, 4), f32(4) * 0, np.full((1, 2, 1, 1), 3, np.float32)],
     {"num_heads": 2}, np.full((1, 2, 2, 2), 0.5 * (0.5 * 3 - 1) + 2, np.float32)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("op", "inputs", "attrs", "expected"), ALONE, ids=[case[0] for case in ALONE]
)
def test_means_what_its_definition_says(
    op: str, inputs: list[Any], attrs: dict[str, Any], expected: Any
) -> None:
    if op == "MulInteger":
        expected = (inputs[0].astype(np.int32) - 3) * np.array([4, -3, 2])
    (found,) = alone(op, inputs, **attrs)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
