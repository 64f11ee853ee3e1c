"""Calls from a model host to its server: other models, loading them, readiness.

They have a socket of their own, so that a model may call from any thread while a batch runs.
Tensors lie in the message, or in a memfd that travels with it.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import socket
import threading
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from queue import SimpleQueue
from typing import Any, Final, Literal
from weakref import WeakSet

import msgspec

from tuili.backends import host_letters
from tuili.backends.host_messages import MAX_MESSAGE, Parcel, SlotMemory, Tensor
from tuili.backends.requests import kind_of
from tuili.errors import InternalError
from tuili.tensors import Array

CallKind = Literal["infer", "stream", "load", "unload", "ready", "metric"]


class Call(msgspec.Struct, tag=True, array_like=True):
    """A model asks for something; `tensors` are `enclosed`, or in a memfd that comes along."""

    number: int
    kind: CallKind
    model: str
    version: str = ""
    id: str = ""
    sequence: int | str = 0
    flags: int = 0
    timeout_us: int = 0
    parameters: dict[str, Any] = {}
    outputs: list[str] = []
    tensors: list[Tensor] = []
    capacity: int = 0
    enclosed: bytes = b""
    run: int = 0  # the one that asks; 0: a thread of the model's own; LOADING: what loads it
    awaited: bool = False  # whether that run goes on with the answer only


class Called(msgspec.Struct, tag=True, array_like=True):
    """An answer to a call; the last one is `final`, and has no tensors if it only says so."""

    number: int
    final: bool = True
    text: str = ""
    kind: str = ""
    parameters: dict[str, Any] = {}
    tensors: list[Tensor] = []
    capacity: int = 0
    version: str = ""
    enclosed: bytes = b""


class Cancelled(msgspec.Struct, tag=True, array_like=True):
    """Nobody waits for request `at` of the batch in `slot` any more."""

    slot: int
    at: int


class Unwanted(msgspec.Struct, tag=True, array_like=True):
    """The answers to a call are not wanted any more."""

    number: int


class Awaited(msgspec.Struct, tag=True, array_like=True):
    """The run that made a call waits for its answer by now."""

    number: int


class AskReady(msgspec.Struct, tag=True, array_like=True):
    """Is the model ready, as far as it can tell? `Readied` answers, on the socket of orders."""


ToServer = Call | Unwanted | Awaited
ToHost = Called | Cancelled | AskReady

# A mapping takes a descriptor as long as the model holds one of its tensors: more are copied.
_MOST_MAPPED: Final = 16
# The number of a run that is none: the model is being loaded.
LOADING: Final = -1
# The number of the run that this code is in, from 1; 0 in threads of the model's own.
RUN: Final[ContextVar[int]] = ContextVar("run", default=0)
_decode_call: Final = msgspec.msgpack.Decoder(ToServer).decode
_decode_called: Final = msgspec.msgpack.Decoder(ToHost).decode


def pack(tensors: Mapping[str, Array]) -> tuple[list[Tensor], int, int, bytes]:
    """Where tensors lie, the size and descriptor of a memfd for them or -1, what is enclosed."""
    if not tensors:
        return [], 0, -1, b""
    memory = Parcel()
    laid = memory.write({name: [array] for name, array in tensors.items()})
    return laid, memory.capacity, memory.descriptor, memory.enclosed


def unpack(
    tensors: list[Tensor],
    capacity: int,
    descriptors: list[int],
    enclosed: bytes,
    mapped: WeakSet[mmap.mmap] | None = None,
) -> dict[str, Array]:
    """The tensors of a message, enclosed or in a memfd; views keep the memory alive.

    `mapped` holds the mappings that are still in use, where they are to be few.
    InternalError when this process has no descriptors left, so that it cannot be had.
    """
    if not tensors:
        return {}
    if enclosed:
        memory = SlotMemory(-1, bytearray(enclosed))
        return {tensor.name: memory.read(tensor) for tensor in tensors}
    if not descriptors:
        raise InternalError("a message with tensors came without their memory")
    memory = SlotMemory(descriptors[0])
    try:
        memory.remap(capacity)
    except OSError as error:
        raise InternalError(f"no memory for the tensors of a message: {error}") from error
    found = {tensor.name: memory.read(tensor) for tensor in tensors}
    if mapped is None:
        return found
    if len(mapped) >= _MOST_MAPPED:
        return {name: array.copy() for name, array in found.items()}
    assert not isinstance(memory.mapping, bytearray)
    mapped.add(memory.mapping)
    return found


def send(to: socket.socket, message: ToServer | ToHost, descriptor: int = -1) -> None:
    """Send a message and the descriptor of its tensors, which is closed here."""
    # A side that is gone needs no answer.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        host_letters.send(to, message, descriptor)


def receive_call(
    at: socket.socket,
) -> tuple[ToServer, dict[str, Array] | InternalError] | None:
    """The next call that a host makes, with its tensors or why there are none; None at the end.

    MsgspecError where what came is no call.
    """
    raw, descriptors = _receive(at)
    if not raw:
        return None
    try:
        message = _decode_call(raw)
    except msgspec.MsgspecError:
        _close(descriptors)
        raise
    try:
        if isinstance(message, Call):
            found = unpack(message.tensors, message.capacity, descriptors, message.enclosed)
            return message, found
        return message, {}
    except InternalError as error:
        return message, error
    finally:
        _close(descriptors)


def _close(descriptors: Iterable[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _receive(at: socket.socket) -> tuple[bytes, list[int]]:
    try:
        raw, descriptors, _, _ = socket.recv_fds(at, MAX_MESSAGE, 4)
    except ConnectionResetError:
        return b"", []
    return host_letters.opened(raw, descriptors), list(descriptors)


class Caller:
    """The host's end: makes calls from any thread, and hears of cancelled requests."""

    def __init__(self, server: socket.socket) -> None:
        self._server = server
        self._lock = threading.Lock()
        self._count = 0
        self._waiting: dict[int, Callable[[tuple[Called, dict[str, Array]]], None]] = {}
        self._cancelled: set[tuple[int, int]] = set()
        self._mapped: WeakSet[mmap.mmap] = WeakSet()
        self._reader: threading.Thread | None = None
        self._is_over = False
        self.on_ask_ready: Callable[[], None] | None = None  # called by the thread that listens

    def start(self) -> None:
        """Begin to listen."""
        self._reader = threading.Thread(target=self._read, name="calls", daemon=True)
        self._reader.start()

    def call(
        self, call: Call, tensors: Mapping[str, Array], told: Callable[[], None] | None = None
    ) -> Callable[[], Any]:
        """Make a call; the result waits for its next answer: `(Called, tensors)`.

        `told` is called on another thread when one has come.
        """
        answers: SimpleQueue[tuple[Called, dict[str, Array]]] = SimpleQueue()

        def put(answer: tuple[Called, dict[str, Array]]) -> None:
            answers.put(answer)
            if told is not None:
                told()

        call.tensors, call.capacity, descriptor, call.enclosed = pack(tensors)
        with self._lock:
            self._count += 1
            call.number = self._count
            self._waiting[call.number] = put
            send(self._server, call, descriptor)
            if self._is_over:
                self._give_up()
        return answers.get

    def cancel(self, call: Call) -> None:
        """The further answers to a call are not wanted; those that come all the same are told."""
        with self._lock:
            if call.number in self._waiting:
                send(self._server, Unwanted(call.number))

    def awaits(self, call: Call) -> None:
        """The run that made a call waits for its answer."""
        with self._lock:
            if call.run and call.number in self._waiting:
                send(self._server, Awaited(call.number))

    def is_cancelled(self, slot: int, at: int) -> bool:
        """Whether nobody waits for that request any more."""
        return (slot, at) in self._cancelled

    def forget(self, slot: int, at: int) -> None:
        """That request was answered."""
        self._cancelled.discard((slot, at))

    def fresh(self, slot: int) -> None:
        """A new batch is in the slot."""
        self._cancelled = {each for each in self._cancelled if each[0] != slot}

    def _read(self) -> None:
        while True:
            raw, descriptors = _receive(self._server)
            if not raw:
                with self._lock:
                    self._is_over = True
                    self._give_up()
                return
            message = _decode_called(raw)
            if isinstance(message, Cancelled):
                self._cancelled.add((message.slot, message.at))
            elif isinstance(message, AskReady):
                if self.on_ask_ready is not None:
                    self.on_ask_ready()
            else:
                self._take(message, descriptors)
            for descriptor in descriptors:
                os.close(descriptor)

    def _give_up(self) -> None:
        """The server is gone: nobody may wait for it, or this process would outlive it."""
        for number, put in self._waiting.items():
            put((Called(number, text="the server is gone", kind="Unavailable"), {}))
        self._waiting.clear()

    def _take(self, message: Called, descriptors: list[int]) -> None:
        with self._lock:
            put = self._waiting.get(message.number)
            if message.final:
                self._waiting.pop(message.number, None)
        if put is None:
            return
        try:
            tensors = unpack(
                message.tensors, message.capacity, descriptors, message.enclosed, self._mapped
            )
        except InternalError as error:
            message = Called(message.number, message.final, text=str(error), kind=kind_of(error))
            tensors = {}
        put((message, tensors))
