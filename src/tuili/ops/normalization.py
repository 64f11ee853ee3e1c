"""Normalisations: batch, layer, instance, group, RMS, LRN, Lp, mean-variance, and softmax."""

from __future__ import annotations

from typing import Any

import numpy as np

from tuili.ops.op import REQUIRED, Op, Result, op
from tuili.ops.shapes import same
from tuili.ops.site import Site
from tuili.tensors import Array, shape_text


def _wide(array: Array) -> Array:
    return array.astype(np.float32) if array.dtype.name in ("float16", "bfloat16") else array


def _along_channels(vector: Array, rank: int) -> Array:
    return _wide(vector).reshape(-1, *[1] * (rank - 2))


# -- statistics over a batch or a sample ---------------------------------------------------


def _batch_norm_shape(site: Site) -> list[Result]:
    x = site.shape(0)
    if len(x) > 1:
        for index, name in enumerate(("scale", "B", "input_mean", "input_var"), 1):
            site.same(x[1], site.need_rank(index, 1)[0], f"channels of X against {name}")
    return [x, site.shape(3), site.shape(4)]


def _batch_norm(
    X: Array,
    scale: Array,
    B: Array,
    mean: Array,
    var: Array,
    *,
    epsilon: float,
    momentum: float,
    training_mode: int,
) -> Any:
    rank = max(X.ndim, 2)
    x = _wide(X)
    if training_mode:
        axes = tuple(axis for axis in range(X.ndim) if axis != 1)
        batch_mean, batch_var = x.mean(axes), x.var(axes)
        running = tuple(
            old * momentum + new * (1 - momentum)
            for old, new in ((mean, batch_mean), (var, batch_var))
        )
    else:
        batch_mean, batch_var, running = mean, var, (mean, var)
    centre, spread, gain, bias = (
        _along_channels(item, rank) for item in (batch_mean, batch_var, scale, B)
    )
    y = gain * (x - centre) / np.sqrt(spread + np.float32(epsilon)) + bias
    return (y.astype(X.dtype), *running)


def normalize(x: Array, axes: tuple[int, ...], epsilon: float) -> tuple[Array, Array, Array]:
    """The input with mean 0 and variance 1 over axes; its mean; 1 / its deviation."""
    mean = x.mean(axes, keepdims=True)
    inverse = 1 / np.sqrt(x.var(axes, keepdims=True) + x.dtype.type(epsilon))
    return (x - mean) * inverse, mean, inverse


def _instance_norm(X: Array, scale: Array, B: Array, epsilon: float) -> Array:
    y, _, _ = normalize(_wide(X), tuple(range(2, X.ndim)), epsilon)
    return y * _along_channels(scale, X.ndim) + _along_channels(B, X.ndim)


def _group_norm(
    X: Array, scale: Array, bias: Array, *, epsilon: float, num_groups: int, stash_type: int
) -> Array:
    x = _wide(X)
    grouped = x.reshape(X.shape[0], num_groups, -1)
    y = normalize(grouped, (2,), epsilon)[0].reshape(X.shape)
    return y * _along_channels(scale, X.ndim) + _along_channels(bias, X.ndim)


def _channels_shape(site: Site) -> list[Result]:
    """The input's shape; scale and bias have one element per channel."""
    shape = site.shape(0)
    if len(shape) < 2:
        site.fail(f"input 0 has shape {shape_text(shape)}; expected rank 2 or more: [N, C, ...]")
    for index in (1, 2):
        site.same(site.need_rank(index, 1)[0], shape[1], "scale and bias against the channels")
    return [shape]


def _layer_norm_shape(site: Site) -> list[Result]:
    shape = site.shape(0)
    axis = site.axis(site.attr("axis"), len(shape))
    for index in (1, 2):
        if site.has(index):
            site.within(index, shape, "scale and bias against the input")
    stats = (*shape[:axis], *[1] * (len(shape) - axis))
    return [shape, stats, stats]


def layer_norm(
    X: Array,
    Scale: Array,
    B: Array | None = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,
) -> tuple[Array, Array, Array]:
    """Normalisation over the axes from `axis` on (LayerNormalization-17)."""
    axes = tuple(range(axis % X.ndim, X.ndim))
    y, mean, inverse = normalize(_wide(X), axes, epsilon)
    y = y * _wide(Scale)
    return (y if B is None else y + _wide(B)).astype(X.dtype), mean, inverse


def rms_norm(
    X: Array, scale: Array, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1
) -> Array:
    """The input over its root mean square (RMSNormalization-23)."""
    x = _wide(X)
    axes = tuple(range(axis % X.ndim, X.ndim))
    square = np.mean(x * x, axes, keepdims=True)
    y = x / np.sqrt(square + x.dtype.type(epsilon))
    return y.astype(X.dtype) * scale


def _lrn(X: Array, *, alpha: float, beta: float, bias: float, size: int) -> Array:
    x = _wide(X)
    squares = x * x
    total = np.zeros_like(squares)
    channels = X.shape[1]
    for channel in range(channels):
        first = max(channel - (size - 1) // 2, 0)
        last = min(channel + size // 2, channels - 1)
        total[:, channel] = squares[:, first : last + 1].sum(1)
    return x / (bias + alpha / size * total) ** beta


def _lp_norm(X: Array, axis: int, p: int) -> Array:
    x = _wide(X)
    total = (np.abs(x) ** p).sum(axis, keepdims=True)
    size = total if p == 1 else np.sqrt(total)
    return np.where(size == 0, 0, x / np.where(size == 0, 1, size))


def _mean_variance(X: Array, axes: tuple[int, ...]) -> Array:
    x = _wide(X)
    centred = x - x.mean(axes, keepdims=True)
    deviation = np.sqrt((x * x).mean(axes, keepdims=True) - x.mean(axes, keepdims=True) ** 2)
    return centred / (deviation + np.float32(1e-9))


# -- softmax -------------------------------------------------------------------------------


def softmax(X: Array, axis: int = -1) -> Array:
    """Exponentials that add up to 1 along an axis.

    Each step is rounded to the element type, as in the body that the standard gives (Softmax-13).
    """
    if not X.size:
        return X
    powers = np.exp(X - X.max(axis, keepdims=True))
    return powers / powers.sum(axis, keepdims=True)


def log_softmax(X: Array, axis: int = -1) -> Array:
    """The logarithm of softmax, without overflow."""
    x = _wide(X)
    if not x.size:
        return x
    shifted = x - x.max(axis, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis, keepdims=True))


def _hardmax(X: Array, axis: int) -> Array:
    best = np.expand_dims(X.argmax(axis), axis)
    result = np.zeros_like(X)
    np.put_along_axis(result, best, np.ones((), X.dtype), axis)
    return result


def _softmax_shape(site: Site) -> list[Result]:
    shape = site.shape(0)
    site.axis(site.attr("axis"), len(shape))
    return [shape]


def _softmax_row(name: str, meaning: Any) -> Op:
    return op(name, "input", "output", _softmax_shape, meaning, allow="float", attrs={"axis": -1})


_EPSILON = {"epsilon": 1e-5}

ROWS = (
    op(
        "BatchNormalization",
        "X scale:U B:U input_mean:V input_var:V",
        "Y running_mean:V running_var:V",
        _batch_norm_shape,
        _batch_norm,
        allow="float",
        attrs={**_EPSILON, "momentum": 0.9, "training_mode": 0},
    ),
    op(
        "InstanceNormalization",
        "input scale B",
        "output",
        _channels_shape,
        _instance_norm,
        allow="float",
        attrs=_EPSILON,
    ),
    op(
        "GroupNormalization",
        "X scale bias",
        "Y",
        _channels_shape,
        _group_norm,
        allow="float",
        attrs={**_EPSILON, "num_groups": REQUIRED, "stash_type": 1},
    ),
    op(
        "LayerNormalization",
        "X Scale B?",
        "Y Mean:f32 InvStdDev:f32",
        _layer_norm_shape,
        layer_norm,
        allow="float",
        attrs={"axis": -1, **_EPSILON, "stash_type": 1},
    ),
    op(
        "RMSNormalization",
        "X scale:V",
        "Y:V",
        _layer_norm_shape,
        rms_norm,
        allow="float",
        attrs={"axis": -1, **_EPSILON, "stash_type": 1},
    ),
    op(
        "LRN",
        "X",
        "Y",
        same,
        _lrn,
        allow="float",
        attrs={"alpha": 1e-4, "beta": 0.75, "bias": 1.0, "size": REQUIRED},
    ),
    op("LpNormalization", "input", "output", same, _lp_norm, attrs={"axis": -1, "p": 2}),
    op(
        "MeanVarianceNormalization",
        "X",
        "Y",
        same,
        _mean_variance,
        allow="float",
        attrs={"axes": (0, 2, 3)},
    ),
    _softmax_row("Softmax", softmax),
    _softmax_row("LogSoftmax", log_softmax),
    _softmax_row("Hardmax", _hardmax),
)
