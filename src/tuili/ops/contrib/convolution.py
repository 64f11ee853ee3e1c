"""com.microsoft: fused convolutions, and convolutions and pools with the channels last."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tuili.ops.activations import elu, gelu, hard_sigmoid, leaky_relu, sigmoid, softplus
from tuili.ops.convolution import CONV_ATTRS, conv, conv_shape
from tuili.ops.op import Op, Result, op
from tuili.ops.pooling import POOL_ATTRS, max_pool, pool_shape
from tuili.ops.site import Site
from tuili.tensors import Array, Shape


def activate(x: Array, name: str | None, parameters: Sequence[float | None]) -> Array:
    """An activation by the name that fused nodes carry."""
    alpha, beta = ([*parameters, None, None])[:2]
    match (name or "").lower():
        case "":
            return x
        case "relu":
            return np.maximum(x, 0)
        case "tanh":
            return np.tanh(x)
        case "sigmoid":
            return sigmoid(x)
        case "leakyrelu":
            return leaky_relu(x, 0.01 if alpha is None else alpha)
        case "elu":
            return elu(x, 1.0 if alpha is None else alpha)
        case "softplus":
            return softplus(x)
        case "hardsigmoid":
            return hard_sigmoid(x, 0.2 if alpha is None else alpha, 0.5 if beta is None else beta)
        case "clip":
            return np.clip(x, alpha, beta)
        case "hardswish":
            return x * hard_sigmoid(x, 1 / 6, 0.5)
        case "gelu":
            return gelu(x)
        case _:
            raise ValueError(f"unknown activation {name!r} in a fused node")


def _fused_conv(
    X: Array, W: Array, B: Array | None = None, Z: Array | None = None, **attrs: Any
) -> Array:
    name, parameters = attrs.pop("activation"), attrs.pop("activation_params") or ()
    y = conv(X, W, B, **attrs)
    return activate(y if Z is None else y + Z, name, parameters)


class _ChannelsFirst(Site):
    """A site some of whose inputs have their channels last, seen with them in front."""

    turned: tuple[int, ...] = (0,)

    def shape(self, index: int = 0) -> Shape:
        shape = super().shape(index)
        return (shape[0], shape[-1], *shape[1:-1]) if index in self.turned else shape


class _AllChannelsFirst(_ChannelsFirst):
    """The same of data and weights."""

    turned = (0, 1)


def channels_last(
    rule: Any, weight: int | None = None, view: type[_ChannelsFirst] = _ChannelsFirst
) -> Any:
    """A shape rule for the same operator over [N, ..., C]."""

    def turned(site: Site) -> list[Result]:
        front = view(site.node, site.op, site.contents, site.infer_graph)
        results = rule(front) if weight is None else rule(front, weight)
        return [(shape[0], *shape[2:], shape[1]) for shape in results]

    return turned


def to_front(x: Array) -> Array:
    """[N, ..., C] as [N, C, ...]."""
    return np.moveaxis(x, -1, 1)


def to_back(x: Array) -> Array:
    """[N, C, ...] as [N, ..., C]."""
    return np.moveaxis(x, 1, -1)


def _nhwc_conv(X: Array, W: Array, B: Array | None = None, **attrs: Any) -> Array:
    """Weights are [M, ..., C / group], unlike those of NhwcFusedConv."""
    return to_back(conv(to_front(X), to_front(W), B, **attrs))


def _nhwc_fused_conv(
    X: Array, W: Array, B: Array | None = None, Z: Array | None = None, **attrs: Any
) -> Array:
    return to_back(_fused_conv(to_front(X), W, B, None if Z is None else to_front(Z), **attrs))


def _nhwc_max_pool(x: Array, **attrs: Any) -> Array:
    return to_back(max_pool(to_front(x), storage_order=0, count=1, **attrs))


def _row(name: str, inputs: str, outputs: str, infer: Any, meaning: Any, **attrs: Any) -> Op:
    return op(f"com.microsoft::{name}", inputs, outputs, infer, meaning, attrs=attrs)


_FUSED = {**CONV_ATTRS, "activation": None, "activation_params": None}

ROWS = (
    _row("FusedConv", "X W B? Z?", "Y", conv_shape, _fused_conv, **_FUSED),
    _row(
        "NhwcConv",
        "X W B?",
        "Y",
        channels_last(conv_shape, view=_AllChannelsFirst),
        _nhwc_conv,
        **CONV_ATTRS,
    ),
    _row("NhwcFusedConv", "X W B? Z?", "Y", channels_last(conv_shape), _nhwc_fused_conv, **_FUSED),
    _row("NhwcMaxPool", "x", "y", channels_last(pool_shape), _nhwc_max_pool, **POOL_ATTRS),
)
