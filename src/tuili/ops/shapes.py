"""Shape rules that many operators share, and ways to compute with known contents."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tuili.ops.contents import as_dims
from tuili.ops.op import Meaning, Result, ShapeRule, Symbolic
from tuili.ops.rationals import Quotient
from tuili.ops.site import Site
from tuili.tensors import Array, DType


def same(site: Site) -> list[Result]:
    """Every output has the shape of the first input."""
    return [site.shape(0)] * site.num_outputs


def alike(site: Site) -> list[Result]:
    """Every output has the shape that all inputs have."""
    shape = site.shape(0)
    for index in range(1, site.num_inputs):
        if site.has(index):
            what = f"shapes of inputs 0 and {index}"
            shape = site.same_shape(shape, site.shape(index), what)
    return [shape] * site.num_outputs


def broadcast(site: Site) -> list[Result]:
    """The inputs broadcast together."""
    shapes = [site.shape(index) for index in range(site.num_inputs) if site.has(index)]
    return [site.broadcast(*shapes)] * site.num_outputs


def scalar(site: Site) -> list[Result]:
    """Rank 0."""
    return [()] * site.num_outputs


def like(index: int) -> ShapeRule:
    """The shape of one input."""
    return lambda site: [site.shape(index)] * site.num_outputs


def unknown(site: Site) -> list[Result]:
    """Nothing is known but the element type."""
    return [None] * site.num_outputs


def each(function: Callable[..., Any], *, fractions: bool = False) -> Symbolic:
    """A symbolic meaning that works element by element; None anywhere means unknown.

    Only with `fractions` does the function see quotients that may leave a rest.
    """

    def symbolic(inputs: Sequence[Any], attrs: Mapping[str, Any], dtype: DType) -> Array | None:
        elements = [item if item.dtype == object else as_dims(item) for item in inputs]
        operands = [item for item in elements if item is not None]
        if len(operands) < len(elements):
            return None
        shape = np.broadcast_shapes(*(item.shape for item in operands))
        flat = [np.broadcast_to(item, shape).ravel() for item in operands]
        if not fractions and any(isinstance(item, Quotient) for items in flat for item in items):
            return None
        results = [function(*items) for items in zip(*flat, strict=True)]
        return None if None in results else objects(results, shape)

    return symbolic


def moved(meaning: Meaning, data: int = 1) -> Symbolic:
    """A symbolic meaning that only moves elements; inputs from `data` on must be numbers."""

    def symbolic(inputs: Sequence[Any], attrs: Mapping[str, Any], dtype: DType) -> Any:
        if any(item is not None and item.dtype == object for item in inputs[data:]):
            return None
        operands = [np.asarray(item, object) for item in inputs[:data]]
        return meaning(*operands, *inputs[data:], **attrs)

    return symbolic


def objects(items: Sequence[Any], shape: Sequence[int]) -> Array:
    """An object array of a shape from flat items."""
    array = np.empty(len(items), object)
    array[:] = [int(item) if isinstance(item, bool | np.generic) else item for item in items]
    return array.reshape(tuple(shape))
