"""The infer route: the hot path from a body to the data plane and back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import numpy as np

from tuili.errors import InvalidArgument, TuiliError
from tuili.server.dataplane import DataPlane
from tuili.server.http.codec import InferDecoder, Plan, plan_request
from tuili.server.http.compression import compress
from tuili.server.http.connection import HttpConnection
from tuili.server.http.express import ExpressDesk
from tuili.server.http.head import Head
from tuili.server.http.infer_reply import (
    ALL_BINARY,
    Body,
    Form,
    ReplyEncoder,
    frame_body,
    is_long,
    variant_headers,
    write_body,
)
from tuili.server.http.json_tensors import read_long_data
from tuili.server.http.limits import HttpLimits
from tuili.server.http.long_json import parse_long
from tuili.server.http.long_values import forget
from tuili.server.http.pieces import size_of
from tuili.server.http.refusals import Refusals
from tuili.server.http.reply import JSON, OCTETS, Buffer, Reply, error_reply
from tuili.server.http.routes import Match
from tuili.server.protocol.datatypes import NUMPY, decode, element_count
from tuili.server.protocol.messages import InferRequest, InferResponse, InputTensor
from tuili.server.slices import Slices
from tuili.server.steps import Steps, at_once

_LOG: Final = logging.getLogger("tuili.server.http")
_COMPRESS_ABOVE: Final = 1024
Begin = Callable[[HttpConnection], None]
_Written = Reply | list[Buffer]
_RAW: Final = Plan([], 0, "", None, None, ALL_BINARY, constant=True)


class Inference:
    """Answers infer requests; one per front end."""

    def __init__(self, dataplane: DataPlane, limits: HttpLimits, refusals: Refusals) -> None:
        self._limits = limits
        self._refusals = refusals
        self._dataplane = dataplane
        self._desk = ExpressDesk(dataplane, limits)
        self._decoder = InferDecoder(limits)
        self._encoder = ReplyEncoder()
        self.slices = Slices()

    def infer(
        self, connection: HttpConnection, head: Head, match: Match, body: Buffer
    ) -> Steps[Begin] | None:
        """Answer one request; TuiliError when it is refused before it reaches the data plane.

        Or what is left to be read before, where that takes long.
        """
        if self._desk.take(connection, head, match, body):
            return None
        length = self.json_length(head, body)
        if length or head.json_length is None:
            plan = self._decoder.plan(body, length)
            version = match.version or match.label
            if plan.is_long:
                return self._begin_planned(
                    self._decoder.read(plan, body, length, match.model, version), plan
                )
            request = self._decoder.request(plan, body, length, match.model, version)
        else:
            request, plan = self._raw_request(match, body), _RAW
        answer = self._answer(plan)
        if plan.in_text in (0, len(plan.inputs)):
            self._desk.learn(head, match, body, request, plan, answer.reply)
        self._submit(connection, request, answer)
        return None

    def begin(self, head: Head, match: Match, body: Buffer) -> Steps[Begin]:
        """As `infer`, of a request whose JSON is long: what is to be done once it is read."""
        request, plan = yield from self.read_long(head, match, body)
        return lambda connection: self._submit(connection, request, self._answer(plan))

    def _begin_planned(self, work: Steps[InferRequest], plan: Plan) -> Steps[Begin]:
        request = yield from work
        return lambda connection: self._submit(connection, request, self._answer(plan))

    def _answer(self, plan: Plan) -> _Answer:
        return _Answer(self._encoder, plan.form, self._refusals, self.slices)

    def _submit(self, connection: HttpConnection, request: InferRequest, answer: _Answer) -> None:
        request.origin = connection
        ticket = self._dataplane.submit(request, partial(answer.reply, connection))
        if not answer.done:
            connection.work = ticket

    def read(self, head: Head, match: Match, body: Buffer) -> tuple[InferRequest, Plan]:
        """The request in a body, and how its answer is to be written."""
        json_length = self.json_length(head, body)
        if json_length or head.json_length is None:
            version = match.version or match.label
            return self._decoder.decode(body, json_length, match.model, version)
        return self._raw_request(match, body), _RAW

    def read_long(self, head: Head, match: Match, body: Buffer) -> Steps[tuple[InferRequest, Plan]]:
        """As `read`, with turns for others."""
        length = self.json_length(head, body)
        if not length and head.json_length is not None:
            return self.read(head, match, body)
        document = yield from parse_long(memoryview(body)[:length], self._limits)
        yield from read_long_data(document)
        try:
            plan = plan_request(document)
        except InvalidArgument:
            yield from forget(document)
            raise
        version = match.version or match.label
        return (yield from self._decoder.read(plan, body, length, match.model, version)), plan

    def json_length(self, head: Head, body: Buffer) -> int:
        """How much of a body is JSON."""
        json_length = head.json_length
        if json_length is None:
            return len(body)
        if not 0 <= json_length <= len(body):
            got = head.headers[b"inference-header-content-length"].decode("latin-1")
            raise InvalidArgument(
                f"inference header size should be in range (0, {len(body)}), got: {got}"
            )
        return json_length

    def _raw_request(self, match: Match, body: Buffer) -> InferRequest:
        """A request without JSON: all of the body is the model's only input (batch size 1)."""
        limit = self._limits.max_json_bytes
        if len(body) > limit:
            raise InvalidArgument(
                f"Raw input has a byte_size ({len(body)} bytes) that exceeds the maximum allowed"
                f" value of {limit} bytes. Use --http-max-input-size to increase the limit."
            )
        metadata = self._dataplane.model_metadata(match.model, match.version)
        config = self._dataplane.model_config(match.model, match.version)
        inputs: list[dict[str, Any]] = metadata["inputs"]
        if len(inputs) != 1:
            raise InvalidArgument(
                "[request id: <id_unknown>] Raw request must only have 1 input (found 1) to be"
                f" deduced but got {len(inputs)} inputs in '{match.model}' model configuration"
            )
        name, datatype = str(inputs[0]["name"]), str(inputs[0]["datatype"])
        dims = [int(dim) for dim in inputs[0]["shape"]]
        batched = int(config.get("max_batch_size", 0)) > 0
        if batched:
            dims[0] = 1
        if datatype == "BYTES":
            data = _raw_bytes(name, dims, body)
            tensor = InputTensor(name, datatype, data.shape, data)
        else:
            itemsize = NUMPY[datatype].itemsize
            shape = tuple(_raw_shape(name, dims, len(body), itemsize))
            tensor = InputTensor(name, datatype, shape, None, misfit_bytes=len(body))
            if element_count(shape) * itemsize == len(body):
                tensor.data = decode(name, datatype, shape, body)
        return InferRequest(match.model, [tensor], match.version)


def _raw_shape(name: str, dims: list[int], size: int, item: int) -> list[int]:
    """`dims` with its one open dim set from the size of the data."""
    unknown = [index for index, dim in enumerate(dims) if dim < 0]
    if len(unknown) > 1:
        raise InvalidArgument(
            f"The shape of the raw input '{name}' can not be deduced because there are more than"
            " one variable-sized dimension"
        )
    if unknown:
        known = item * element_count([dim for dim in dims if dim >= 0])
        dims[unknown[0]] = size // known if known else 0
    return dims


def _raw_bytes(name: str, dims: list[int], body: Buffer) -> np.ndarray[Any, Any]:
    """The one text element that a raw body is."""
    if any(dim != 1 for dim in dims):
        raise InvalidArgument(
            f"For BYTE datatype raw input '{name}', the model must have input shape [1]"
        )
    data = np.empty([1] * len(dims), object)
    data.flat[0] = bytes(body)
    return data


class _Answer:
    """How the answers to requests that want this form are written."""

    __slots__ = ("_encoder", "_form", "_refusals", "_slices", "done")

    def __init__(
        self, encoder: ReplyEncoder, form: Form, refusals: Refusals, slices: Slices
    ) -> None:
        self._slices = slices
        self._encoder = encoder
        self._form = form
        self._refusals = refusals
        self.done = False

    def reply(self, connection: HttpConnection, answer: InferResponse | TuiliError) -> None:
        """Called by the data plane, once for a request; never raises."""
        self.done = True
        if not isinstance(answer, InferResponse):
            connection.reply(self._refusals.reply(answer))
            return
        head, loop = connection.head, connection.loop
        takes_long = _is_coded(head, answer) or is_long(answer, self._form)
        if takes_long and loop is not None:
            written = connection.work = self._slices.run(self._write(head, answer), loop)
            written.add_done_callback(partial(self._written, connection, answer))
            return
        try:
            if takes_long:
                _send(connection, at_once(self._write(head, answer)))
            else:
                connection.reply_bytes(self._encoder.encode(answer, self._form))
        except Exception as error:  # noqa: BLE001 - a bug of ours must not reach the batcher
            connection.reply(self._instead(answer, error))

    def _write(self, head: Head | None, answer: InferResponse) -> Steps[_Written]:
        body = yield from write_body(answer, self._form)
        if head is not None and _is_coded(head, answer):
            return (yield from _coded(head, answer, body))
        return frame_body(answer, *body)

    def _written(
        self,
        connection: HttpConnection,
        answer: InferResponse,
        written: asyncio.Future[_Written],
    ) -> None:
        if written.cancelled():
            return
        if (error := written.exception()) is not None:
            connection.reply(self._instead(answer, error))
        else:
            _send(connection, written.result())

    def _instead(self, answer: InferResponse, error: BaseException) -> Reply:
        """The reply in place of one that cannot be written."""
        if isinstance(error, TuiliError):
            return self._refusals.reply(error)
        _LOG.error("the answer of %r could not be sent", answer.model, exc_info=error)
        return error_reply(500, "internal error; the server's log has the details")


def _send(connection: HttpConnection, written: _Written) -> None:
    if isinstance(written, Reply):
        connection.reply(written)
    else:
        connection.reply_bytes(written)


def _is_coded(head: Head | None, response: InferResponse) -> bool:
    """Whether the client wants an answer in a coding, and that could pay."""
    return head is not None and head.coding != b"identity" and not _is_small(response)


def _is_small(response: InferResponse) -> bool:
    """Whether a coding could not pay."""
    size = 0
    for output in response.outputs:
        if output.data is not None:
            size += output.data.nbytes
    return size < _COMPRESS_ABOVE


def _coded(head: Head, response: InferResponse, body: Body) -> Steps[Reply]:
    """The reply in the coding that the client prefers.

    Tensors hardly shrink and take 30 ms a megabyte.  So they are coded for clients that name one
    coding, which is how the stock client asks for it, and not for those that list what they know.
    """
    text, blobs = body
    parts: list[Buffer] = [*text, *blobs]
    headers: tuple[tuple[bytes, bytes], ...] = ()
    if blobs:
        headers = ((b"Inference-Header-Content-Length", b"%d" % size_of(text)),)
    headers += variant_headers(response)
    if not blobs or b"," not in head.headers[b"accept-encoding"]:
        parts = yield from compress(head.coding, parts)
        headers += ((b"Content-Encoding", head.coding),)
    return Reply(200, parts, OCTETS if blobs else JSON, headers)
