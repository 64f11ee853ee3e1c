"""A Python function as a model: the steps of a pipeline that are written inline.

    def crop(image: np.ndarray, boxes: np.ndarray) -> dict[str, np.ndarray]: ...

Its parameters are the inputs by name; it gives its outputs by name, or the only one as it is.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np

from tuili.backends import BackendOptions, Specs
from tuili.backends.python import import_file
from tuili.errors import InvalidModel, nearest
from tuili.tensors import Array


class FunctionModel:
    """A function with the tensors that its step declares."""

    def __init__(self, inputs: Specs, outputs: Specs, function: Callable[..., Any]) -> None:
        self.inputs = inputs
        self.outputs = outputs
        self._function = function
        self._label = function.__name__
        self._dtypes = {spec.name: spec.dtype.numpy for spec in outputs}

    def run(self, inputs: dict[str, Array], /) -> dict[str, Array]:
        """The function's answer as arrays of the declared types."""
        answer: object = self._function(**inputs)
        if not isinstance(answer, Mapping):
            answer = {self.outputs[0].name: answer} if len(self.outputs) == 1 else {}
        found = cast("Mapping[str, Any]", answer)
        missing = [name for name in self._dtypes if name not in found]
        if missing:
            raise InvalidModel(
                f"{self._label}() gave {sorted(found) or 'no outputs by name'}; "
                f"{missing[0]!r} is missing"
            )
        return {name: self._array(name, found[name]) for name in self._dtypes}

    def _array(self, name: str, value: object) -> Array:
        dtype = self._dtypes[name]
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
    _check_parameters(path, function, [spec.name for spec in options.declared_inputs])
    return FunctionModel(options.declared_inputs, options.declared_outputs, function)


def _check_parameters(path: Path, function: Callable[..., Any], names: list[str]) -> None:
    """The step's inputs must be what the function takes."""
    try:
        inspect.signature(function).bind(**dict.fromkeys(names))
    except TypeError as error:
        raise InvalidModel(
            f"{path}: {function.__name__}{inspect.signature(function)} does not take the step's "
            f"inputs {names}: {error}"
        ) from error
