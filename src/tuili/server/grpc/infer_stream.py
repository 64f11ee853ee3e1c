"""ModelStreamInfer, for whichever transport carries it: requests in order, answers in order."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from tuili.errors import InternalError, TuiliError
from tuili.server.dataplane import Ticket
from tuili.server.grpc.decoding import Decoded, request_id
from tuili.server.grpc.encoding import Written, stream_error, wrap_stream_response
from tuili.server.grpc.varints import Buffer
from tuili.server.protocol.messages import InferRequest, InferResponse, Origin

if TYPE_CHECKING:
    from tuili.server.grpc.inference import Inference

# From which on a message that waits in a stream takes room.
COUNTED_BYTES: Final = 32 << 10
_LOG: Final = logging.getLogger("tuili.server.grpc")
_MAX_PENDING: Final = 4096
_UNREAD: Final = InferRequest("", [])


class _Request:
    """One request of a stream, and the responses that may not be sent yet or are not written."""

    __slots__ = (
        "empty_final",
        "fault",
        "final",
        "message",
        "ordered",
        "ready",
        "request",
        "ticket",
    )

    def __init__(self, message: Buffer) -> None:
        self.message = message  # until it is read
        self.fault: TuiliError | None = None
        self.request = _UNREAD
        self.ordered = True
        self.empty_final = False
        self.ticket: Ticket | None = None
        self.ready: deque[list[Buffer] | asyncio.Future[Written]] = deque()
        self.final = False

    def take(self, request: InferRequest, empty_final: bool, ordered: bool) -> None:
        """What it asks for is known."""
        self.message = b""
        self.request, self.empty_final, self.ordered = request, empty_final, ordered


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
        self._unread: deque[_Request] = deque()  # while the first of them takes long to read
        self._reading: asyncio.Future[Decoded] | None = None
        self._half_closed = False
        self._over = False

    @property
    def full(self) -> bool:
        """Whether no more requests should be read for now."""
        return len(self._pending) >= _MAX_PENDING

    def receive(self, message: Buffer) -> None:
        """Submit the next request of the client, once those before it are."""
        if self._over:
            return
        entry = _Request(message)
        self._pending.add(entry)
        try:
            if len(message) >= COUNTED_BYTES:
                self._inference.room.take(entry, len(message))
        except TuiliError as error:
            entry.fault = error
        if self._reading is not None:
            self._unread.append(entry)
        else:
            self._read(entry)

    def _read(self, entry: _Request) -> None:
        try:
            if entry.fault is not None:
                raise entry.fault
            read = self._inference.read(entry.message)
        except TuiliError as error:
            self._refuse(entry, error)
            return
        if isinstance(read, asyncio.Future):
            self._reading = read
            read.add_done_callback(partial(self._was_read, entry))
        else:
            self._submit(entry, read)

    def _was_read(self, entry: _Request, read: asyncio.Future[Decoded]) -> None:
        """What took long to read is read: submit it, and what came behind it."""
        if read.cancelled():
            return
        self._reading = None
        try:
            try:
                self._submit(entry, read.result())
            except TuiliError as error:
                self._refuse(entry, error)
            while self._unread and self._reading is None:
                self._read(self._unread.popleft())
        except Exception:  # noqa: BLE001 - a bug of ours must not leave the client waiting
            _LOG.exception("a request could not be read")
            self._end(InternalError("internal error; the server's log has the details"))

    def _submit(self, entry: _Request, read: Decoded) -> None:
        request, plan = read
        entry.take(request, plan.empty_final, not self._is_decoupled(request))
        request.origin = self._origin
        if entry.ordered:
            self._ordered.append(entry)
        submit = self._inference.dataplane.submit_stream
        ticket = submit(request, partial(self._answer, entry))
        if not entry.final:
            entry.ticket = ticket

    def _is_decoupled(self, request: InferRequest) -> bool:
        try:
            return self._inference.dataplane.is_decoupled(request.model, request.version)
        except TuiliError:
            return False  # an unknown model, which `submit_stream` tells

    def _refuse(self, entry: _Request, error: TuiliError) -> None:
        if self._strict:
            self._end(error)
            return
        entry.take(InferRequest("", [], id=request_id(entry.message)), False, True)
        entry.final = True
        entry.ready.append(stream_error(entry.request, str(error), True))
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
        if answer is None and entry.empty_final:
            answer = InferResponse(entry.request.model, entry.request.version, [], entry.request.id)
        if answer is not None:
            entry.ready.append(self._encode(entry, answer, final))
        self._send_ready(entry)

    def _encode(
        self, entry: _Request, answer: InferResponse | TuiliError, final: bool
    ) -> list[Buffer] | asyncio.Future[Written]:
        if isinstance(answer, TuiliError):
            return stream_error(entry.request, str(answer), final)
        written = self._inference.encode(answer, {"triton_final_response": final})
        if isinstance(written, asyncio.Future):
            written.add_done_callback(partial(self._was_written, entry))
            return written
        return _wrapped(entry, written, final)

    def _was_written(self, entry: _Request, written: asyncio.Future[Written]) -> None:
        if not self._over:
            self._send_ready(entry)

    def _send_ready(self, entry: _Request) -> None:
        if entry.ordered:
            self._flush()
        else:
            self._release(entry)

    def _flush(self) -> None:
        """Send what is ready, as far as the order allows."""
        ordered = self._ordered
        while ordered:
            entry = ordered[0]
            self._release(entry)
            if not entry.final or entry.ready or not ordered or ordered[0] is not entry:
                return
            ordered.popleft()

    def _release(self, entry: _Request) -> None:
        ready = entry.ready
        while ready:
            message = ready[0]
            if isinstance(message, asyncio.Future):
                if not message.done() or message.cancelled():
                    return
                message = _wrapped(entry, message.result(), entry.final and len(ready) == 1)
            ready.popleft()
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
        self._unread.clear()
        if self._reading is not None:
            self._reading.cancel()
        for entry in pending:
            self._inference.room.leave(entry)
            ticket, entry.ticket = entry.ticket, None
            if ticket is not None:
                ticket.cancel()
            for message in entry.ready:
                if isinstance(message, asyncio.Future):
                    message.cancel()


def _wrapped(entry: _Request, written: Written, final: bool) -> list[Buffer]:
    if isinstance(written, TuiliError):
        return stream_error(entry.request, str(written), final)
    return wrap_stream_response(written)
