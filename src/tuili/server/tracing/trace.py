"""Trace: what is noted of one request on its way, and its form in Triton's trace files."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import count
from typing import Any, Final

import msgspec

from tuili.errors import TuiliError
from tuili.server.protocol.messages import (
    Array,
    InferRequest,
    InferResponse,
    Reply,
    StreamReply,
)

Json = dict[str, Any]

_ids: Final = count(1)
_PLAIN_BYTES: Final = 4096


class Open:
    """How many traces are under way: while there is none, nobody looks for one."""

    count = 0


class Trace:
    """Moments (ns of the monotonic clock) and tensors of one request to one model."""

    __slots__ = ("children", "id", "levels", "model", "parent", "request_id", "stamps", "tensors",
                 "version")  # fmt: skip

    def __init__(self, levels: frozenset[str], request: InferRequest, parent: int = 0) -> None:
        Open.count += 1
        self.id = next(_ids)
        self.parent = parent
        self.levels = levels
        self.model, self.version = request.model, request.version
        self.request_id = request.id
        self.stamps: dict[str, int] = {}
        self.tensors: list[tuple[str, str, str, Array]] = []
        self.children: list[Trace] = []
        if "TENSORS" in levels:
            self._keep("TENSOR_QUEUE_INPUT", request.inputs)

    def __del__(self) -> None:
        Open.count -= 1

    def stamp(self, name: str, ns: int = 0) -> None:
        """Something happened, now or at that moment; what happens again, happened then."""
        self.stamps[name] = ns or time.monotonic_ns()

    def ran(self, queued_ns: int, started_ns: int, joined_ns: int, done_ns: int) -> None:
        """A batch with this request ran; once more after its instance died."""
        self.stamps |= {
            "QUEUE_START": queued_ns,
            "COMPUTE_START": started_ns,
            "COMPUTE_INPUT_END": joined_ns,
            "COMPUTE_OUTPUT_START": done_ns,
        }

    def child(self, request: InferRequest) -> Trace:
        """The trace of a request that this one is made of."""
        child = Trace(self.levels, request, self.id)
        self.children.append(child)
        child.stamp("REQUEST_START")
        return child

    def watching(self, reply: Reply) -> Reply:
        """What to give the answer to, so that it is noted."""

        def answered(answer: InferResponse | TuiliError) -> None:
            self.answered(answer)
            self.stamp("REQUEST_END")
            reply(answer)

        return answered

    def watching_many(self, reply: StreamReply) -> StreamReply:
        """The same for any number of answers."""

        def answered(answer: InferResponse | TuiliError | None, final: bool) -> None:
            if answer is not None:
                self.answered(answer)
            self.stamp("REQUEST_END")
            reply(answer, final)

        return answered

    def answered(self, answer: InferResponse | TuiliError | None) -> None:
        """The model answered, or one of several times."""
        if "COMPUTE_OUTPUT_START" in self.stamps:
            self.stamp("COMPUTE_END")
        self.stamp("INFER_RESPONSE_COMPLETE")
        if isinstance(answer, InferResponse):
            self.version = answer.version
            if "TENSORS" in self.levels:
                self._keep("TENSOR_BACKEND_OUTPUT", answer.outputs)

    def size(self) -> int:
        """How many bytes of memory it takes, about."""
        tensors = sum(_bytes_of(array) for *_, array in self.tensors)
        return _PLAIN_BYTES + tensors + sum(child.size() for child in self.children)

    def records(self) -> Iterator[Json]:
        """The entries of the trace file, those of the requests it is made of after its own."""
        first: Json = {"id": self.id, "model_name": self.model}
        first["model_version"] = int(self.version) if self.version.isdigit() else -1
        if self.request_id:
            first["request_id"] = self.request_id
        if self.parent:
            first["parent_id"] = self.parent
        yield first
        if "TIMESTAMPS" in self.levels:
            for name, ns in sorted(self.stamps.items(), key=lambda stamp: stamp[1]):
                yield {"id": self.id, "timestamps": [{"name": name, "ns": ns}]}
        for activity, name, datatype, array in self.tensors:
            yield {
                "id": self.id,
                "activity": activity,
                "tensor": {
                    "name": name,
                    "data": _text(array),
                    "shape": ",".join(map(str, array.shape)),
                    "dtype": datatype,
                },
            }
        for child in self.children:
            yield from child.records()

    def _keep(self, activity: str, tensors: Any) -> None:
        """Copies of tensors: the views of a request end with it."""
        for tensor in tensors:
            if tensor.data is not None:
                kept = tensor.data.copy()
                self.tensors.append((activity, tensor.name, tensor.datatype, kept))


def _bytes_of(array: Array) -> int:
    if array.dtype.hasobject:
        return sum(len(each) for each in array.ravel())
    return array.nbytes


def _text(array: Array) -> str:
    """Elements with commas between; BYTES in quotation marks."""
    if array.dtype.hasobject:
        return ",".join(msgspec.json.encode(_decoded(each)).decode() for each in array.ravel())
    if array.dtype.kind == "b":
        return ",".join("1" if each else "0" for each in array.ravel())
    return ",".join(map(str, array.ravel()))


def _decoded(element: object) -> str:
    return element.decode("utf-8", "replace") if isinstance(element, bytes) else str(element)
