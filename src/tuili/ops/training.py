"""Optimizer steps of ai.onnx.preview.training: Adagrad, Adam, Momentum."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tuili.ops.op import REQUIRED, Op, Result, op
from tuili.ops.site import Site
from tuili.tensors import Array


def _adagrad(r: Array, t: Array, state: list[Array], attrs: dict[str, Any]) -> list[Array]:
    x, g, h = state
    rate = r / (1 + t * attrs["decay_factor"])
    slope = attrs["norm_coefficient"] * x + g
    squares = h + slope * slope
    return [x - rate * slope / (np.sqrt(squares) + attrs["epsilon"]), squares]


def _adam(r: Array, t: Array, state: list[Array], attrs: dict[str, Any]) -> list[Array]:
    x, g, v, h = state
    alpha, beta = attrs["alpha"], attrs["beta"]
    slope = attrs["norm_coefficient"] * x + g
    mean = alpha * v + (1 - alpha) * slope
    squares = beta * h + (1 - beta) * slope * slope
    rate = r * np.sqrt(1 - beta**t) / (1 - alpha**t) if t > 0 else r
    moved = x - rate * mean / (np.sqrt(squares) + attrs["epsilon"])
    return [(1 - attrs["norm_coefficient_post"]) * moved, mean, squares]


def _momentum(r: Array, t: Array, state: list[Array], attrs: dict[str, Any]) -> list[Array]:
    x, g, v = state
    slope = attrs["norm_coefficient"] * x + g
    speed = attrs["alpha"] * v + (attrs["beta"] if t > 0 else 1) * slope
    nesterov = attrs["mode"] == "nesterov"
    return [x - r * (slope + attrs["alpha"] * speed if nesterov else speed), speed]


def _row(name: str, step: Callable[..., list[Array]], columns: int, **attrs: Any) -> Op:
    """Inputs R, T, then `columns` tensors for every optimized one: all X, all G, ..."""

    def meaning(r: Array, t: Array, *tensors: Array, **values: Any) -> tuple[Array, ...]:
        count = len(tensors) // columns
        parts = [step(r, t, list(tensors[index::count]), values) for index in range(count)]
        rows = [part for column in zip(*parts, strict=True) for part in column]
        return tuple(row.astype(tensors[0].dtype) for row in rows)

    def shape(site: Site) -> list[Result]:
        count = (site.num_inputs - 2) // columns
        kept = [index for index in range(columns) if index != 1]
        return [site.shape(2 + column * count + index) for column in kept for index in range(count)]

    inputs, outputs = "R:R T:i64 inputs*:T", "outputs*:T"
    return op(f"ai.onnx.preview.training::{name}", inputs, outputs, shape, meaning, attrs=attrs)


ROWS = (
    _row("Adagrad", _adagrad, 3, decay_factor=0.0, epsilon=1e-6, norm_coefficient=0.0),
    _row(
        "Adam",
        _adam,
        4,
        alpha=0.9,
        beta=0.999,
        epsilon=1e-6,
        norm_coefficient=0.0,
        norm_coefficient_post=0.0,
    ),
    _row(
        "Momentum",
        _momentum,
        3,
        alpha=REQUIRED,
        beta=REQUIRED,
        mode=REQUIRED,
        norm_coefficient=REQUIRED,
    ),
)
