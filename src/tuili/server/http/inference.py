"""The infer route: the hot path from a body to the data plane and back."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from tuili.errors import InvalidArgument, TuiliError, Unsupported
from tuili.server.dataplane import DataPlane
from tuili.server.http.codec import InferDecoder, Plan
from tuili.server.http.compression import choose_coding, compress
from tuili.server.http.connection import HttpConnection
from tuili.server.http.head import Head
from tuili.server.http.infer_reply import EVERYTHING_BINARY, ReplyEncoder, encode_body
from tuili.server.http.limits import HttpLimits
from tuili.server.http.reply import JSON, OCTETS, Buffer, Reply, error_reply
from tuili.server.http.routes import Match
from tuili.server.protocol.datatypes import NUMPY, decode, element_count
from tuili.server.protocol.messages import InferRequest, InferResponse, InputTensor
from tuili.server.protocol.status import status_of

_COMPRESS_ABOVE: Final = 1024


class Inference:
    """Answers infer requests; one per front end."""

    def __init__(self, dataplane: DataPlane, limits: HttpLimits) -> None:
        self._dataplane = dataplane
        self._submit = dataplane.submit
        self._decoder = InferDecoder(limits)
        self._encoder = ReplyEncoder()

    def infer(self, connection: HttpConnection, head: Head, match: Match, body: Buffer) -> None:
        """Answer one request; TuiliError when it is refused before it reaches the data plane."""
        json_length = head.json_length
        if json_length is None:
            json_length = len(body)
        elif json_length > len(body):
            raise InvalidArgument(
                f"inference header size should be in range (0, {len(body)}), got: {json_length}"
            )
        if json_length or head.json_length is None:
            request, plan = self._decoder.decode(body, json_length, match.model, match.version)
        else:
            request, plan = self._raw_request(match, body), EVERYTHING_BINARY
        answer = _Answer(connection, self._encoder, plan)
        ticket = self._submit(request, answer.reply)
        if not answer.done:
            connection.work = ticket

    def _raw_request(self, match: Match, body: Buffer) -> InferRequest:
        """A request without JSON: all of the body is the model's only input (batch size 1)."""
        metadata = self._dataplane.model_metadata(match.model, match.version)
        config = self._dataplane.model_config(match.model, match.version)
        inputs: list[dict[str, Any]] = metadata["inputs"]
        if len(inputs) != 1:
            raise InvalidArgument(
                "Raw request must only have 1 input (found"
                f" {len(inputs)}) to be deduced but got {len(inputs)} inputs in"
                f" '{match.model}' model configuration"
            )
        name, datatype = str(inputs[0]["name"]), str(inputs[0]["datatype"])
        dims = [int(dim) for dim in inputs[0]["shape"]]
        batched = int(config.get("max_batch_size", 0)) > 0
        if batched:
            dims[0] = 1
        if datatype == "BYTES":
            data = _raw_bytes(name, dims, body)
        else:
            dims = _raw_shape(dims, len(body), NUMPY[datatype].itemsize)
            data = decode(name, datatype, tuple(dims), body)
        return InferRequest(
            match.model, [InputTensor(name, datatype, data.shape, data)], match.version
        )


def _raw_shape(dims: list[int], size: int, item: int) -> list[int]:
    """`dims` with its one open dim set from the size of the data."""
    unknown = [index for index, dim in enumerate(dims) if dim < 0]
    if len(unknown) > 1:
        raise InvalidArgument(
            "The shape of the raw input can not be deduced because there are more than one"
            " variable-sized dimension"
        )
    if unknown:
        known = item * element_count(dim for dim in dims if dim >= 0)
        dims[unknown[0]] = size // known if known else 0
    return dims


def _raw_bytes(name: str, dims: list[int], body: Buffer) -> np.ndarray[Any, Any]:
    """The one text element that a raw body is."""
    if any(dim not in (1, -1) for dim in dims):
        raise InvalidArgument(
            f"For BYTE datatype raw input '{name}', the model must have input shape [1]"
        )
    data = np.empty([1] * len(dims), object)
    data.flat[0] = bytes(body)
    return data


class _Answer:
    """Where the answer of one request goes."""

    __slots__ = ("_connection", "_encoder", "_plan", "done")

    def __init__(self, connection: HttpConnection, encoder: ReplyEncoder, plan: Plan) -> None:
        self._connection = connection
        self._encoder = encoder
        self._plan = plan
        self.done = False

    def reply(self, answer: InferResponse | TuiliError) -> None:
        """Called by the data plane, once."""
        self.done = True
        connection = self._connection
        if not isinstance(answer, InferResponse):
            connection.reply(refusal(answer))
            return
        head = connection.head
        try:
            if head is not None and not head.plain:
                connection.reply(_compressed(head, answer, self._plan))
            else:
                connection.reply_bytes(self._encoder.encode(answer, self._plan))
        except TuiliError as error:
            connection.reply(refusal(error))


def refusal(error: TuiliError) -> Reply:
    """The reply that tells a client what went wrong."""
    reply = error_reply(status_of(error).http, str(error))
    if isinstance(error, Unsupported) and "compression" in str(error):
        reply.headers = ((b"Accept-Encoding", b"gzip, deflate"),)
    return reply


def _compressed(head: Head, response: InferResponse, plan: Plan) -> Reply:
    """The reply in the coding that the client prefers, when that pays."""
    text, blobs = encode_body(response, plan)
    parts: list[Buffer] = [text, *blobs]
    headers: tuple[tuple[bytes, bytes], ...] = ()
    if blobs:
        headers = ((b"Inference-Header-Content-Length", b"%d" % len(text)),)
    coding = choose_coding(head.accept_encoding)
    if coding != b"identity" and sum(map(len, parts)) >= _COMPRESS_ABOVE:
        parts = [compress(coding, parts)]
        headers += ((b"Content-Encoding", coding),)
    return Reply(200, parts, OCTETS if blobs else JSON, headers)
