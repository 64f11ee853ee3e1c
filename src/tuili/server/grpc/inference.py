"""ModelInfer and ModelStreamInfer, for whichever transport carries them."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, Protocol

from tuili.errors import InternalError, TuiliError
from tuili.server.dataplane import DataPlane, Ticket
from tuili.server.grpc.decoding import RequestDecoder, request_id
from tuili.server.grpc.encoding import ResponseEncoder, stream_error, wrap_stream_response
from tuili.server.grpc.express import ExpressDesk
from tuili.server.grpc.methods import Method
from tuili.server.grpc.service import Message
from tuili.server.grpc.varints import Buffer
from tuili.server.protocol.messages import InferRequest, InferResponse, Origin, Parameters
from tuili.server.room import Room

Done = Callable[["list[Buffer] | TuiliError"], None]

_LOG: Final = logging.getLogger("tuili.server.grpc")
_MAX_PENDING: Final = 4096
# From which on a message that waits in a stream takes room.
COUNTED_BYTES: Final = 32 << 10


Elsewhere = Callable[[InferRequest, Buffer, "float | None", Done, "Origin | None"], "Ticket | None"]


class Stream(Protocol):
    """One ModelStreamInfer call."""

    @property
    def full(self) -> bool: ...
    def receive(self, message: Buffer) -> None: ...
    def half_close(self) -> None: ...
    def cancel(self) -> None: ...


class Inference:
    """Decodes requests, submits them, encodes responses; one per front end."""

    # Answers requests that are not for this process's data plane; None for those that are.
    elsewhere: Elsewhere | None = None

    def __init__(self, dataplane: DataPlane, room: Room) -> None:
        self.dataplane = dataplane
        self.room = room
        self.decoder = RequestDecoder()
        self.encoder = ResponseEncoder()
        self._desk = ExpressDesk(dataplane, self._answer)

    def infer(
        self, message: Buffer, deadline: float | None, done: Done, origin: Origin | None = None
    ) -> Ticket | None:
        """Answer one ModelInferRequest by one call of `done`, or of the origin's `answer_known`."""
        try:
            ticket = self._desk.take(message, deadline, done, origin)
            if ticket is not None:
                return ticket
            request, plan = self.decoder.decode(message)
        except TuiliError as error:
            done(error)
            return None
        if self.elsewhere is not None:
            ticket = self.elsewhere(request, message, deadline, done, origin)
            if ticket is not None:
                return ticket
        if not request.parameters:
            self._desk.learn(message, request, plan, origin)
        request.deadline = deadline
        request.origin = origin
        return self.dataplane.submit(request, partial(self._answer, done))

    def open_stream(
        self,
        send: Callable[[list[Buffer]], None],
        finish: Callable[[TuiliError | None], None],
        strict: bool,
        origin: Origin,
    ) -> Stream:
        """Begin to answer a ModelStreamInfer call."""
        return InferStream(self, send, finish, strict, origin)

    def operate(
        self, method: Method, path: str, message: Buffer, origin: Origin
    ) -> Message | Awaitable[Message]:
        """The response of any other method, or a promise of it."""
        return method.call(self.dataplane, bytes(message), origin)

    def _answer(self, done: Done, answer: InferResponse | TuiliError) -> None:
        done(self.encode(answer, None) if isinstance(answer, InferResponse) else answer)

    def encode(
        self, response: InferResponse, extra: Parameters | None
    ) -> list[Buffer] | TuiliError:
        """The message of a response, or what to answer instead of one that has none."""
        try:
            return self.encoder.encode(response, extra)
        except TuiliError as error:
            return error
        except Exception:  # noqa: BLE001 - a bug of ours must not reach the batcher
            _LOG.exception("the answer of %r could not be encoded", response.model)
            return InternalError("internal error; the server's log has the details")


class _Request:
    """One request of a stream, and the responses that may not be sent yet."""

    __slots__ = ("empty_final", "final", "ordered", "ready", "request", "ticket")

    def __init__(self, request: InferRequest, empty_final: bool, ordered: bool) -> None:
        self.request = request
        self.ordered = ordered
        self.empty_final = empty_final
        self.ticket: Ticket | None = None
        self.ready: list[list[Buffer]] = []
        self.final = False


class InferStream:
    """One ModelStreamInfer call.

    Models that answer once answer in the order of their requests; decoupled ones whenever they
    like.  `send` takes a serialized response, `finish` ends the call (None: all is well).
    """

    def __init__(
        self,
        inference: Inference,
        send: Callable[[list[Buffer]], None],
        finish: Callable[[TuiliError | None], None],
        strict: bool,
        origin: Origin | None = None,
    ) -> None:
        self._inference = inference
        self._origin = origin
        self._send = send
        self._finish = finish
        self._strict = strict  # an error ends the stream with a status
        self._pending: set[_Request] = set()
        self._ordered: deque[_Request] = deque()
        self._half_closed = False
        self._over = False

    @property
    def full(self) -> bool:
        """Whether no more requests should be read for now."""
        return len(self._pending) >= _MAX_PENDING

    def receive(self, message: Buffer) -> None:
        """Submit the next request of the client."""
        if self._over:
            return
        inference = self._inference
        try:
            request, plan = inference.decoder.decode(message)
            entry = _Request(request, plan.empty_final, not self._is_decoupled(request))
            if len(message) >= COUNTED_BYTES:
                inference.room.take(entry, len(message))
        except TuiliError as error:
            self._refuse(InferRequest("", [], id=request_id(message)), error)
            return
        request.origin = self._origin
        self._pending.add(entry)
        if entry.ordered:
            self._ordered.append(entry)
        ticket = inference.dataplane.submit_stream(request, partial(self._answer, entry))
        if not entry.final:
            entry.ticket = ticket

    def _is_decoupled(self, request: InferRequest) -> bool:
        try:
            return self._inference.dataplane.is_decoupled(request.model, request.version)
        except TuiliError:
            return False  # an unknown model, which `submit_stream` tells

    def _refuse(self, request: InferRequest, error: TuiliError) -> None:
        if self._strict:
            self._end(error)
        else:
            entry = _Request(request, False, True)
            entry.final = True
            entry.ready.append(stream_error(request, str(error), True))
            self._pending.add(entry)
            self._ordered.append(entry)
            self._flush()

    def _answer(
        self, entry: _Request, answer: InferResponse | TuiliError | None, final: bool
    ) -> None:
        """Called by the data plane for every response."""
        if self._over:
            return
        entry.final = final
        if isinstance(answer, TuiliError) and self._strict:
            self._end(answer)
            return
        message = self._encode(entry, answer, final)
        if message is not None:
            entry.ready.append(message)
        if entry.ordered:
            self._flush()
        else:
            self._release(entry)

    def _encode(
        self, entry: _Request, answer: InferResponse | TuiliError | None, final: bool
    ) -> list[Buffer] | None:
        request = entry.request
        if isinstance(answer, TuiliError):
            return stream_error(request, str(answer), final)
        if answer is None:
            if not entry.empty_final:
                return None
            answer = InferResponse(request.model, request.version, [], request.id)
        parts = self._inference.encode(answer, {"triton_final_response": final})
        if isinstance(parts, TuiliError):
            return stream_error(request, str(parts), final)
        return wrap_stream_response(parts)

    def _flush(self) -> None:
        """Send what is ready, as far as the order allows."""
        ordered = self._ordered
        while ordered:
            entry = ordered[0]
            self._release(entry)
            if not entry.final or not ordered or ordered[0] is not entry:
                return
            ordered.popleft()

    def _release(self, entry: _Request) -> None:
        ready, entry.ready = entry.ready, []
        for message in ready:
            self._send(message)
        if entry.final:
            entry.ticket = None  # It has the way to this entry.
            self._inference.room.leave(entry)
            self._pending.discard(entry)
            self._maybe_end()

    def _maybe_end(self) -> None:
        if self._half_closed and not self._pending:
            self._end(None)

    def half_close(self) -> None:
        """The client sends no more; the call ends with the last response."""
        self._half_closed = True
        self._maybe_end()

    def _end(self, error: TuiliError | None) -> None:
        if not self._over:
            self.cancel()
            self._finish(error)

    def cancel(self) -> None:
        """The call is over: forget all requests under way."""
        self._over = True
        pending, self._pending = self._pending, set()
        self._ordered.clear()
        for entry in pending:
            self._inference.room.leave(entry)
            ticket, entry.ticket = entry.ticket, None
            if ticket is not None:
                ticket.cancel()
