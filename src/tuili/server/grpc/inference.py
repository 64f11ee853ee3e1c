"""ModelInfer, for whichever transport carries it; ModelStreamInfer is in `infer_stream`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, Protocol

from tuili.errors import InternalError, TuiliError
from tuili.server.dataplane import DataPlane, Ticket
from tuili.server.grpc.decoding import Decoded, RequestDecoder
from tuili.server.grpc.encoding import ResponseEncoder, Written, is_long
from tuili.server.grpc.express import ExpressDesk
from tuili.server.grpc.infer_stream import InferStream
from tuili.server.grpc.long_message import LONG_BYTES
from tuili.server.grpc.methods import Method
from tuili.server.grpc.service import Message
from tuili.server.grpc.varints import Buffer
from tuili.server.protocol.messages import InferRequest, InferResponse, Origin, Parameters
from tuili.server.room import Room
from tuili.server.slices import Slices
from tuili.server.steps import Found, Steps

# Told the answer once, or a promise of it where it takes long to write.
Done = Callable[["Written | asyncio.Future[Written]"], None]

_LOG: Final = logging.getLogger("tuili.server.grpc")

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
    loop: asyncio.AbstractEventLoop | None = None  # once it listens

    def __init__(self, dataplane: DataPlane, room: Room) -> None:
        self.dataplane = dataplane
        self.room = room
        self.decoder = RequestDecoder()
        self.encoder = ResponseEncoder()
        self.slices = Slices()
        self._desk = ExpressDesk(dataplane, self._answer)

    def infer(
        self, message: Buffer, deadline: float | None, done: Done, origin: Origin | None = None
    ) -> Ticket | None:
        """Answer one ModelInferRequest by one call of `done`, or of the origin's `answer_known`."""
        try:
            ticket = self._desk.take(message, deadline, done, origin)
            if ticket is not None:
                return ticket
            read = self.read(message)
        except TuiliError as error:
            done(error)
            return None
        if isinstance(read, asyncio.Future):
            later = partial(self._submit, message, deadline, done, origin)
            return _Reading(read, later, done)
        return self._submit(message, deadline, done, origin, read)

    def read(self, message: Buffer) -> Decoded | asyncio.Future[Decoded]:
        """The request in a message, or a promise of it where it takes long to read."""
        if len(message) < LONG_BYTES:
            return self.decoder.decode(message)
        return self.in_turns(self.decoder.read(message))

    def in_turns(self, work: Steps[Found]) -> Found | asyncio.Future[Found]:
        """What `work` returns, or a promise of it where it takes long."""
        return self.slices.begin(work, self.loop)

    def _submit(
        self,
        message: Buffer,
        deadline: float | None,
        done: Done,
        origin: Origin | None,
        read: Decoded,
    ) -> Ticket | None:
        request, plan = read
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
        return method.call(self.dataplane, message, origin, self.in_turns)

    def _answer(self, done: Done, answer: InferResponse | TuiliError) -> None:
        done(self.encode(answer, None) if isinstance(answer, InferResponse) else answer)

    def encode(
        self, response: InferResponse, extra: Parameters | None
    ) -> Written | asyncio.Future[Written]:
        """The message of a response, or a promise of it; `extra` are parameters beside its own."""
        try:
            if self.loop is None or not is_long(response):
                return self.encoder.encode(response, extra)
        except Exception as error:  # noqa: BLE001 - a bug of ours must not reach the batcher
            return _instead(response, error)
        return self.slices.run(self._write(response, extra), self.loop)

    def _write(self, response: InferResponse, extra: Parameters | None) -> Steps[Written]:
        try:
            return (yield from self.encoder.write(response, extra))
        except Exception as error:  # noqa: BLE001 - as above
            return _instead(response, error)


def _instead(response: InferResponse, error: Exception) -> TuiliError:
    """What to answer in place of a response that has no message."""
    if isinstance(error, TuiliError):
        return error
    _LOG.error("the answer of %r could not be encoded", response.model, exc_info=error)
    return InternalError("internal error; the server's log has the details")


class _Reading:
    """The ticket of a request that takes long to read: of that, and then of the request."""

    def __init__(
        self,
        read: asyncio.Future[Decoded],
        submit: Callable[[Decoded], Ticket | None],
        done: Done,
    ) -> None:
        self._submit = submit
        self._done = done
        self._ticket: Ticket | asyncio.Future[Decoded] | None = read
        read.add_done_callback(self._begin)

    def _begin(self, read: asyncio.Future[Decoded]) -> None:
        if read.cancelled():
            return
        self._ticket = None
        try:
            self._ticket = self._submit(read.result())
        except TuiliError as error:
            self._done(error)
        except Exception:  # noqa: BLE001 - a bug of ours must not leave the client waiting
            _LOG.exception("a request could not be read")
            self._done(InternalError("internal error; the server's log has the details"))

    def cancel(self) -> None:
        """Nobody waits any more."""
        if self._ticket is not None:
            self._ticket.cancel()
