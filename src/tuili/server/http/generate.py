"""The generate routes: plain JSON keys for tensors, one answer or server-sent events."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from tuili.errors import InternalError, InvalidArgument, TuiliError, Unavailable, UserError
from tuili.server.dataplane import DataPlane
from tuili.server.http.connection import HttpConnection
from tuili.server.http.head import Head
from tuili.server.http.inference import Begin
from tuili.server.http.json_tensors import read_array, write_array
from tuili.server.http.json_text import dump_json, parse_json, repeated_keys
from tuili.server.http.limits import HttpLimits
from tuili.server.http.long_json import parse_long
from tuili.server.http.long_values import LongArray
from tuili.server.http.pieces import PLACE, Pieces, spliced
from tuili.server.http.refusals import JsonMistake
from tuili.server.http.reply import EVENTS, Buffer, Reply, error_event, event_of
from tuili.server.http.responder import Responder
from tuili.server.http.routes import Match
from tuili.server.protocol.messages import InferRequest, InferResponse, InputTensor, Parameters
from tuili.server.protocol.parameters import check_parameter
from tuili.server.steps import Steps, at_once, unless

_Event = bytes | TuiliError


class Generation:
    """Answers generate requests; one per front end."""

    def __init__(self, dataplane: DataPlane, limits: HttpLimits, responder: Responder) -> None:
        self._responder = responder
        self._dataplane = dataplane
        self._limits = limits

    def generate(self, connection: HttpConnection, head: Head, match: Match, body: Buffer) -> None:
        """Start to answer one request."""
        document = parse_json(body, self._limits)
        if isinstance(document, dict):
            _refuse(repeated_keys(body))
        self._submit(connection, match, at_once(self._read(match, document)))

    def begin(self, head: Head, match: Match, body: Buffer) -> Steps[Begin]:
        """As `generate`, of a long text: what is to be done once it is read."""
        repeated: list[str] = []
        document = yield from parse_long(body, self._limits, repeated)
        if isinstance(document, dict):
            _refuse(repeated)
        request = yield from self._read(match, document)
        return lambda connection: self._submit(connection, match, request)

    def _read(self, match: Match, document: Any) -> Steps[InferRequest]:
        metadata = self._dataplane.model_metadata(match.model, match.version)
        if not isinstance(document, dict):
            raise JsonMistake("the request JSON must be an object")
        return (yield from request_from_keys(document, metadata["inputs"], match))

    def _submit(self, connection: HttpConnection, match: Match, request: InferRequest) -> None:
        request.origin = connection
        streaming = match.operation == "generate_stream"
        kind = _Stream if streaming else _Single
        answer = kind(connection, self._responder)
        ticket = self._dataplane.submit_stream(request, answer.reply)
        if not answer.done:
            connection.work = ticket


def _refuse(repeated: list[str]) -> None:
    for key in repeated:
        raise InvalidArgument(f"input '{key}' already exists in request")


def request_from_keys(
    document: dict[str, Any], inputs: list[dict[str, Any]], match: Match
) -> Steps[InferRequest]:
    """Keys named like an input become tensors; the others, and `parameters`, are parameters."""
    known = {str(item["name"]): item for item in inputs}
    ident = document.get("id", "")
    if not isinstance(ident, str):
        raise JsonMistake("Unable to parse 'id': attempt to access JSON non-string as string")
    keys = {key: value for key, value in document.items() if key != "id"}
    if "parameters" in keys and "parameters" in known:
        raise InvalidArgument(
            "Keyword 'parameters' for nested schema also given as input tensor name"
        )
    nested = keys.pop("parameters", {})
    if not isinstance(nested, dict):
        raise InvalidArgument("Expected JSON object for keyword: 'parameters'")
    tensors: list[InputTensor] = []
    parameters: Parameters = {}
    yield from _sort_keys(keys, known, tensors, parameters)
    try:
        yield from _sort_keys(nested, known, tensors, parameters)
    except InvalidArgument as error:
        raise InvalidArgument(f"Converting keyword: 'parameters': {error}") from error
    return InferRequest(match.model, tensors, match.version, ident, None, parameters or None)


def _sort_keys(
    keys: dict[str, Any],
    known: dict[str, dict[str, Any]],
    tensors: list[InputTensor],
    parameters: Parameters,
) -> Steps[None]:
    """Put every key where it belongs."""
    for key, value in keys.items():
        if key in known:
            tensors.append((yield from _tensor(known[key], value)))
        else:
            check_parameter(key, value)
            parameters[key] = value


def _tensor(metadata: dict[str, Any], value: Any) -> Steps[InputTensor]:
    """A tensor from a scalar or a flat array, its shape fitted to the model's."""
    name, datatype = str(metadata["name"]), str(metadata["datatype"])
    data = value if isinstance(value, list | LongArray) else [value]
    count = data.size if isinstance(data, LongArray) else len(data)
    shape = _fit_shape(name, [int(dim) for dim in metadata["shape"]], count)
    array = yield from read_array(name, datatype, shape, data)
    return InputTensor(name, datatype, shape, array)


def _fit_shape(name: str, dims: list[int], count: int) -> tuple[int, ...]:
    """The innermost open dim takes what the fixed ones leave; other open dims are 1."""
    for dim in dims:
        if dim > 0 and count % dim == 0:
            count //= dim
        elif dim >= 0:
            raise InvalidArgument(_misfit(name))
    for index in reversed(range(len(dims))):
        if dims[index] < 0:
            dims[index], count = count, 1
    if count != 1:
        raise InvalidArgument(_misfit(name))
    return tuple(dims)


def _misfit(name: str) -> str:
    return f"The schema can not convert input '{name}' to tensor with proper shape"


def keys_from_response(response: InferResponse) -> Steps[Pieces]:
    """The JSON object of a response: one key per output, single elements without their array."""
    document: dict[str, Any] = {"id": response.id} if response.id else {}
    document["model_name"] = response.model
    document["model_version"] = response.version
    document.update(response.parameters or {})
    places: dict[str, Pieces] = {}
    for output in response.outputs:
        if output.data is not None:
            pieces = yield from write_array(output, output.data)
            # A single element is without its brackets.
            places[output.name] = [pieces[0][1:-1]] if output.data.size == 1 else pieces
            document[output.name] = PLACE
    return spliced(dump_json(document), [places[name] for name in document if name in places])


class _Single:
    """Waits for the one response that a plain generate request may have."""

    def __init__(self, connection: HttpConnection, responder: Responder) -> None:
        self._connection = connection
        self._responder = responder
        self._answer: InferResponse | None = None
        self._count = 0
        self.done = False

    def reply(self, answer: InferResponse | TuiliError | None, final: bool) -> None:
        """Called by the data plane for every response."""
        if self.done:
            return  # an error was one of many answers
        if isinstance(answer, TuiliError):
            self._finish(answer)
            return
        if answer is not None:
            self._answer = answer
            self._count += 1
        if final:
            self._finish(None)

    def _finish(self, error: TuiliError | None) -> None:
        self.done = True
        if error is None and (self._count != 1 or self._answer is None):
            error = InternalError(
                "generate expects model to produce exactly 1 response, use generate stream for"
                " model that generates various number of responses"
            )
        if error is not None:
            self._connection.reply(self._responder.refusals.reply(error))
        else:
            assert self._answer is not None
            self._responder.send(self._connection, _write(self._answer))


def _write(answer: InferResponse) -> Steps[Reply]:
    return Reply(200, (yield from keys_from_response(answer)))


class _Stream:
    """Sends every response as a server-sent event; the first one decides the status."""

    def __init__(self, connection: HttpConnection, responder: Responder) -> None:
        self._connection = connection
        self._responder = responder
        self._started = False
        # What was answered, whether it is the last, and its text or the promise of it.
        self._waiting: deque[tuple[_Event | asyncio.Future[_Event], bool]] = deque()
        self.done = False

    def reply(self, answer: InferResponse | TuiliError | None, final: bool) -> None:
        """Called by the data plane for every response."""
        if self.done:
            return
        self.done = final
        event: _Event | asyncio.Future[_Event]
        if isinstance(answer, InferResponse):
            event = self._responder.slices.begin(self._write(answer), self._connection.loop)
        else:
            event = answer or b""
        self._waiting.append((event, final))
        if isinstance(event, asyncio.Future):
            event.add_done_callback(self._send_ready)
        else:
            self._send_ready(None)

    def _write(self, answer: InferResponse) -> Steps[_Event]:
        try:
            work = keys_from_response(answer)
            pieces = yield from unless(work, lambda: self._connection.closed)
        except TuiliError as error:
            return error
        return event_of(b"".join(pieces or ()))

    def _send_ready(self, _: object) -> None:
        while self._waiting:
            event, final = self._waiting[0]
            if isinstance(event, asyncio.Future):
                if not event.done():
                    return
                event = event.result()
            self._waiting.popleft()
            self._send(event, final)

    def _send(self, event: _Event, final: bool) -> None:
        error = event if isinstance(event, TuiliError) else None
        if final and not self._started and isinstance(error, UserError | Unavailable):
            # Refused before any model saw it: no stream begins.
            self._connection.reply(self._responder.refusals.reply(error))
            return
        text = event if isinstance(event, bytes) else error_event(str(event))
        self._start(200 if error is None else self._responder.refusals.reply(error).status)
        if text:
            self._connection.send_chunk(text)
        if final:
            self._connection.end_stream()

    def _start(self, status: int) -> None:
        if not self._started:
            self._started = True
            self._connection.start_stream(Reply(status, (), EVENTS))
