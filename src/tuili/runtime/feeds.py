"""Feeds: what a caller hands in, checked and in the form that native code reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tuili.errors import InvalidArgument, Unsupported, nearest
from tuili.runtime.arrays import NATIVE_FLAGS, address_of
from tuili.runtime.given import as_array
from tuili.runtime.objects import checked_object
from tuili.runtime.plan import Plan
from tuili.tensors import Array, DType, TensorSpec, shape_text


def native_feeds(inputs: Sequence[TensorSpec], feeds: Mapping[str, Array], where: str) -> list[Any]:
    """The arrays in the order of the inputs; copied only when not contiguous, aligned, native.

    What native code sees as a handle stays the Python object that it is.
    """
    _check_names([spec.name for spec in inputs], feeds, "input", where)
    if missing := [str(spec) for spec in inputs if spec.name not in feeds]:
        given = ", ".join(feeds) or "nothing"
        raise InvalidArgument(f"{where}: no array for {'; '.join(missing)}; given: {given}")
    return [_native(spec, feeds[spec.name], where) for spec in inputs]


def _check_names(known: Sequence[str], given: Mapping[str, Array], what: str, where: str) -> None:
    # Callers without types hand in whatever they have.
    if not isinstance(given, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidArgument(
            f"{where}: expected a mapping from {what} names to arrays, found {type(given).__name__}"
        )
    for name in given:
        if name not in known:
            raise InvalidArgument(
                f"{where}: no {what} {name!r}.{nearest(str(name), known)} "
                f"{what.capitalize()}s: {', '.join(known)}"
            )


def _native(spec: TensorSpec, value: object, where: str) -> Any:
    if spec.is_object:
        return checked_object(spec, value, where)
    array = as_array(spec, value, where)
    expected = spec.dtype.numpy
    if array.dtype != expected:
        # Text of the other byte order is the same type in another spelling.
        if array.dtype.newbyteorder("=") != expected:
            raise InvalidArgument(
                f"{where}: input {spec.name!r} has dtype {_dtype_text(array.dtype)}, expected "
                f"{spec.dtype.value} for {spec}; convert it with .astype({str(expected)!r})"
            )
        array = array.astype(expected)
    if array.flags.num & NATIVE_FLAGS != NATIVE_FLAGS:
        array = array.copy(order="C")
    return array


def _dtype_text(dtype: np.dtype[Any]) -> str:
    try:
        return DType.of(dtype).value
    except Unsupported:
        return str(dtype)


def native_results(
    plan: Plan, given: Mapping[str, Array], feeds: Sequence[Array], where: str
) -> dict[str, Array | None]:
    """The caller's array for every output in order, None for those that were not given."""
    _check_names([name for name, _, _ in plan.outputs], given, "output", where)
    results: dict[str, Array | None] = {}
    for name, shape, dtype in plan.outputs:
        array = given.get(name)
        if array is not None:
            others = [*feeds, *(other for other in results.values() if other is not None)]
            problem = _result_problem(array, shape, dtype, others)
            if problem:
                raise InvalidArgument(f"{where}: the array for output {name!r} {problem}")
        results[name] = array
    return results


def _result_problem(
    array: object, shape: tuple[int, ...] | None, dtype: np.dtype[Any], others: Sequence[Array]
) -> str:
    """Why native code cannot write to `array`; empty when it can."""
    if shape is None:
        return "cannot be given: the output's shape depends on the data"
    if not isinstance(array, np.ndarray):
        return f"is a {type(array).__name__}, expected a NumPy array"
    if array.dtype != dtype or array.shape != shape:
        found = f"{_dtype_text(array.dtype)}{shape_text(array.shape)}"
        return f"is {found}, expected {_dtype_text(dtype)}{shape_text(shape)}"
    if array.flags.num & NATIVE_FLAGS != NATIVE_FLAGS or not array.flags.writeable:
        return "is read-only or not C-contiguous, expected memory to write to in order"
    if any(_overlap(array, other) for other in others):
        return "shares memory with another array of the call, expected memory of its own"
    return ""


def _overlap(one: Array, other: Array) -> bool:
    """Whether two contiguous arrays share bytes; several times faster than NumPy's own test."""
    start, other_start = address_of(one), address_of(other)
    return start < other_start + other.nbytes and other_start < start + one.nbytes
