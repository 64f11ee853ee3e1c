"""com.microsoft: layers that carry a state from token to token: linear attention, convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tuili.ir import TensorType
from tuili.ops.activations import sigmoid, softplus
from tuili.ops.attention import merge_heads, split_heads
from tuili.ops.op import REQUIRED, Op, Result, op
from tuili.ops.shapes import same
from tuili.ops.site import Site
from tuili.tensors import Array, Dim

# -- linear attention ----------------------------------------------------------------------


def _recurrence(
    q: Array, k: Array, v: Array, state: Array, decay: Array | None, rate: Array | None, rule: str
) -> tuple[Array, list[Array]]:
    """[B, H, T, ...] tokens through states [B, H, d, m]; the outputs and the state after each.

    S = exp(g) S + k (rate (v - S' k)); o = S' q, where the rule leaves terms out.
    """
    outputs: list[Array] = []
    states: list[Array] = []
    for t in range(v.shape[2]):
        if "gated" in rule and decay is not None:
            state = state * np.exp(decay[:, :, t, :, None])
        new = v[:, :, t]
        if "delta" in rule and rate is not None:
            new = rate[:, :, t] * (new - np.einsum("bhdm,bhd->bhm", state, k[:, :, t]))
        state = state + k[:, :, t, :, None] * new[:, :, None, :]
        states.append(state)
        outputs.append(np.einsum("bhd,bhdm->bhm", q[:, :, t], state))
    empty = np.zeros((*v.shape[:2], 0, v.shape[3]), np.float32)
    return np.stack(outputs, 2) if outputs else empty, states


def _repeated(x: Array, heads: int) -> Array:
    """Heads that several others share, repeated for them."""
    return np.repeat(x, heads // x.shape[1], 1)


def _window(first: Array, states: Sequence[Array], count: int) -> Array:
    """The last state, or those after each of the last tokens, zeros where there are fewer."""
    if not count:
        return states[-1] if states else first
    missing = max(count - len(states), 0)
    return np.stack(
        [np.zeros_like(first)] * missing + list(states[len(states) - count + missing :])
    )


def _linear_attention(
    query: Array, key: Array, value: Array, past: Array | None = None, decay: Array | None = None,
    beta: Array | None = None, **attrs: Any,
) -> tuple[Array, Array]:  # fmt: skip
    heads, shared, window = attrs["q_num_heads"], attrs["kv_num_heads"], attrs["state_window"]
    most = max(heads, shared)
    q = split_heads(query, heads).astype(np.float32)
    k, v = (split_heads(x, shared).astype(np.float32) for x in (key, value))
    fade = None if decay is None else split_heads(decay, shared).astype(np.float32)
    rate = None if beta is None else split_heads(beta, beta.shape[-1]).astype(np.float32)
    state = np.zeros((k.shape[0], shared, k.shape[3], v.shape[3]), np.float32)
    if past is not None:
        state = (past[-1] if window else past).astype(np.float32)
    scale = attrs["scale"] or 1 / np.sqrt(q.shape[-1])
    q, k, v, state = (_repeated(x, most) for x in (q * np.float32(scale), k, v, state))
    fade, rate = (None if x is None else _repeated(x, most) for x in (fade, rate))
    y, states = _recurrence(q, k, v, state, fade, rate, attrs["update_rule"])
    kept = _window(state, states, window)[..., :: most // shared, :, :]
    kind = query.dtype if past is None else past.dtype
    return merge_heads(y).astype(query.dtype), kept.astype(kind)


def _linear_shape(site: Site) -> list[Result]:
    q, k, v = site.need_rank(0, 3), site.need_rank(1, 3), site.need_rank(2, 3)
    heads, shared = site.attr("q_num_heads"), site.attr("kv_num_heads")
    size = v[2] // shared
    state: tuple[Dim, ...] = (q[0], shared, k[2] // shared, size)
    if site.attr("state_window"):
        state = (site.attr("state_window"), *state)
    kind = site.dtype(3) if site.has(3) else site.dtype(0)
    return [(q[0], q[1], max(heads, shared) * size), TensorType(kind, state)]


def _gate(
    a: Array, dt_bias: Array, decay_scale: Array, b: Array | None = None
) -> tuple[Array, Array]:
    decay = decay_scale * softplus(a.astype(np.float32) + dt_bias)
    beta = np.zeros(0, np.float32) if b is None else sigmoid(b.astype(np.float32))
    return decay.astype(a.dtype), beta.astype(a.dtype)


# -- a causal convolution ------------------------------------------------------------------


def _causal_conv(
    x: Array, weight: Array, bias: Array | None = None, past: Array | None = None, **attrs: Any
) -> tuple[Array, Array]:
    """Each channel with its own kernel, along the last axis; the state is what it looks back on."""
    if attrs["ndim"] != 1:
        raise ValueError(f"ndim is {attrs['ndim']}; only 1 is supported")
    window, last = attrs["state_window"], attrs["channels_last"]
    shape = x.shape
    if last:
        x = np.moveaxis(x.reshape(*shape[:2], -1), 1, 2)
    taps, step = weight.shape[-1], attrs["dilation"]
    back = (taps - 1) * step
    state = np.zeros((*x.shape[:2], back), x.dtype)
    if past is not None:
        state = past[-1] if window else past
        state = np.moveaxis(state.reshape(len(state), back, -1), 1, 2) if last else state
    whole = np.concatenate([state, x], -1)
    length = x.shape[-1]
    y = np.zeros(x.shape, np.float32)
    for tap in range(taps):
        y += whole[..., tap * step : tap * step + length] * weight[:, 0, tap, None]
    y = y if bias is None else y + bias[:, None]
    if attrs["activation"] in ("silu", "swish"):
        y = y * sigmoid(y)
    # Views of the whole that end after each token.
    states = [
        whole[..., t + 1 : t + 1 + back] for t in range(max(length - (window or 1), 0), length)
    ]
    kept = _window(state, states, window)
    if last:
        kept = np.moveaxis(kept, -1, -2).reshape(*kept.shape[:-2], back, *shape[2:])
        return np.moveaxis(y, 2, 1).reshape(shape).astype(x.dtype), kept
    return y.astype(x.dtype), kept


def _conv_shape(site: Site) -> list[Result]:
    shape = site.shape(0)
    back = (site.shape(1)[-1] - 1) * site.attr("dilation")
    if site.attr("channels_last"):
        state: tuple[Dim, ...] = (shape[0], back, *shape[2:])
    else:
        state = (*shape[:-1], back)
    if site.attr("state_window"):
        state = (site.attr("state_window"), *state)
    return [shape, state]


# -- a norm behind a gate ------------------------------------------------------------------


def _gated_rms_norm(x: Array, scale: Array, gate: Array, activation: str, epsilon: float) -> Array:
    wide, z = x.astype(np.float32).reshape(-1, scale.shape[0]), gate.astype(np.float32)
    root = np.sqrt(np.square(wide).mean(-1, keepdims=True) + np.float32(epsilon))
    y = (wide / root * scale.astype(np.float32)).reshape(x.shape)
    return (y * (sigmoid(z) if activation == "sigmoid" else z * sigmoid(z))).astype(x.dtype)


def _row(name: str, inputs: str, outputs: str, infer: Any, meaning: Any, **attrs: Any) -> Op:
    return op(f"com.microsoft::{name}", inputs, outputs, infer, meaning, attrs=attrs)


ROWS = (
    _row(
        "LinearAttention",
        "query key value past_state?:S decay? beta?",
        "output present_state:any",
        _linear_shape,
        _linear_attention,
        chunk_size=64,
        kv_num_heads=REQUIRED,
        q_num_heads=REQUIRED,
        scale=0.0,
        state_window=0,
        update_rule="gated_delta",
    ),
    _row(
        "LinearAttentionGate",
        "a dt_bias:f32 decay_scale:f32 b?",
        "decay beta",
        lambda site: [site.shape(0), site.shape(3) if site.has(3) else (0,)],
        _gate,
    ),
    _row(
        "CausalConvWithState",
        "input weight bias? past_state?",
        "output present_state",
        _conv_shape,
        _causal_conv,
        activation="none",
        channels_last=0,
        dilation=1,
        ndim=1,
        state_window=0,
    ),
    _row(
        "GatedRMSNorm", "X scale gate", "Y", same, _gated_rms_norm, activation="silu", epsilon=1e-5
    ),
)
