"""The service on grpcio's own server: slower by far, and the judge of ours."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final, Literal, TypeAlias

import grpc
import grpc.aio

from tuili.errors import TuiliError, Unavailable
from tuili.server.dataplane import DataPlane
from tuili.server.execution.pending import Ticket
from tuili.server.grpc.encoding import Written
from tuili.server.grpc.frames import PUSHBACK
from tuili.server.grpc.grpcio_tls import credentials_of
from tuili.server.grpc.infer_stream import COUNTED_BYTES, InferStream
from tuili.server.grpc.inference import Inference
from tuili.server.grpc.limits import GrpcLimits
from tuili.server.grpc.methods import INFER_PATH, METHODS, STREAM_PATH, Method
from tuili.server.grpc.varints import Buffer
from tuili.server.listening import TIME_OVER, Address, gone_in_time
from tuili.server.protocol.status import pushback_ms, status_of

# As good as for ever: whoever waits for the end says how long.
_GRACE_S: Final = 1e6
_Answered: TypeAlias = "asyncio.Future[Written | asyncio.Future[Written]]"
_Unary: TypeAlias = Callable[[bytes, Any], Awaitable[bytes]]
_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}


class GrpcioServer:
    """A listening grpcio server."""

    def __init__(self, server: grpc.aio.Server, handlers: _Handlers, port: int) -> None:
        self._server = server
        self._handlers = handlers
        self._port = port
        self._stopping: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._port

    def close(self) -> None:
        """Stop listening; calls under way are finished."""
        if self._stopping is None:
            self._stopping = asyncio.ensure_future(self._server.stop(_GRACE_S))

    async def wait_closed(self, timeout_s: float | None = None) -> bool:
        """Wait until every call has ended, `timeout_s` at most; false when some had to end so.

        These are told so, and cut if they do not take it.
        """
        self.close()
        assert self._stopping is not None
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.shield(self._stopping)
        except TimeoutError:
            self._handlers.dismiss()
            if not await gone_in_time(asyncio.shield(self._stopping)):
                await self._server.stop(0)
            return False
        return True


async def start_grpcio(dataplane: DataPlane, address: Address, limits: GrpcLimits) -> GrpcioServer:
    """Listen with grpcio."""
    most_bytes = min(limits.max_message_bytes, limits.room.most_bytes)
    server = grpc.aio.server(
        options=[
            # Of what it unpacks too, piece by piece.
            ("grpc.max_receive_message_length", most_bytes),
            ("grpc.max_send_message_length", limits.max_message_bytes),
            ("grpc.so_reuseport", 0),
        ]
    )
    handlers = _Handlers(dataplane, limits)
    server.add_generic_rpc_handlers((handlers,))
    host = f"[{address.host}]" if ":" in address.host else address.host
    where = f"{host}:{address.port}"
    if address.tls is None:
        bound = server.add_insecure_port(where)
    else:
        bound = server.add_secure_port(where, credentials_of(address.tls))
    await server.start()
    return GrpcioServer(server, handlers, bound)


def _refusing(path: str, error: TuiliError) -> Any:
    """The handler of a method that the client may not use."""

    async def refuse(_: Any, context: Any) -> bytes:
        await _abort(context, error)
        return b""

    if path == STREAM_PATH:
        return grpc.stream_unary_rpc_method_handler(refuse)
    return grpc.unary_unary_rpc_method_handler(refuse)


class _Handlers(grpc.GenericRpcHandler):
    """Finds the handler of a method."""

    def __init__(self, dataplane: DataPlane, limits: GrpcLimits) -> None:
        self._dataplane = dataplane
        self._restrictions = limits.restrictions
        self._room = limits.room
        self._inference = Inference(dataplane, limits.room)
        self._inference.loop = asyncio.get_running_loop()
        self._open: set[Callable[[TuiliError], None]] = set()  # which end the calls under way

    def dismiss(self) -> None:
        """End the calls under way, since the server waits no longer."""
        for end in list(self._open):
            end(Unavailable(TIME_OVER))

    @contextmanager
    def _ended_by(self, end: Callable[[TuiliError], None]) -> Generator[None]:
        """A call that is under way as long as this lasts."""
        self._open.add(end)
        try:
            yield
        finally:
            self._open.discard(end)

    def service(self, handler_call_details: Any) -> Any:
        path = handler_call_details.method
        try:
            given = dict(handler_call_details.invocation_metadata)
            self._restrictions.check(path.rpartition("/")[2], lambda name: given.get(name, ""))
        except TuiliError as error:
            return _refusing(path, error)
        if path == INFER_PATH:
            return grpc.unary_unary_rpc_method_handler(self._held(self._infer))
        if path == STREAM_PATH:
            return grpc.stream_stream_rpc_method_handler(self._stream)
        method = METHODS.get(path)
        if method is None:
            return None
        return grpc.unary_unary_rpc_method_handler(self._held(self._unary(method)))

    def _held(self, call: _Unary) -> _Unary:
        """`call`, for which a large message takes room; grpcio tells of it when it is whole."""

        async def held(message: bytes, context: Any) -> bytes:
            key = object()
            try:
                if len(message) >= COUNTED_BYTES:
                    self._room.take(key, len(message))
                return await call(message, context)
            except TuiliError as error:
                await _abort(context, error)
                raise
            finally:
                self._room.leave(key)

        return held

    async def _infer(self, message: bytes, context: Any) -> bytes:
        loop = asyncio.get_running_loop()
        answered: _Answered = loop.create_future()
        remaining = context.time_remaining()
        deadline = None if remaining is None else loop.time() + remaining
        ticket: Ticket | None = None

        def end(error: TuiliError) -> None:
            _settle(answered, error)
            if ticket is not None:
                ticket.cancel()

        reply = partial(_settle, answered)
        ticket = self._inference.infer(message, deadline, reply, _Origin(context))
        try:
            with self._ended_by(end):
                answer = await answered
                if isinstance(answer, asyncio.Future):
                    answer = await answer
        except asyncio.CancelledError:
            if ticket is not None:
                ticket.cancel()
            raise
        if isinstance(answer, TuiliError):
            raise answer
        return b"".join(answer)

    def _unary(self, method: Method) -> _Unary:
        async def call(message: bytes, context: Any) -> bytes:
            response = self._inference.operate(method, "", message, _Origin(context))
            if isinstance(response, Awaitable):
                response = await self._unless_ended(response)
            return bytes(response.SerializeToString())

        return call

    async def _unless_ended(self, response: Awaitable[Any]) -> Any:
        """What is waited for, or the error of a server that waits no longer."""
        coming = asyncio.ensure_future(response)
        ended: asyncio.Future[TuiliError] = asyncio.get_running_loop().create_future()
        try:
            with self._ended_by(ended.set_result):
                await asyncio.wait((coming, ended), return_when=asyncio.FIRST_COMPLETED)
            if not coming.done():
                raise ended.result()
            return coming.result()
        finally:
            coming.cancel()

    async def _stream(self, messages: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        metadata = dict(context.invocation_metadata())
        queue: asyncio.Queue[list[Buffer] | TuiliError | None] = asyncio.Queue()
        strict = metadata.get("triton_grpc_error") == "true"
        stream = InferStream(
            self._inference, queue.put_nowait, queue.put_nowait, strict, _Origin(context)
        )
        reader = asyncio.ensure_future(_feed(stream, messages))
        try:
            with self._ended_by(queue.put_nowait):
                while (item := await queue.get()) is not None:
                    if isinstance(item, TuiliError):
                        await _abort(context, item)
                    assert isinstance(item, list)
                    yield b"".join(item)
        finally:
            reader.cancel()
            stream.cancel()


class _Origin:
    """Where a call came from."""

    def __init__(self, context: Any) -> None:
        self._context = context

    def header(self, name: str) -> str:
        return str(dict(self._context.invocation_metadata()).get(name, ""))

    def headers(self) -> dict[str, str]:
        return {str(name): str(value) for name, value in self._context.invocation_metadata()}

    def address(self) -> str:
        """From `ipv4:127.0.0.1:5000` or `ipv6:[::1]:5000`."""
        return str(self._context.peer()).partition(":")[2].rpartition(":")[0].strip("[]")

    @property
    def protocol(self) -> Literal["GRPC"]:
        """The transport."""
        return "GRPC"

    @property
    def since_ns(self) -> int:
        """Nobody notes when a message begins."""
        return 0


def _settle(answered: _Answered, answer: Written | asyncio.Future[Written]) -> None:
    """The first answer counts: one may come after the call was ended."""
    if not answered.done():
        answered.set_result(answer)


async def _feed(stream: InferStream, messages: AsyncIterator[bytes]) -> None:
    async for message in messages:
        stream.receive(message)
    stream.half_close()


async def _abort(context: Any, error: TuiliError) -> None:
    pushback = pushback_ms(error)
    trailers = () if pushback is None else ((PUSHBACK.decode(), str(pushback)),)
    await context.abort(_CODES[status_of(error).grpc], str(error), trailers)
