"""Python models: a version folder with `model.py`, run as it is.

Two forms are understood. Ours is a class `Model` with `run(inputs) -> outputs` over NumPy arrays:

    class Model:
        def __init__(self, parameters: dict[str, str]): ...
        def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]: ...

(of a decoupled model a generator of such dictionaries). It may have `is_ready() -> bool`, and
`close()` for its end.

Triton's is a class `TritonPythonModel` with `initialize`, `execute` and `finalize`; it imports
`triton_python_backend_utils`, which is `tuili.backends.triton_utils` here.
"""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, cast

import numpy as np

from tuili.backends import BackendOptions, Executable, Specs, triton_utils
from tuili.backends.readiness import readiness_of
from tuili.backends.triton_model import TritonModel
from tuili.errors import InternalError, InvalidModel, nearest
from tuili.tensors import Array

_UTILS: Final = "triton_python_backend_utils"


class PlainModel:
    """A model written as our small class."""

    def __init__(self, inputs: Specs, outputs: Specs, model: Any) -> None:
        self.inputs = inputs
        self.outputs = outputs
        self._model = model
        self.why_not_ready = readiness_of(model)
        self.has_end = hasattr(model, "close")

    def run(self, inputs: dict[str, Array], /) -> dict[str, Array]:
        """Whatever the class answers."""
        return self._checked(self._model.run(inputs))

    def stream(self, inputs: dict[str, Array]) -> Iterator[Mapping[str, Array]]:
        """All that `run` yields; one answer if it is no generator."""
        answer = self._model.run(inputs)
        if isinstance(answer, Mapping) or not isinstance(answer, Iterable):
            yield self._checked(answer)
        else:
            yield from map(self._checked, cast("Iterable[object]", answer))

    def _checked(self, answer: object) -> dict[str, Array]:
        """What `run` returned, if it is what it should be; InternalError."""
        if not isinstance(answer, Mapping):
            kind = type(answer).__name__
            raise InternalError(f"run() must return a dictionary of NumPy arrays, got {kind}")
        outputs = dict(cast("Mapping[str, object]", answer))
        for name, array in outputs.items():
            if not isinstance(array, np.ndarray | np.generic):
                kind = type(array).__name__
                raise InternalError(
                    f"run() must return NumPy arrays, got {kind} for output {name!r}"
                )
        declared = [spec.name for spec in self.outputs]
        if outputs and not outputs.keys() & set(declared):
            raise InternalError(
                f"run() returned {', '.join(map(repr, outputs))}; the outputs that the "
                f"configuration declares are {', '.join(map(repr, declared))}"
            )
        return cast("dict[str, Array]", outputs)

    def close(self) -> None:
        """Let the class release what it holds."""
        close = getattr(self._model, "close", None)
        if close is not None:
            close()


def load(path: Path, options: BackendOptions) -> Executable:
    """The class in `model.py`, made and initialized."""
    inputs, outputs = options.declared_inputs, options.declared_outputs
    module = import_file(path)
    if hasattr(module, "TritonPythonModel"):
        # As in Triton it may declare no input, or nothing: it is asked by its parameters, say.
        return TritonModel(module.TritonPythonModel, path, options)
    if not hasattr(module, "Model"):
        raise InvalidModel(f"{path} defines neither class Model nor class TritonPythonModel")
    if not inputs or not outputs:
        raise InvalidModel(f"{path}: a class Model needs its inputs and outputs in a configuration")
    model = _made(path, module.Model, dict(options.parameters))
    if not callable(getattr(model, "run", None)):
        known = [name for name in dir(model) if not name.startswith("_")]
        raise InvalidModel(f"{path}: class Model has no run(inputs).{nearest('run', known)}")
    return PlainModel(inputs, outputs, model)


def _made(path: Path, kind: Any, parameters: dict[str, str]) -> Any:
    """An object of the class `Model`, which may do without its parameters."""
    try:
        signature = inspect.signature(kind)
    except (TypeError, ValueError):  # not a class, or one that is not written in Python
        return kind(parameters)
    for given in ((parameters,), ()):
        try:
            signature.bind(*given)
        except TypeError:
            continue
        return kind(*given)
    raise InvalidModel(
        f"{path}: class Model is made as Model(parameters) or Model(), but its __init__ takes "
        f"{signature}"
    )


def import_file(path: Path) -> Any:
    """Run a Python file as a module of its own; it may import what lies beside it."""
    sys.modules[_UTILS] = triton_utils
    sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location("tuili_served_model", path)
    if spec is None or spec.loader is None:
        raise InvalidModel(f"{path} is no Python module")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise InvalidModel(f"{path} fails on import: {type(error).__name__}: {error}") from error
    return module
