"""Objects of a run: values that native code only passes on, by handle.

Text, sequences, optionals, maps and tensors whose rank nobody knows stay Python objects. Native
code holds an int64 in their place: the number of the object in a list that lives as long as the
run. Host steps are called on the thread that called `run`, so the list is the thread's.
"""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import numpy as np

from tuili.errors import InvalidArgument
from tuili.tensors import Array, DType, TensorSpec


class _Current(threading.local):
    objects: list[Any] | None = None


_current = _Current()


@contextmanager
def objects_of_run() -> Generator[list[Any]]:
    """A list for the objects of one run on this thread; a run inside of it has its own."""
    before, _current.objects = _current.objects, []
    try:
        yield _current.objects
    finally:
        _current.objects = before


def current_objects() -> list[Any]:
    """The objects of the run that this thread is in."""
    assert _current.objects is not None, "only a model with objects hands out handles"
    return _current.objects


def handle_of(value: Any, objects: list[Any]) -> Array:
    """The handle of a new object, as native code reads it: int64[]."""
    objects.append(value)
    return np.array(len(objects) - 1, np.int64)


def checked_object(spec: TensorSpec, value: Any, where: str) -> Any:
    """What a caller gave for an object input, as the steps of a model expect it.

    Text may be any array or nested list of `str` or of `bytes`, which should be UTF-8; bytes that
    are none are kept as they are (surrogates). Raises InvalidArgument.
    """
    if not spec.type:
        return _text(spec, value, where)
    kind, _, _ = spec.type.partition("<")
    expected = {"seq": list | tuple, "map": dict, "optional": object}.get(kind)
    if expected is None:
        return _tensor(spec, value, where)
    if not isinstance(value, expected):
        names = {"seq": "a list", "map": "a dictionary"}
        raise _wrong(spec, value, names.get(kind, "a value"), where)
    return list(value) if kind == "seq" else value


def _tensor(spec: TensorSpec, value: Any, where: str) -> Array:
    array = np.asarray(value)
    if DType.of(array.dtype) is not spec.dtype:
        raise _wrong(spec, value, f"an array of {spec.dtype.value}", where)
    return array


def _text(spec: TensorSpec, value: Any, where: str) -> Array:
    # An array of `bytes` would lose zeros at the end.
    array = value if isinstance(value, np.ndarray) else np.asarray(value, object)
    if array.dtype.kind not in "OUST":
        raise _wrong(spec, value, "text", where)
    text = np.empty(array.shape, object)
    flat = text.reshape(-1)
    for index, item in enumerate(array.ravel().tolist()):
        if isinstance(item, bytes):
            flat[index] = item.decode(errors="surrogateescape")
        elif isinstance(item, str):
            flat[index] = item
        else:
            raise _wrong(spec, item, "text", where)
    return text


def _wrong(spec: TensorSpec, value: Any, expected: str, where: str) -> InvalidArgument:
    found = type(value).__name__
    if isinstance(value, np.ndarray):
        found = f"an array of {value.dtype}"
    return InvalidArgument(
        f"{where}: input {spec.name!r}: found {found}, expected {expected} for {spec}"
    )
