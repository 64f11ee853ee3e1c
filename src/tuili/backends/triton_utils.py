"""`triton_python_backend_utils` for models written for Triton's Python back end.

The names, arguments and results are those that Triton documents; only what a model without
decoupled answers and without calls to other models needs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from queue import SimpleQueue
from typing import Any, Final

import ml_dtypes
import numpy as np

from tuili.errors import InternalError, InvalidArgument
from tuili.tensors import Array

_NUMPY: Final[dict[str, Any]] = {
    "TYPE_BOOL": np.bool_,
    "TYPE_UINT8": np.uint8,
    "TYPE_UINT16": np.uint16,
    "TYPE_UINT32": np.uint32,
    "TYPE_UINT64": np.uint64,
    "TYPE_INT8": np.int8,
    "TYPE_INT16": np.int16,
    "TYPE_INT32": np.int32,
    "TYPE_INT64": np.int64,
    "TYPE_FP16": np.float16,
    "TYPE_FP32": np.float32,
    "TYPE_FP64": np.float64,
    "TYPE_BF16": ml_dtypes.bfloat16,
    "TYPE_STRING": np.object_,
}


class TritonModelException(InternalError):
    """What a model raises for a request that it cannot answer."""


TRITONSERVER_RESPONSE_COMPLETE_FINAL: Final = 1


class ResponseSender:
    """How a decoupled model answers: any number of times, from any thread."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[InferenceResponse | None] = SimpleQueue()

    def send(self, response: InferenceResponse | None = None, flags: int = 0) -> None:
        """Answer; with the final flag no more answers follow."""
        if response is not None:
            self._queue.put(response)
        if flags & TRITONSERVER_RESPONSE_COMPLETE_FINAL:
            self._queue.put(None)

    def is_cancelled(self) -> bool:
        """Cancelled runs are stopped between two answers; the model is not asked."""
        return False

    def finish_with(self, response: InferenceResponse) -> None:
        """The one answer of a model that returned it."""
        self.send(response, TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def sent(self) -> Iterator[InferenceResponse]:
        """The answers, until the final flag."""
        while (response := self._queue.get()) is not None:
            yield response


class TritonError:
    """The error of a response."""

    UNKNOWN, INTERNAL, NOT_FOUND, INVALID_ARG, UNAVAILABLE, UNSUPPORTED, ALREADY_EXISTS = range(7)
    CANCELLED = 7

    def __init__(self, message: str, code: int = INTERNAL) -> None:
        self._message = message
        self._code = code

    def message(self) -> str:
        """What went wrong."""
        return self._message

    def code(self) -> int:
        """Which kind it is."""
        return self._code


class Tensor:
    """A named array."""

    def __init__(self, name: str, array: Array) -> None:
        if not isinstance(array, np.ndarray):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidArgument(f"tensor {name!r} must be a NumPy array, got {type(array)}")
        self._name = name
        self._array = array

    def name(self) -> str:
        """Its name."""
        return self._name

    def as_numpy(self) -> Array:
        """Its array."""
        return self._array

    def shape(self) -> list[int]:
        """Its dims."""
        return list(self._array.shape)

    def is_cpu(self) -> bool:
        """Always: tensors are in main memory."""
        return True


class InferenceRequest:
    """The request that `execute` gets: a whole batch."""

    def __init__(
        self,
        model_name: str = "",
        requested_output_names: Sequence[str] = (),
        inputs: Iterable[Tensor] = (),
        request_id: str = "",
        correlation_id: int | str = 0,
    ) -> None:
        self._model_name = model_name
        self._outputs = list(requested_output_names)
        self._inputs = list(inputs)
        self._request_id = request_id
        self._correlation_id = correlation_id
        self._sender = ResponseSender()

    def get_response_sender(self) -> ResponseSender:
        """How to answer more than once."""
        return self._sender

    def inputs(self) -> list[Tensor]:
        """All inputs."""
        return self._inputs

    def model_name(self) -> str:
        """The model's name."""
        return self._model_name

    def requested_output_names(self) -> list[str]:
        """The outputs that are wanted."""
        return self._outputs

    def request_id(self) -> str:
        """The client's id; empty for a batch."""
        return self._request_id

    def correlation_id(self) -> int | str:
        """The sequence's id; 0 outside sequences."""
        return self._correlation_id

    def parameters(self) -> str:
        """The parameters as JSON text; none for a batch."""
        return "{}"

    def is_cancelled(self) -> bool:
        """A batch is never cancelled as a whole."""
        return False


class InferenceResponse:
    """What `execute` returns for one request."""

    def __init__(
        self, output_tensors: Iterable[Tensor] = (), error: TritonError | None = None
    ) -> None:
        self._outputs = list(output_tensors)
        self._error = error

    def output_tensors(self) -> list[Tensor]:
        """All outputs."""
        return self._outputs

    def has_error(self) -> bool:
        """Whether it failed."""
        return self._error is not None

    def error(self) -> TritonError:
        """Why it failed."""
        return self._error or TritonError("no error")


class Logger:
    """Messages of the model, to the host's stderr."""

    @staticmethod
    def log(message: str, level: int = 0) -> None:
        """Write one line."""
        import logging

        logging.getLogger("tuili.model").log(logging.INFO + 10 * min(level, 2), "%s", message)

    log_info = log_warn = log_error = log_verbose = log


def get_input_tensor_by_name(request: InferenceRequest, name: str) -> Tensor | None:
    """The input called `name`."""
    return next((tensor for tensor in request.inputs() if tensor.name() == name), None)


def get_output_tensor_by_name(response: InferenceResponse, name: str) -> Tensor | None:
    """The output called `name`."""
    return next((t for t in response.output_tensors() if t.name() == name), None)


def get_input_config_by_name(model_config: dict[str, Any], name: str) -> dict[str, Any] | None:
    """The configuration of an input."""
    return next((each for each in model_config["input"] if each["name"] == name), None)


def get_output_config_by_name(model_config: dict[str, Any], name: str) -> dict[str, Any] | None:
    """The configuration of an output."""
    return next((each for each in model_config["output"] if each["name"] == name), None)


def triton_string_to_numpy(text: str) -> Any:
    """The NumPy type of a name such as TYPE_FP32."""
    return _NUMPY[text]


def using_decoupled_model_transaction_policy(model_config: dict[str, Any]) -> bool:
    """Whether the model answers any number of times."""
    policy: dict[str, Any] = model_config.get("model_transaction_policy", {})
    return bool(policy.get("decoupled", False))


def load_model_config(text: str) -> dict[str, Any]:
    """The configuration that `initialize` got as JSON text."""
    return json.loads(text)
