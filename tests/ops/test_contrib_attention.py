"""Attention of com.microsoft in all its forms against onnxruntime."""

# ruff: noqa: E501 - the cases are a table
from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.ops.beside_onnxruntime import RNG, Case, check, f32, i8, i32, scale, u8, zero
from tuili.tensors import Array

THREE = [f32(2, 3, 8), f32(2, 5, 8), f32(2, 5, 8)]
PAST = [f32(2, 2, 4, 4), f32(2, 2, 4, 4)]
BUFFER = [f32(2, 2, 6, 4), f32(2, 2, 6, 4), i32(4)]
ONE = [f32(2, 1, 8), f32(2, 1, 8), f32(2, 1, 8)]
MASK = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 0]], np.int32)
SELF = [f32(2, 3, 8), f32(8, 24), f32(24)]
BYTES = [u8(2, 3, 8), i8(8, 24), f32(24), scale(0.01), scale(0.01)]


def flags(*shape: int) -> Array:
    return RNG.integers(0, 2, shape).astype(np.int32)


def heads(op: str, inputs: list[Any], outputs: int = 1, **attrs: Any) -> Case:
    return op, inputs, {"num_heads": 2, **attrs}, outputs, 1e-4


CASES: list[Case] = [
    *[
        heads("MultiHeadAttention", *rest, **attrs)
        for rest, attrs in (
            ([[f32(2, 3, 8), f32(2, 2, 5, 4), f32(2, 2, 5, 4)]], {}),
            ([[f32(2, 3, 8), f32(2, 2, 5, 4), f32(2, 2, 5, 4), f32(24)]], {}),
            ([[*THREE, None, i32(5, 3)]], {}),
            ([[*THREE, None, i32(5, 3)]], {"mask_filter_value": -1.0}),
            ([[*THREE, None, i32(5, 3, 0, 3, 6, 0, 5, 8)]], {}),
            ([[*THREE, None, MASK]], {}),
            ([[*THREE, None, flags(2, 3, 5)]], {}),
            ([[*THREE, f32(24), None, f32(2, 1, 3, 5)]], {"scale": 0.3}),
            ([[f32(2, 3, 8)] * 3 + [None] * 3 + PAST, 3], {"unidirectional": 1}),
            ([[*ONE, None, flags(2, 5), None, *PAST], 3], {}),
        )
    ],
    heads("MultiHeadAttention", [*ONE, None, None, None, *BUFFER], 3),
    *[
        heads("Attention", *rest, **attrs)
        for rest, attrs in (
            ([[*SELF, i32(3, 2)]], {}),
            ([[*SELF, i32(3, 2, 0, 1)]], {}),
            ([[*SELF, np.array([[1, 1, 0], [0, 1, 1]], np.int32)]], {"unidirectional": 1}),
            ([[*SELF, flags(2, 3, 3)]], {"mask_filter_value": -2.0}),
            ([[*SELF, None, None, f32(1, 2, 3, 3)]], {"scale": 0.2}),
            ([[f32(2, 3, 8), f32(8, 28), f32(28)]], {"qkv_hidden_sizes": [8, 8, 12]}),
            ([[f32(2, 3, 8), f32(8, 24)]], {}),
            ([[f32(2, 1, 8), *SELF[1:], flags(2, 5), f32(2, 2, 2, 4, 4)], 2], {"unidirectional": 1}),
        )
    ],
    heads("QAttention", [*BYTES, np.array([[1, 1, 0], [0, 1, 1]], np.int32), zero(120), zero(1, np.int8)], unidirectional=1),
    heads("QAttention", [*BYTES, None, zero(120), zero(1, np.int8), f32(2, 2, 2, 4, 4)], 2, unidirectional=1),
    heads("DecoderMaskedMultiHeadAttention", [*ONE, None, None, *BUFFER], 3, past_present_share_buffer=1),
    heads("DecoderMaskedMultiHeadAttention", [*ONE, flags(2, 5), None, *BUFFER, None, None, f32(24)], 3, past_present_share_buffer=1),
    heads("DecoderMaskedMultiHeadAttention", [f32(2, 1, 8), f32(2, 2, 5, 4), f32(2, 2, 5, 4)]),
    heads(
        "DecoderMaskedMultiHeadAttention",
        [*[f32(4, 1, 8)] * 3, None, None, f32(4, 2, 6, 4), f32(4, 2, 6, 4), i32(4), i32(2), flags(2, 2, 6)],
        3, past_present_share_buffer=1,
    ),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=[f"{case[0]}-{n}" for n, case in enumerate(CASES)])
def test_agrees_with_onnxruntime(case: Case) -> None:
    # What lies in a buffer after the tokens that it holds is anyone's.
    shared = any(item is BUFFER[0] or item is BUFFER[1] for item in case[1]) or len(case[1]) == 10
    used = (slice(None), slice(None), slice(5))
    check(case, where={1: used, 2: used} if shared else None)


# -- GroupQueryAttention -------------------------------------------------------------------

HEADS, SHARED, SIZE = 4, 2, 16
ANGLES = [f32(32, 8), f32(32, 8)]


def step(
    rows: int, tokens: int, past: int | None, *more: Any, packed: bool = False, lengths: Any = None
) -> list[Any]:
    """The inputs of a step of `tokens` after a cache of `past`; `lengths` counts the keys of each row."""
    width = SIZE * SHARED
    if packed:
        new: list[Any] = [f32(rows, tokens, SIZE * HEADS + 2 * width), None, None]
    else:
        new = [f32(rows, tokens, SIZE * HEADS), f32(rows, tokens, width), f32(rows, tokens, width)]
    cache = (
        [None, None]
        if past is None
        else [f32(rows, SHARED, past, SIZE), f32(rows, SHARED, past, SIZE)]
    )
    lengths = lengths or [tokens + (past or 0)] * rows
    return [
        *new,
        *cache,
        i32(*(length - 1 for length in lengths)),
        np.array(max(lengths), np.int32),
        *more,
    ]


NONE = [None, None, None]
GROUPED: list[tuple[list[Any], dict[str, Any], int]] = [
    (step(2, 3, None), {}, 3),
    (step(2, 3, 0), {}, 3),
    (step(2, 1, 5), {}, 3),
    (step(2, 1, 5, *ANGLES, packed=True), {"do_rotary": 1}, 3),
    (step(1, 3, 5, *ANGLES), {"do_rotary": 1}, 3),
    (step(2, 3, None, *ANGLES), {"do_rotary": 1, "rotary_interleaved": 1}, 3),
    (step(2, 3, None, *ANGLES, np.array([[0, 1, 2], [4, 5, 6]])), {"do_rotary": 1}, 3),
    (step(2, 1, 5, *ANGLES, np.array([[3], [4]])), {"do_rotary": 1}, 3),
    (step(2, 6, None), {"local_window_size": 2}, 3),
    (step(2, 1, 8), {"local_window_size": 3}, 3),
    (step(2, 6, None), {"softcap": 1.5, "scale": 0.7}, 3),
    (step(2, 6, None), {"smooth_softmax": 1}, 3),
    (step(2, 1, 5), {"smooth_softmax": 1}, 3),
    (step(2, 6, None, *NONE, None, f32(HEADS)), {}, 3),
    (step(2, 1, 8, *NONE, None, f32(HEADS)), {"local_window_size": 4}, 3),
    (step(1, 3, 4, *NONE, f32(1, 1, 3, 7)), {}, 3),
    (step(2, 3, None), {"causal": 0}, 3),
    (step(2, 1, 4), {"causal": 0}, 3),
    (step(1, 5, None), {"qk_output": 1, "softcap": 1.0}, 4),
    (step(1, 3, 4), {"qk_output": 2}, 4),
    (step(2, 1, 8, lengths=[5, 7]), {}, 3),
    (step(1, 3, 12, *ANGLES, lengths=[7]), {"do_rotary": 1}, 3),
    (step(1, 1, 8, lengths=[11]), {"sliding_window_cache": 1, "local_window_size": 6}, 3),
    (step(1, 3, 8, lengths=[11]), {"sliding_window_cache": 1, "local_window_size": 8}, 3),
    (step(2, 12, 8, lengths=[12, 12]), {"sliding_window_cache": 1, "local_window_size": 6}, 3),
]  # fmt: skip


def _held(inputs: list[Any], attrs: dict[str, Any]) -> int:
    """How many positions of the cache mean something in every row."""
    length = int(inputs[5].min()) + 1
    if not attrs.get("sliding_window_cache"):
        return length
    room, window = inputs[3].shape[2], attrs["local_window_size"]
    chunk = room - window + 1
    return length - chunk * max(-(-(length - room) // chunk), 0)


@pytest.mark.parametrize(("inputs", "attrs", "outputs"), GROUPED, ids=range(len(GROUPED)))
def test_group_query_attention_agrees_with_onnxruntime(
    inputs: list[Any], attrs: dict[str, Any], outputs: int
) -> None:
    attrs = {"num_heads": HEADS, "kv_num_heads": SHARED, **attrs}
    used = (slice(None), slice(None), slice(_held(inputs, attrs)))
    check(("GroupQueryAttention", inputs, attrs, outputs, 1e-3), where={1: used, 2: used})


@pytest.mark.parametrize("mode", ["PER_TENSOR", "PER_CHANNEL"])
@pytest.mark.parametrize("tokens", [1, 3])
@pytest.mark.parametrize("bits", [8, 4])
def test_a_cache_of_integers_agrees_with_onnxruntime(mode: str, tokens: int, bits: int) -> None:
    inputs = step(1, tokens, 5, *NONE, None, None)
    shape = (1, SHARED, 5, SIZE)
    kinds = [i8(*shape) if bits == 8 else u8(*shape[:3], SIZE // 2) for _ in "kv"]
    factors = [
        np.abs(f32(*((1,) if mode == "PER_TENSOR" else (1, SHARED, 1, SIZE)))) / 50 + 0.01
        for _ in "kv"
    ]
    attrs = {
        "num_heads": HEADS,
        "kv_num_heads": SHARED,
        "k_quant_type": mode,
        "v_quant_type": mode,
        "kv_cache_bit_width": bits,
    }
    inputs = [*inputs[:3], *kinds, *inputs[5:], *[factor.astype(np.float32) for factor in factors]]
    check(("GroupQueryAttention", inputs, attrs, 3, 3e-2))


def test_the_padding_of_a_chunk_changes_nothing_else() -> None:
    inputs = step(2, 3, 8, *[None] * 9, i32(3, 2), lengths=[6, 5])
    attrs = {"num_heads": HEADS, "kv_num_heads": SHARED}
    used = (slice(None), slice(None), slice(5))
    real = (np.array([0, 0, 0, 1, 1]), np.array([0, 1, 2, 0, 1]))
    check(("GroupQueryAttention", inputs, attrs, 3, 1e-3), where={0: real, 1: used, 2: used})


# -- rotary --------------------------------------------------------------------------------

PLACES = np.array([[0, 1, 2], [3, 4, 5]])
ROTARY: list[Case] = [
    ("RotaryEmbedding", [f32(2, 3, 16), PLACES, f32(6, 2), f32(6, 2)], {"num_heads": 2, "rotary_embedding_dim": 4}, 1, 1e-5),
    ("RotaryEmbedding", [f32(2, 2, 3, 8), PLACES, f32(6, 2), f32(6, 2)], {"num_heads": 2, "rotary_embedding_dim": 4}, 1, 1e-5),
    *[
        ("MRotaryEmbedding", [f32(2, 2, 3, 16), RNG.integers(0, 6, (3, 2, 3)), f32(6, 8), f32(6, 8)],
         {"mrope_section": section, "mrope_layout": layout, "interleaved": layout}, 1, 1e-5)
        for layout, section in ((0, [4, 2, 2]), (1, [4, 2, 2]), (1, [3, 3, 2]))
    ],
]  # fmt: skip


@pytest.mark.parametrize("case", ROTARY, ids=[f"{case[0]}-{n}" for n, case in enumerate(ROTARY)])
def test_rotary_embeddings_agree_with_onnxruntime(case: Case) -> None:
    check(case)
