"""Python models: a version folder with `model.py`, run as it is.

Two forms are understood. Ours is a class `Model` with `run(inputs) -> outputs` over NumPy arrays:

    class Model:
        def __init__(self, parameters: dict[str, str]): ...
        def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]: ...

(of a decoupled model a generator of such dictionaries).

Triton's is a class `TritonPythonModel` with `initialize`, `execute` and `finalize`; it imports
`triton_python_backend_utils`, which is `tuili.backends.triton_utils` here.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, cast

from tuili.backends import BackendOptions, Executable, Specs, triton_utils
from tuili.errors import InvalidModel
from tuili.tensors import Array, DType

_UTILS: Final = "triton_python_backend_utils"
CONFIG_TYPES: Final = {
    kind.kserve: "TYPE_STRING" if kind is DType.STR else f"TYPE_{kind.kserve}"
    for kind in DType
    if kind.kserve
}


class PlainModel:
    """A model written as our small class."""

    def __init__(self, inputs: Specs, outputs: Specs, model: Any) -> None:
        self.inputs = inputs
        self.outputs = outputs
        self._model = model

    def run(self, inputs: dict[str, Array], /) -> dict[str, Array]:
        """Whatever the class answers."""
        return self._model.run(inputs)

    def stream(self, inputs: dict[str, Array]) -> Iterator[Mapping[str, Array]]:
        """All that `run` yields; one answer if it is no generator."""
        answer = self._model.run(inputs)
        if isinstance(answer, Mapping):
            yield cast("Mapping[str, Array]", answer)
        else:
            yield from answer

    def close(self) -> None:
        """Let the class release what it holds."""
        close = getattr(self._model, "close", None)
        if close is not None:
            close()


class TritonModel:
    """A model written for Triton's Python back end; a batch is one request to it."""

    def __init__(self, inputs: Specs, outputs: Specs, model: Any) -> None:
        self.inputs = inputs
        self.outputs = outputs
        self._model = model
        self._names = [spec.name for spec in outputs]

    def run(self, inputs: dict[str, Array], /) -> dict[str, Array]:
        """One `execute` with one request."""
        tensors = [triton_utils.Tensor(name, array) for name, array in inputs.items()]
        request = triton_utils.InferenceRequest(inputs=tensors, requested_output_names=self._names)
        responses = self._model.execute([request])
        if not isinstance(responses, list) or len(responses) != 1:
            raise InvalidModel(f"execute() must return one response per request, got {responses!r}")
        return _outputs_of(responses[0])

    def stream(self, inputs: dict[str, Array]) -> Iterator[Mapping[str, Array]]:
        """What the model sends through the request's response sender, up to its final flag."""
        tensors = [triton_utils.Tensor(name, array) for name, array in inputs.items()]
        request = triton_utils.InferenceRequest(inputs=tensors, requested_output_names=self._names)
        returned = self._model.execute([request])
        if returned:
            request.get_response_sender().finish_with(returned[0])
        for response in request.get_response_sender().sent():
            yield _outputs_of(response)

    def close(self) -> None:
        """Tell the model that it ends."""
        finalize = getattr(self._model, "finalize", None)
        if finalize is not None:
            finalize()


def _outputs_of(response: triton_utils.InferenceResponse) -> dict[str, Array]:
    if response.has_error():
        raise triton_utils.TritonModelException(response.error().message())
    return {tensor.name(): tensor.as_numpy() for tensor in response.output_tensors()}


def load(path: Path, options: BackendOptions) -> Executable:
    """The class in `model.py`, made and initialized."""
    inputs, outputs = options.declared_inputs, options.declared_outputs
    if not inputs or not outputs:
        raise InvalidModel(f"{path}: a Python model needs its inputs and outputs in config.pbtxt")
    module = import_file(path)
    if hasattr(module, "Model"):
        return PlainModel(inputs, outputs, module.Model(dict(options.parameters)))
    if not hasattr(module, "TritonPythonModel"):
        raise InvalidModel(f"{path} defines neither class Model nor class TritonPythonModel")
    model = module.TritonPythonModel()
    if hasattr(model, "initialize"):
        model.initialize(_initialize_arguments(path, options))
    return TritonModel(inputs, outputs, model)


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


def _initialize_arguments(path: Path, options: BackendOptions) -> dict[str, str]:
    """What Triton hands to `initialize`."""
    lead = 1 if options.max_batch_size else 0

    def tensors(specs: Specs) -> list[dict[str, Any]]:
        return [
            {
                "name": spec.name,
                "data_type": CONFIG_TYPES[spec.dtype.kserve],
                "dims": [dim if isinstance(dim, int) else -1 for dim in spec.shape[lead:]],
            }
            for spec in specs
        ]

    name = path.parent.parent.name
    config: dict[str, Any] = {
        "name": name,
        "backend": "python",
        "max_batch_size": options.max_batch_size,
        "input": tensors(options.declared_inputs),
        "output": tensors(options.declared_outputs),
        "parameters": {key: {"string_value": text} for key, text in options.parameters.items()},
        "model_transaction_policy": {"decoupled": options.decoupled},
    }
    return {
        "model_config": json.dumps(config),
        "model_instance_kind": "CPU",
        "model_instance_name": name,
        "model_instance_device_id": "0",
        "model_repository": str(path.parent.parent),
        "model_version": path.parent.name,
        "model_name": name,
    }
