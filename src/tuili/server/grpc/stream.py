"""One HTTP/2 stream that carries one gRPC call."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Final

import msgspec

from tuili.errors import Cancelled, DeadlineExceeded, InternalError, TuiliError, Unsupported
from tuili.server.grpc.assembly import Assembler, is_one_message
from tuili.server.grpc.encoding import Written
from tuili.server.grpc.express import Said
from tuili.server.grpc.inference import Stream
from tuili.server.grpc.limits import GrpcLimits
from tuili.server.grpc.methods import INFER_PATH, METHODS, STREAM_PATH, Method
from tuili.server.grpc.origin import GrpcOrigin
from tuili.server.grpc.varints import Buffer
from tuili.server.protocol.restrictions import Restrictions
from tuili.server.protocol.status import pushback_ms, status_of

if TYPE_CHECKING:
    from tuili.server.dataplane import Ticket

_LOG: Final = logging.getLogger("tuili.server.grpc")
_PATHS: Final = frozenset((INFER_PATH, STREAM_PATH, *METHODS))
_INTERNAL, _RESOURCE_EXHAUSTED, _DEADLINE_EXCEEDED = 13, 8, 4
_tasks: set[asyncio.Task[None]] = set()


class GrpcStream(GrpcOrigin, eq=False):
    """A call: messages come in as DATA, the answer goes out through the connection."""

    window: int  # what may be sent before the client gives more
    unacked: int = 0  # received, and not yet given back
    remote_closed: bool = False
    over: bool = False  # answered or gone: the data plane's answers are dropped
    opened: bool = False  # whether response HEADERS went out
    ended: bool = False  # whether the trailers went out
    received: int = 0  # bytes of DATA, padding aside
    # What the windows did not let through yet.
    outgoing: deque[memoryview] = msgspec.field(default_factory=deque)
    trailer: bytes = b""
    deadline: float | None = None
    since: float = 0.0  # when the message under way, or what is waited for, began
    _left: tuple[int, float] = (0, 0.0)  # bytes that a window held back, and since when
    _message: Buffer | None = None
    _ticket: Ticket | asyncio.Future[Written] | None = None
    _stream: Stream | None = None
    _charged: bool = False  # whether its message takes room
    _assembler: Assembler | None = None  # made when a message comes in pieces

    def __post_init__(self) -> None:
        head, connection = self.head, self._connection
        if head.timeout_s is not None:
            self.deadline = asyncio.get_running_loop().time() + head.timeout_s
        if head.path == STREAM_PATH:
            self._stream = connection.inference.open_stream(
                self._send, self._end, head.strict_stream, self
            )
            connection.outgoing.open_response(self)

    def admit(self, restrictions: Restrictions) -> None:
        """End at once a call that is unknown, or not for this client."""
        path = self.head.path
        try:
            if path not in _PATHS:
                raise Unsupported(f"unknown method {path}")
            restrictions.check(path.rpartition("/")[2], self.header)
        except TuiliError as error:
            self._end(error)

    # What comes in ---------------------------------------------------------------------------

    def feed(self, data: bytes, at: int, end: int) -> None:
        """Take a piece of DATA."""
        if self.over:
            return
        try:
            if self._assembler is None:
                shared = self._connection.assembly
                if is_one_message(data, at, end, shared.most_bytes):
                    self._deliver(data[at + 5 : end])
                    return
                self._assembler = Assembler(
                    self.head.encoding, shared, self._deliver, self._claim, self._caught_up
                )
            assembler = self._assembler
            before = assembler.under_way
            assembler.feed(data, at, end)
            self._charge(assembler, end - at)
            if assembler.under_way != before:
                self.since = self._connection.now
        except TuiliError as error:
            self._end(error)

    def space(self, most: int) -> memoryview | None:
        """Where the socket may write the next `most` bytes of a large message by itself."""
        if self.over or self._assembler is None:
            return None
        return self._assembler.space(most)

    def filled(self, size: int) -> None:
        """Note that the socket wrote `size` bytes into the message under way."""
        if self.over:
            return
        assembler = self._assembler
        assert assembler is not None
        try:
            assembler.filled(size)
            self._charge(assembler, size)
        except TuiliError as error:
            self._end(error)

    def _charge(self, assembler: Assembler, size: int) -> None:
        """More of a message is here, for which others may have to give way, or this one."""
        room = self._connection.room
        if self._message is not None or self._behind:
            room.settle(self, size)
        elif assembler.under_way and not self.over:
            room.grow(self, size, self._end)
            self._connection.read(size)
        else:
            return
        self._charged = True

    def _claim(self, size: int) -> None:
        """More was unpacked: an error where there is no room for it."""
        self._charged = True
        self._connection.room.take(self, size)
        self._connection.read(size)

    def _release(self) -> None:
        if self._charged:
            self._charged = False
            self._connection.room.leave(self)

    def _deliver(self, message: Buffer) -> None:
        if self.over:
            return
        if self._stream is not None:
            self._receive(self._stream, message)
        elif self._message is not None:
            raise InternalError("more than one message in a unary call")
        else:
            self._message = message
            self.since = self._connection.now

    def _caught_up(self, error: TuiliError | None) -> None:
        """What was much to unpack has been delivered, and what came behind it."""
        if error is not None:
            self._end(error)
        elif self.remote_closed:
            self.half_close()
        elif not self.over:
            self._connection.credit.renew_stream(self)
            self._connection.outgoing.flush()

    def _receive(self, stream: Stream, message: Buffer) -> None:
        if not self._behind:
            self._release()  # whatever waits in a stream takes room of its own
        try:
            stream.receive(message)
        except Exception:  # noqa: BLE001 - a bug of ours must not end the connection
            self._own_bug()

    def half_close(self) -> None:
        """The client sends no more."""
        self.remote_closed = True
        if self.over or self._behind:
            return
        is_partial, self._assembler = self._partial, None  # it holds this call in turn
        if is_partial:
            self._end(InternalError("the call ended inside a message"))
        elif self._stream is not None:
            self._stream.half_close()
        elif self._message is None:
            self._end(InternalError("the call ended without a message"))
        else:
            self._call(self._message)

    @property
    def misfits(self) -> bool:
        """Whether its DATA was not what `content-length` said (RFC 9113 section 8.1.1)."""
        return 0 <= self.head.data_bytes != self.received

    @property
    def _behind(self) -> bool:
        """Whether messages that have come whole are still to be unpacked."""
        return self._assembler is not None and self._assembler.behind

    @property
    def _partial(self) -> bool:
        """Whether a message has begun and not ended."""
        return self._assembler is not None and bool(self._assembler.under_way)

    @property
    def choked(self) -> bool:
        """Whether the client should send no more for now."""
        return self._behind or (self._stream is not None and self._stream.full)

    # What it does ----------------------------------------------------------------------------

    def _call(self, message: Buffer) -> None:
        self._message = None
        if self.head.path == INFER_PATH:
            self.infer(message)
            return
        method = METHODS.get(self.head.path)
        if method is None:
            self._end(Unsupported(f"unknown method {self.head.path!r}"))
            return
        self._operate(method, message)

    def infer(self, message: Buffer) -> None:
        """Submit a whole request, or later where the client has enough answers to read."""
        connection = self._connection
        backlog = connection.backlog
        if backlog.full:
            self._message = message
            backlog.park(self)
            return
        said, deadline, done = connection.said, self.deadline, self._answer
        try:
            ticket = None if said is None else said.take(message, deadline, done, self)
            if ticket is None:
                ticket = connection.inference.infer(message, deadline, done, self)
        except TuiliError as error:
            self._end(error)
        except Exception:  # noqa: BLE001 - a bug of ours must not end the connection
            self._own_bug()
        else:
            if not self.over and self._ticket is None:
                self._ticket = ticket

    def note(self, said: Said | None) -> None:
        """What the next call may say again."""
        self._connection.said = said

    def unpark(self) -> None:
        """The client has read its answers: submit what waited for that."""
        message, self._message = self._message, None
        if message is not None and not self.over:
            self.infer(message)

    def _operate(self, method: Method, message: Buffer) -> None:
        try:
            result = self._connection.inference.operate(method, self.head.path, message, self)
        except TuiliError as error:
            self._end(error)
        except Exception:  # noqa: BLE001 - as above
            self._own_bug()
        else:
            if isinstance(result, Awaitable):
                task = asyncio.ensure_future(self._later(result))
                _tasks.add(task)
                task.add_done_callback(_tasks.discard)
                if method.infers:
                    self._ticket = _TaskTicket(task)
            else:
                self._answer([result.SerializeToString()])

    async def _later(self, result: Awaitable[object]) -> None:
        try:
            response = await result
        except TuiliError as error:
            self._end(error)
        except Exception:  # noqa: BLE001 - as above
            self._own_bug()
        else:
            self._answer([response.SerializeToString()])  # type: ignore[attr-defined]

    def _own_bug(self) -> None:
        _LOG.exception("%s failed", self.head.path)
        self._end(InternalError("internal error; the server's log has the details"))

    # What goes out ---------------------------------------------------------------------------

    def _answer(self, answer: Written | asyncio.Future[Written]) -> None:
        """The one answer of a unary call."""
        if isinstance(answer, asyncio.Future):
            self._await(answer)
        elif self.over:
            return
        elif isinstance(answer, list):
            self._ticket = None
            self.over = True
            self._release()
            self._connection.outgoing.send_answer(self, answer)
        else:
            self._end(answer)

    def _await(self, answer: asyncio.Future[Written]) -> None:
        """The answer takes long to write."""
        if self.over:
            answer.cancel()
            return
        self._ticket = answer
        answer.add_done_callback(self._written)

    def _written(self, answer: asyncio.Future[Written]) -> None:
        if not answer.cancelled():
            self._answer(answer.result())

    def answer_known(self, message: bytes) -> None:
        """The small answer of a unary call, as it stands in DATA."""
        if not self.over:
            self.over = True
            if self._charged:
                self._release()
            self._connection.outgoing.send_small(self, message)

    def _send(self, parts: list[Buffer]) -> None:
        """One message of a streaming call."""
        if self.over:
            return
        if len(self.outgoing) > self._connection.max_waiting_messages:
            self._connection.outgoing.forget(self)
            self._finish(_RESOURCE_EXHAUSTED, "the client does not read its responses")
            return
        self._connection.earned()
        self._connection.outgoing.send_message(self, parts)
        self._connection.credit.renew_stream(self)

    def refuse(self, error: TuiliError) -> None:
        """End a call that cannot be waited for."""
        self._end(error)

    def _end(self, error: TuiliError | None) -> None:
        """End the call, with the status of `error`."""
        if self.over:
            return
        if error is None:
            self._finish(0, "")
        elif isinstance(error, DeadlineExceeded) and self._is_late():
            # Not UNAVAILABLE, which proxies would try again.
            self._finish(_DEADLINE_EXCEEDED, "Deadline Exceeded")
        else:
            self._finish(status_of(error).grpc, str(error), pushback_ms(error))

    def _is_late(self) -> bool:
        """Whether the call is over by its own deadline, not by a model's."""
        return self.deadline is not None and asyncio.get_running_loop().time() >= self.deadline

    def _finish(self, code: int, text: str, pushback: int | None = None) -> None:
        self._forget()
        self._connection.outgoing.end_call(self, code, text, pushback)

    def _forget(self) -> None:
        """Take back what is under way."""
        self.over = True
        self._message = None
        ticket, self._ticket = self._ticket, None
        stream, self._stream = self._stream, None
        assembler, self._assembler = self._assembler, None
        self._release()
        if assembler is not None:
            assembler.cancel()
        if ticket is not None:
            ticket.cancel()
        if stream is not None:
            stream.cancel()

    def cancel(self) -> None:
        """The client, or the connection, has gone."""
        self._forget()
        self.ended = True
        self._connection.outgoing.forget(self)

    def is_stalled(self, now: float, limit_s: float) -> bool:
        """Whether the client has taken nothing of what waits for it, for too long."""
        left = sum(map(len, self.outgoing))
        if left != self._left[0]:
            self._left = (left, now)
        return left > 0 and now - self._left[1] >= limit_s

    def check(self, now: float, limits: GrpcLimits) -> None:
        """Called by the clock: end a call past its deadline or a message that never ends."""
        if self.over:
            return
        if self.deadline is not None and now >= self.deadline:
            self._finish(_DEADLINE_EXCEEDED, "Deadline Exceeded")
        elif self._partial or (self._stream is None and not self.remote_closed):
            size = 0 if self._assembler is None else self._assembler.size
            if now - self.since > limits.message_timeout_s + size / limits.min_message_rate:
                late = "the message" if self._message is None else "the end of the call"
                self._end(Cancelled(f"{late} took too long to arrive"))


class _TaskTicket:
    """A request that a task waits for."""

    def __init__(self, task: asyncio.Task[None]) -> None:
        self._task = task

    def cancel(self) -> None:
        """The task takes its request back."""
        self._task.cancel()


__all__ = ["GrpcStream"]
