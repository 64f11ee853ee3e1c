"""gRPC of a front end: what is in its lane is answered here, all else is passed on to the owner."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

import grpc

from tuili.errors import InternalError, Overloaded, TuiliError
from tuili.server.dataplane import DataPlane, Ticket
from tuili.server.grpc.frames import PUSHBACK
from tuili.server.grpc.infer_stream import COUNTED_BYTES
from tuili.server.grpc.inference import Done, Inference, Stream
from tuili.server.grpc.listener import GrpcListener
from tuili.server.grpc.methods import INFER_PATH, STREAM_PATH, Method
from tuili.server.grpc.predict import Serialized
from tuili.server.grpc.service import Message
from tuili.server.grpc.stream import GrpcStream
from tuili.server.grpc.varints import Buffer
from tuili.server.http.origin import PEER
from tuili.server.listening import Listening, listen
from tuili.server.options import ServerOptions
from tuili.server.protocol.messages import InferRequest, Origin
from tuili.server.protocol.status import Told
from tuili.server.room import Room
from tuili.server.transports import cannot_listen, grpc_address, grpc_rules

_LOG: Final = logging.getLogger("tuili.server.grpc")
_REGION: Final = b"shared_memory_region"
_MOST: Final = -1  # The owner has limits of its own.
_OPTIONS: Final = [
    ("grpc.max_receive_message_length", _MOST),
    ("grpc.max_send_message_length", _MOST),
    ("grpc.use_local_subchannel_pool", 1),
]
# What belongs to a connection, or is written anew.
_NOT_PASSED: Final = frozenset((b"te", b"content-type", b"user-agent", b"host", PEER.encode()))
_MOST_WAITING: Final = 4096


async def start(dataplane: DataPlane, options: ServerOptions, path: str) -> Listening:
    """Listen where the owner does; `path` is its Unix socket."""
    address = grpc_address(options)
    if address.tls is not None:
        address.tls.set_alpn_protocols(["h2"])
    inference = FrontInference(dataplane, Owner(path))
    listener = GrpcListener(inference, grpc_rules(options, dataplane.room), dataplane.access_log)
    try:
        return await listen(listener.connect, listener.connections, address)
    except OSError as error:
        raise cannot_listen("grpc", options.grpc_port, error) from error


class FrontInference(Inference):
    """Answers requests to the models of a lane."""

    def __init__(self, dataplane: DataPlane, owner: Owner) -> None:
        super().__init__(dataplane, dataplane.room)
        self._live = dataplane.repository.live
        self._looks_for_regions = dataplane.options.allow_client_shm
        self._owner = owner
        self.elsewhere = self._elsewhere

    def _elsewhere(
        self,
        request: InferRequest,
        message: Buffer,
        deadline: float | None,
        done: Done,
        origin: Origin | None,
    ) -> Ticket | None:
        known = request.version in self._live.get(request.model, ())
        if known and not (self._looks_for_regions and _REGION in bytes(message)):
            return None
        ask = partial(self._owner.unary, INFER_PATH, bytes(message), deadline, origin)
        return Unary(ask, done)

    def open_stream(
        self,
        send: Callable[[list[Buffer]], None],
        finish: Callable[[TuiliError | None], None],
        strict: bool,
        origin: Origin,
    ) -> Stream:
        """Pass a ModelStreamInfer call on."""
        return PassedStream(self._owner, self.room, send, finish, origin)

    def operate(
        self, method: Method, path: str, message: Buffer, origin: Origin
    ) -> Message | Awaitable[Message]:
        """Pass any other call on."""
        return self._owner.unary(path, bytes(message), _deadline(origin), origin)


class Owner:
    """The way to the owner."""

    def __init__(self, path: str) -> None:
        self._channel: Any = grpc.aio.insecure_channel(f"unix:{path}", options=_OPTIONS)

    async def unary(
        self, path: str, message: bytes, deadline: float | None, origin: Origin | None
    ) -> Serialized:
        """The owner's answer to a call."""
        call = self._channel.unary_unary(path)
        try:
            found = await call(message, metadata=_metadata(origin), timeout=_left(deadline))
        except grpc.aio.AioRpcError as error:
            raise told(error) from None
        return Serialized(found)

    def stream(self, path: str, deadline: float | None, origin: Origin | None) -> Any:
        """A call with any number of messages either way."""
        call = self._channel.stream_stream(path)
        return call(metadata=_metadata(origin), timeout=_left(deadline))


class Unary:
    """An infer call that was passed on; also its ticket."""

    def __init__(self, ask: Callable[[], Awaitable[Serialized]], done: Done) -> None:
        self._done = done
        self._task = asyncio.ensure_future(self._wait(ask))

    async def _wait(self, ask: Callable[[], Awaitable[Serialized]]) -> None:
        try:
            found = await ask()
        except TuiliError as error:
            self._done(error)
        except Exception:  # noqa: BLE001 - a bug of ours must not leave the client waiting
            _LOG.exception("a call could not be passed on")
            self._done(InternalError("internal error; the server's log has the details"))
        else:
            self._done([found.SerializeToString()])

    def cancel(self) -> None:
        """Nobody waits any more."""
        self._task.cancel()


class _Waiting:
    """A request of a stream that has not been passed on yet."""

    __slots__ = ("message",)

    def __init__(self, message: bytes) -> None:
        self.message = message


class PassedStream:
    """A streaming call that was passed on."""

    def __init__(
        self,
        owner: Owner,
        room: Room,
        send: Callable[[list[Buffer]], None],
        finish: Callable[[TuiliError | None], None],
        origin: Origin,
    ) -> None:
        self._room = room
        self._send = send
        self._finish = finish
        self._messages: asyncio.Queue[_Waiting | None] = asyncio.Queue()
        self._call: Any = owner.stream(STREAM_PATH, _deadline(origin), origin)
        self._over = False
        self._tasks = [asyncio.ensure_future(self._write()), asyncio.ensure_future(self._read())]

    @property
    def full(self) -> bool:
        """Whether no more requests should be read for now."""
        return self._messages.qsize() >= _MOST_WAITING

    def receive(self, message: Buffer) -> None:
        """Pass the client's next request on; it takes room until the owner has it."""
        if self._over:
            return
        waiting = _Waiting(bytes(message))
        try:
            if len(message) >= COUNTED_BYTES:
                self._room.take(waiting, len(message))
        except TuiliError as error:
            self._end(error)
            self.cancel()
        else:
            self._messages.put_nowait(waiting)

    def half_close(self) -> None:
        """The client sends no more."""
        self._messages.put_nowait(None)

    def cancel(self) -> None:
        """The call is over."""
        self._over = True
        for task in self._tasks:
            task.cancel()
        self._call.cancel()
        while not self._messages.empty():
            self._room.leave(self._messages.get_nowait())

    async def _write(self) -> None:
        try:
            while (waiting := await self._messages.get()) is not None:
                try:
                    await self._call.write(waiting.message)
                finally:
                    self._room.leave(waiting)
            await self._call.done_writing()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return  # `_read` tells why.

    async def _read(self) -> None:
        try:
            async for message in self._call:
                if self._over:
                    return
                self._send([message])
        except grpc.aio.AioRpcError as error:
            self._end(told(error))
        else:
            self._end(None)

    def _end(self, error: TuiliError | None) -> None:
        if not self._over:
            self._over = True
            self._finish(error)


def told(error: Any) -> TuiliError:
    """The owner's status, to be passed on as it is."""
    text = error.details() or ""
    for name, value in error.trailing_metadata() or ():
        if name == PUSHBACK.decode():
            return Overloaded(text, int(value) / 1e3)
    return Told(text, int(error.code().value[0]))


def _metadata(origin: Origin | None) -> list[tuple[str, str]]:
    """The client's metadata, and its address."""
    if origin is None:
        return []
    fields = (origin.head.fields if isinstance(origin, GrpcStream) else None) or {}
    return [
        *(
            (name.decode(), value.decode("latin-1"))
            for name, value in fields.items()
            if name not in _NOT_PASSED and not name.startswith((b":", b"grpc-"))
            and not name.endswith(b"-bin")
        ),
        (PEER, origin.address()),
    ]  # fmt: skip


def _deadline(origin: Origin) -> float | None:
    return origin.deadline if isinstance(origin, GrpcStream) else None


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(deadline - asyncio.get_running_loop().time(), 0.0)
