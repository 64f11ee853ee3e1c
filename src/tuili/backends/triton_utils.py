"""`triton_python_backend_utils` for models written for Triton's Python back end.

The names, arguments and results are those that Triton documents for models on a CPU.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any, Final

import ml_dtypes
import numpy as np

from tuili.backends.triton_calls import (
    InferenceRequest,
    InferenceResponseIterator,
    InferenceTrace,
    is_model_ready,
    load_model,
    unload_model,
)
from tuili.backends.triton_completion import ModelConfig
from tuili.backends.triton_metrics import Metric, MetricFamily, MetricKind
from tuili.backends.triton_tensors import (
    NUMBERED,
    InferenceResponse,
    ResponseSender,
    Tensor,
    TritonError,
    TritonModelException,
    numpy_to_triton_type,
)
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
TRITON_STRING_TO_NUMPY: Final = _NUMPY
TRITONSERVER_REQUEST_FLAG_SEQUENCE_START: Final = 1
TRITONSERVER_REQUEST_FLAG_SEQUENCE_END: Final = 2
TRITONSERVER_RESPONSE_COMPLETE_FINAL: Final = 1
TRITONSERVER_REQUEST_RELEASE_ALL: Final = 1
TRITONSERVER_REQUEST_RELEASE_RESCHEDULE: Final = 2
TRITONSERVER_MEMORY_CPU: Final = 0
TRITONSERVER_MEMORY_GPU: Final = 2


class PreferredMemory:
    """Where answers of other models should lie; they always lie in main memory here."""

    def __init__(self, memory_type: int = TRITONSERVER_MEMORY_CPU, device_id: int = 0) -> None:
        self.memory_type, self.device_id = memory_type, device_id


class LogLevel(Enum):
    """How grave a message is."""

    INFO, WARNING, ERROR, VERBOSE = range(4)


_LEVELS: Final = {
    LogLevel.INFO: logging.INFO,
    LogLevel.WARNING: logging.WARNING,
    LogLevel.ERROR: logging.ERROR,
    LogLevel.VERBOSE: logging.DEBUG,
}


class Logger:
    """Messages of the model, one line each, to the server's log."""

    INFO, WARNING, ERROR, VERBOSE = LogLevel

    @staticmethod
    def log(message: str, level: LogLevel = LogLevel.INFO) -> None:
        """Write one line; TypeError for what is no text or no level."""
        if not isinstance(message, str) or not isinstance(level, LogLevel):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"expected text and a level of Logger, got {message!r} and {level!r}")
        # A line break in a message must not pass for a line of its own.
        text = message.replace("\r", "\\r").replace("\n", "\\n")
        logging.getLogger("tuili.model").log(_LEVELS[level], "%s", text)

    @classmethod
    def log_info(cls, message: str) -> None:
        """For information."""
        cls.log(message, LogLevel.INFO)

    @classmethod
    def log_warn(cls, message: str) -> None:
        """A warning."""
        cls.log(message, LogLevel.WARNING)

    @classmethod
    def log_error(cls, message: str) -> None:
        """An error."""
        cls.log(message, LogLevel.ERROR)

    @classmethod
    def log_verbose(cls, message: str) -> None:
        """For those who look closely."""
        cls.log(message, LogLevel.VERBOSE)


def _by_name(items: Sequence[Any], name: str) -> Any:
    return next((item for item in items if item.name() == name), None)


def get_input_tensor_by_name(inference_request: InferenceRequest, name: str) -> Tensor | None:
    """The input called `name`."""
    return _by_name(inference_request.inputs(), name)


def get_output_tensor_by_name(inference_response: InferenceResponse, name: str) -> Tensor | None:
    """The output called `name`."""
    return _by_name(inference_response.output_tensors(), name)


def get_input_config_by_name(model_config: Mapping[str, Any], name: str) -> Any:
    """The configuration of an input, or None."""
    return next((each for each in model_config.get("input", ()) if each["name"] == name), None)


def get_output_config_by_name(model_config: Mapping[str, Any], name: str) -> Any:
    """The configuration of an output, or None."""
    return next((each for each in model_config.get("output", ()) if each["name"] == name), None)


def triton_string_to_numpy(triton_type_string: str) -> Any:
    """The NumPy type of a name such as TYPE_FP32."""
    return _NUMPY[triton_type_string]


def triton_to_numpy_type(data_type: int) -> Any:
    """The NumPy type of a type's number, or None."""
    return NUMBERED[data_type - 1] if 1 <= data_type <= len(NUMBERED) else None


def using_decoupled_model_transaction_policy(model_config: Mapping[str, Any]) -> bool:
    """Whether the model answers any number of times."""
    policy: dict[str, Any] = model_config.get("model_transaction_policy", {})
    return bool(policy.get("decoupled", False))


def serialize_byte_tensor(input_tensor: Array) -> Any:
    """Length-prefixed bytes of a text tensor; `()` for an empty one, None for other types."""
    if input_tensor.size == 0:
        return ()
    if input_tensor.dtype != np.object_ and input_tensor.dtype.type != np.bytes_:
        return None
    pieces: list[bytes] = []
    for item in input_tensor.reshape(-1).tolist():
        data = item if isinstance(item, bytes) else str(item).encode()
        pieces += (len(data).to_bytes(4, "little"), data)
    return b"".join(pieces)


def deserialize_bytes_tensor(encoded_tensor: bytes) -> Array:
    """The text tensor of length-prefixed bytes."""
    items: list[bytes] = []
    at = 0
    while at < len(encoded_tensor):
        end = at + 4 + int.from_bytes(encoded_tensor[at : at + 4], "little")
        items.append(bytes(encoded_tensor[at + 4 : end]))
        at = end
    found = np.empty(len(items), dtype=object)
    found[:] = items
    return found


def load_model_config(text: str) -> dict[str, Any]:
    """The configuration that `initialize` got as JSON text."""
    return json.loads(text)


def get_model_dir() -> str:
    """The folder of the model's version."""
    return _model_dir()


_model_dir: Callable[[], str] = str


def set_model_dir(path: str) -> None:
    """Tell the folder that `get_model_dir` gives."""
    global _model_dir  # noqa: PLW0603 - one model a process
    _model_dir = lambda: path  # noqa: E731


__all__ = [
    "TRITONSERVER_MEMORY_CPU", "TRITONSERVER_MEMORY_GPU",
    "TRITONSERVER_REQUEST_FLAG_SEQUENCE_END", "TRITONSERVER_REQUEST_FLAG_SEQUENCE_START",
    "TRITONSERVER_REQUEST_RELEASE_ALL", "TRITONSERVER_REQUEST_RELEASE_RESCHEDULE",
    "TRITONSERVER_RESPONSE_COMPLETE_FINAL", "TRITON_STRING_TO_NUMPY", "InferenceRequest",
    "InferenceResponse", "InferenceResponseIterator", "InferenceTrace", "LogLevel", "Logger",
    "Metric", "MetricFamily", "MetricKind", "ModelConfig", "PreferredMemory", "ResponseSender",
    "Tensor", "TritonError",
    "TritonModelException", "deserialize_bytes_tensor", "get_input_config_by_name",
    "get_input_tensor_by_name", "get_model_dir", "get_output_config_by_name",
    "get_output_tensor_by_name", "is_model_ready", "load_model", "numpy_to_triton_type",
    "serialize_byte_tensor", "triton_string_to_numpy", "triton_to_numpy_type", "unload_model",
    "using_decoupled_model_transaction_policy",
]  # fmt: skip
