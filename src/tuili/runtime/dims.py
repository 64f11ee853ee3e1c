"""Binding: what the shapes of the inputs say about the symbolic dims of a model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from tuili.errors import InvalidArgument
from tuili.tensors import Dim, TensorSpec, evaluate, shape_text, symbols_of

MAX_ELEMENTS = 1 << 44


def bind_dims(
    inputs: Sequence[TensorSpec], shapes: Sequence[tuple[int, ...]], where: str
) -> dict[str, int]:
    """The value of every symbol of the inputs; raises InvalidArgument when shapes do not fit."""
    for spec, shape in zip(inputs, shapes, strict=True):
        if len(shape) != len(spec.shape):
            raise InvalidArgument(
                f"{where}: input {spec.name!r} has shape {shape_text(shape)} of rank {len(shape)}, "
                f"expected {shape_text(spec.shape)} of rank {len(spec.shape)}"
            )
        # An empty array may claim any size in its other axes, and products of those would overflow.
        if math.prod(max(dim, 1) for dim in shape) > MAX_ELEMENTS:
            raise InvalidArgument(
                f"{where}: input {spec.name!r} has shape {shape_text(shape)}, "
                f"expected at most {MAX_ELEMENTS} elements"
            )
    bound: dict[str, int] = {}
    sources: dict[str, str] = {}
    open_dims = [
        (spec, axis, shape[axis])
        for spec, shape in zip(inputs, shapes, strict=True)
        for axis in range(len(shape))
    ]
    # Plain symbols first; then expressions, of which each may leave one symbol to find.
    while open_dims:
        waiting = [item for item in open_dims if not _settle(item, bound, sources, where)]
        if len(waiting) == len(open_dims):
            spec, axis, found = waiting[0]
            raise InvalidArgument(
                f"{where}: input {spec.name!r}: axis {axis} is {found}, which does not tell the "
                f"symbols of {spec.shape[axis]}"
            )
        open_dims = waiting
    _check(inputs, shapes, bound, sources, where)
    return bound


def _settle(
    item: tuple[TensorSpec, int, int], bound: dict[str, int], sources: dict[str, str], where: str
) -> bool:
    """Use one axis to find a symbol; whether the axis has nothing more to tell."""
    spec, axis, found = item
    dim = spec.shape[axis]
    unknown = symbols_of(dim) - bound.keys()
    if not unknown:
        return True
    if len(unknown) > 1:
        return False
    (name,) = unknown
    value = _solve(dim, name, found, bound)
    if value is None:
        return False
    bound[name] = value
    sources[name] = f"{spec.name}[{axis}]"
    return True


def _solve(dim: Dim, name: str, found: int, bound: Mapping[str, int]) -> int | None:
    """The value of `name` that makes `dim` equal to `found`; None when it is not linear in it."""
    at = [evaluate(dim, {**bound, name: value}) for value in (0, 1, 2)]
    slope = at[1] - at[0]
    if slope == 0 or at[2] - at[1] != slope:
        return None
    return (found - at[0]) // slope


def _check(
    inputs: Sequence[TensorSpec],
    shapes: Sequence[tuple[int, ...]],
    bound: Mapping[str, int],
    sources: Mapping[str, str],
    where: str,
) -> None:
    for spec, shape in zip(inputs, shapes, strict=True):
        for axis, (dim, found) in enumerate(zip(spec.shape, shape, strict=True)):
            expected = evaluate(dim, bound)
            if expected == found:
                continue
            names = sorted(symbols_of(dim))
            reason = ", ".join(f"{name} is {bound[name]} from {sources[name]}" for name in names)
            raise InvalidArgument(
                f"{where}: input {spec.name!r} has shape {shape_text(shape)}, expected "
                f"{shape_text(spec.shape)}: axis {axis} is {found}, expected {expected}"
                + (f" ({reason})" if reason else "")
            )
    for name, value in bound.items():
        if value < 0:
            raise InvalidArgument(
                f"{where}: dim {name} would be {value}, from the shape of {sources[name]}"
            )


def output_shape(spec: TensorSpec, dims: Mapping[str, int], where: str) -> tuple[int, ...]:
    """The shape of an output; raises InvalidArgument when the inputs are too small for it."""
    shape = tuple(evaluate(dim, dims) for dim in spec.shape)
    if min(shape, default=0) < 0:
        raise InvalidArgument(
            f"{where}: output {spec.name!r} of shape {shape_text(spec.shape)} would be "
            f"{shape_text(shape)} for {_values(dims)}: an input is too small"
        )
    return shape


def _values(dims: Mapping[str, int]) -> str:
    return ", ".join(f"{name} = {value}" for name, value in dims.items()) or "these inputs"
