"""A Python function as a model: the steps of a pipeline that are written inline.

    def crop(image: np.ndarray, boxes: np.ndarray) -> dict[str, np.ndarray]: ...

Its parameters are the inputs by name; it gives its outputs by name, or the only one as it is. What
the step declares as a list is a list of arrays, of different sizes or none.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, cast

import msgspec
import numpy as np

from tuili.backends import BackendOptions, Specs
from tuili.backends.items import SHAPES, packed, unpacked
from tuili.backends.python import import_file
from tuili.errors import InvalidModel, nearest
from tuili.tensors import Array, TensorSpec

LISTS: Final = "lists"  # the parameter that says which of the tensors are lists, as JSON


class Lists(msgspec.Struct):
    """The tensors that are lists, with the dims of each of their items."""

    inputs: dict[str, list[int]] = {}
    outputs: dict[str, list[int]] = {}


_TO_LISTS: Final = msgspec.json.Decoder(Lists)


class FunctionModel:
    """A function with the tensors that its step declares."""

    def __init__(
        self, inputs: Specs, outputs: Specs, function: Callable[..., Any], lists: Lists
    ) -> None:
        self.inputs = inputs
        self.outputs = outputs
        self._function = function
        self._label = function.__name__
        self._lists = lists
        self._plain = [spec for spec in _own(inputs, lists.inputs) if spec.name not in lists.inputs]
        self._dtypes = {spec.name: spec.dtype.numpy for spec in _own(outputs, lists.outputs)}

    def run(self, inputs: dict[str, Array], /) -> dict[str, Array]:
        """The function's answer as arrays of the declared types."""
        given: dict[str, Any] = {spec.name: inputs[spec.name] for spec in self._plain}
        for name in self._lists.inputs:
            given[name] = unpacked(inputs[name], inputs[name + SHAPES])
        answer: object = self._function(**given)
        if not isinstance(answer, Mapping):
            answer = {next(iter(self._dtypes)): answer} if len(self._dtypes) == 1 else {}
        found = cast("Mapping[str, Any]", answer)
        missing = [name for name in self._dtypes if name not in found]
        if missing:
            raise InvalidModel(
                f"{self._label}() gave {sorted(found) or 'no outputs by name'}; "
                f"{missing[0]!r} is missing"
            )
        arrays = {
            name: self._array(name, found[name])
            for name in self._dtypes
            if name not in self._lists.outputs
        }
        for name, dims in self._lists.outputs.items():
            arrays |= self._packed(name, found[name], dims)
        return arrays

    def _packed(self, name: str, value: object, dims: Sequence[int]) -> dict[str, Array]:
        """A list as the two tensors that it crosses as."""
        if not isinstance(value, list | tuple):
            kind = type(value).__name__
            raise InvalidModel(f"{self._label}() gave {name!r} as {kind}; it is declared a list")
        items = [
            self._array(f"{name}[{at}]", item, self._dtypes[name])
            for at, item in enumerate(cast("Sequence[object]", value))
        ]
        for at, item in enumerate(items):
            if not _fits(item.shape, dims):
                raise InvalidModel(
                    f"{self._label}() gave {f'{name}[{at}]'!r} of shape {list(item.shape)}; each "
                    f"is declared {list(dims)}"
                )
        flat, shapes = packed(items, self._dtypes[name], len(dims))
        return {name: flat, name + SHAPES: shapes}

    def _array(self, name: str, value: object, dtype: np.dtype[Any] | None = None) -> Array:
        dtype = self._dtypes[name] if dtype is None else dtype
        if dtype == np.dtype(object):
            return _texts(value)
        array = np.ascontiguousarray(value)
        # ascontiguousarray makes a scalar a vector.
        array = array.reshape(np.shape(cast(Any, value)))
        if array.dtype != dtype and not np.can_cast(array.dtype, dtype, "same_kind"):
            raise InvalidModel(
                f"{self._label}() gave {name!r} as {array.dtype}, which is declared {dtype}"
            )
        return array.astype(dtype, copy=False)


def _own(specs: Specs, lists: Mapping[str, Any]) -> list[TensorSpec]:
    """The tensors that the function knows: the shapes of a list's items come with them."""
    beside = {name + SHAPES for name in lists}
    return [spec for spec in specs if spec.name not in beside]


def _fits(shape: Sequence[int], dims: Sequence[int]) -> bool:
    return len(shape) == len(dims) and all(
        dim in (-1, size) for size, dim in zip(shape, dims, strict=True)
    )


def _texts(value: object) -> Array:
    """BYTES: text is encoded as UTF-8."""
    array = np.asarray(value, dtype=object)
    flat = [text.encode() if isinstance(text, str) else text for text in array.ravel()]
    found = np.empty(len(flat), dtype=object)
    found[:] = flat
    return found.reshape(array.shape)


def load(path: Path, options: BackendOptions) -> FunctionModel:
    """The function that the parameter `function` names, in the file `path`."""
    name = options.parameters["function"]
    module = import_file(path)
    function = getattr(module, name, None)
    if not callable(function):
        known = [key for key, value in vars(module).items() if inspect.isfunction(value)]
        raise InvalidModel(f"{path} has no function {name!r}.{nearest(name, known)}")
    inputs, outputs = options.declared_inputs, options.declared_outputs
    lists = _TO_LISTS.decode(options.parameters.get(LISTS, "{}"))
    _check_parameters(path, function, [spec.name for spec in _own(inputs, lists.inputs)])
    return FunctionModel(inputs, outputs, function, lists)


def _check_parameters(path: Path, function: Callable[..., Any], names: list[str]) -> None:
    """The step's inputs must be what the function takes."""
    try:
        inspect.signature(function).bind(**dict.fromkeys(names))
    except TypeError as error:
        raise InvalidModel(
            f"{path}: {function.__name__}{inspect.signature(function)} does not take the step's "
            f"inputs {names}: {error}"
        ) from error
