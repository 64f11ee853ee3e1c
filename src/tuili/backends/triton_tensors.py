"""What a Triton Python model gets and gives: tensors, errors, responses and their sender."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from queue import SimpleQueue
from typing import Any, Final, cast

import numpy as np

from tuili.errors import InternalError, TuiliError
from tuili.tensors import Array, DType

_log = logging.getLogger("tuili.backends")

FINAL: Final = 1
_CODES: Final = (
    "UnknownFailure",
    "InternalError",
    "NotFound",
    "InvalidArgument",
    "Unavailable",
    "Unsupported",
    "AlreadyExists",
    "Cancelled",
)


# The numbers of `triton_to_numpy_type`.
NUMBERED: Final = [
    np.bool_, np.uint8, np.uint16, np.uint32, np.uint64, np.int8, np.int16, np.int32, np.int64,
    np.float16, np.float32, np.float64, np.object_,
]  # fmt: skip


def numpy_to_triton_type(data_type: Any) -> int | None:
    """The number of a NumPy type, or None."""
    kind = np.object_ if data_type == np.bytes_ else data_type
    return next((at for at, each in enumerate(NUMBERED, 1) if kind == each), None)


class TritonModelException(InternalError):
    """What a model raises for a request that it cannot answer, and what its calls raise."""


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

    @property
    def kind(self) -> str:
        """The name of the error of the tree that this is."""
        return _CODES[self._code] if 0 <= self._code < len(_CODES) else "InternalError"

    @staticmethod
    def of(text: str, kind: str) -> TritonError:
        """The error that a call to another model brought back."""
        code = _CODES.index(kind) if kind in _CODES else TritonError.INTERNAL
        return TritonError(text, code)


class Tensor:
    """A named array."""

    def __init__(self, name: str, array: Array) -> None:
        if not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"the name of a tensor must be text, got {name!r}")
        if not isinstance(array, np.ndarray):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"tensor {name!r} must be a NumPy array, got {type(array)}")
        if array.dtype.kind in "SU":
            array = np.array([_bytes(item) for item in array.reshape(-1)] or [b""], object)[
                : array.size
            ].reshape(array.shape)
        try:
            if array.dtype != object:
                DType.of(array.dtype)
        except TuiliError as error:
            raise TritonModelException(f"tensor {name!r}: {error}") from error
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

    def triton_dtype(self) -> int:
        """The number of its type."""
        return numpy_to_triton_type(self._array.dtype.type) or 14

    def is_cpu(self) -> bool:
        """Always: tensors are in main memory."""
        return True

    def to_dlpack(self) -> Any:
        """A DLPack capsule of the array."""
        if self._array.dtype == object:
            raise TritonModelException("DLPack does not have support for string tensors.")
        # A capsule says that its memory may be written, which the slot of a request allows.
        array = self._array if self._array.flags.writeable else self._array.copy()
        return array.__dlpack__()

    def __dlpack__(self, **options: Any) -> Any:
        return self.to_dlpack()

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)

    @staticmethod
    def from_dlpack(name: str, tensor: Any) -> Tensor:
        """A tensor that shares the memory of a capsule, or of whatever exports one."""
        if not name:
            raise TritonModelException("Tensor name shouldn't be empty.")
        if tensor is None:
            raise TritonModelException("DLPack capsule should not be None.")
        return Tensor(name, np.from_dlpack(_Exporter(tensor)))


class _Exporter:
    """A capsule, or an object with `__dlpack__`, as NumPy wants it."""

    def __init__(self, source: Any) -> None:
        self._source = source

    def __dlpack__(self, **options: Any) -> Any:
        source = self._source
        return source.__dlpack__() if hasattr(source, "__dlpack__") else source

    def __dlpack_device__(self) -> tuple[int, int]:
        source = self._source
        if hasattr(source, "__dlpack_device__"):
            return source.__dlpack_device__()
        return (1, 0)


def _bytes(item: object) -> bytes:
    return item if isinstance(item, bytes) else str(item).encode()


class InferenceResponse:
    """An answer: tensors, or an error; and parameters beside them."""

    def __init__(
        self,
        output_tensors: Iterable[Tensor] = (),
        error: TritonError | str | None = None,
        parameters: Mapping[str, Any] | None = None,
    ) -> None:
        tensors = list(output_tensors)
        if any(tensor is None for tensor in tensors):  # pyright: ignore[reportUnnecessaryComparison]
            raise TritonModelException("Output tensor for inference response should not be None.")
        self._outputs = tensors
        self._error = TritonError(error) if isinstance(error, str) else error
        self._parameters = checked_parameters(parameters)

    def output_tensors(self) -> list[Tensor]:
        """All outputs."""
        return self._outputs

    def has_error(self) -> bool:
        """Whether it failed."""
        return self._error is not None

    def error(self) -> TritonError | None:
        """Why it failed, or None."""
        return self._error

    def parameters(self) -> str:
        """The parameters as JSON text."""
        return json.dumps(self._parameters)

    @property
    def told(self) -> dict[str, Any]:
        """The parameters as they are."""
        return self._parameters


def checked_parameters(parameters: object) -> dict[str, Any]:
    """The parameters that a model sets, or TritonModelException with Triton's words."""
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise TritonModelException(f"Expect dict, got {type(parameters)}")
    for key, value in cast("dict[object, object]", parameters).items():
        if not isinstance(key, str):
            raise TritonModelException(
                f"Expect parameters keys to have type str, found type {type(key)}"
            )
        if not isinstance(value, bool | int | str):
            raise TritonModelException(
                "Expect parameters values to have type bool/int/str, found type "
                f"{type(value)} for key {key!r}"
            )
    return dict(cast("dict[str, Any]", parameters))


# Takes an answer, if there is one, and whether it is the last one.
Forward = Callable[[InferenceResponse | None, bool], None]


class Kept:
    """The answers of a sender that nobody takes at once, until its final flag."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[InferenceResponse | None] = SimpleQueue()

    def put(self, response: InferenceResponse | None, final: bool) -> None:
        """An answer, if there is one, and whether it is the last one."""
        if response is not None:
            self._queue.put(response)
        if final:
            self._queue.put(None)

    def first(self) -> InferenceResponse | None:
        """The first answer, if there is one by now."""
        return None if self._queue.empty() else self._queue.get()

    def all(self) -> Iterator[InferenceResponse]:
        """The answers, until the final flag."""
        while (response := self._queue.get()) is not None:
            yield response


class ResponseSender:
    """How a model answers by itself: any number of times, from any thread.

    When nobody can send by it any more its request ends, as if it had got the final flag; with an
    error where it got no answer, as after an exception in a thread of the model's.
    """

    def __init__(
        self,
        cancelled: Callable[[], bool],
        forward: Forward | None = None,
    ) -> None:
        """Answers go to `forward`, or else are `kept`."""
        self.kept = Kept()
        self._forward = forward or self.kept.put
        self._cancelled = cancelled
        self._closed = False
        self._sent = 0

    def send(self, response: InferenceResponse | None = None, flags: int = 0) -> None:
        """Answer; with the final flag no more answers follow."""
        if flags not in (0, FINAL):
            raise TritonModelException(
                "Unable to send response. Unsupported flag provided. Supported flags: 0, "
                "TRITONSERVER_RESPONSE_COMPLETE_FINAL"
            )
        if self._closed:
            raise TritonModelException("Unable to send response. Response sender has been closed.")
        if response is None and not flags:
            raise TritonModelException(
                "Inference Response object must be provided when the response flags is set to zero."
            )
        self._closed = flags == FINAL
        self._sent += response is not None
        self._forward(response, self._closed)

    def is_cancelled(self) -> bool:
        """Whether nobody waits for answers any more."""
        return self._cancelled()

    def __del__(self) -> None:
        # One that was refused in __init__ has nothing to end.
        if getattr(self, "_closed", True):
            return
        self._closed = True
        _log.warning(
            "a model let go of a response sender after %d answers without "
            "TRITONSERVER_RESPONSE_COMPLETE_FINAL; its request ends here",
            self._sent,
        )
        lost = TritonError("the model let go of the request without an answer to it")
        self._forward(None if self._sent else InferenceResponse(error=lost), True)
