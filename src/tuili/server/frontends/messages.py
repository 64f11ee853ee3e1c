"""What the owner and its front ends tell each other, over one socket each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, cast

import msgspec

from tuili.server.options import ServerOptions
from tuili.server.telemetry.transfer import Counts

_LENGTH: Final = 4


class Begin(msgspec.Struct, tag=True):
    """First of all: what to be. `options` are JSON; the paths are those of the owner's sockets."""

    options: str
    http_path: str
    grpc_path: str


class Place(msgspec.Struct):
    """Where a model version comes from; `digest` is of its folder's state when it was loaded."""

    folder: str
    version: int
    backend: str
    path: str
    config: str
    digest: str


class Offer(msgspec.Struct, tag=True):
    """A model may be answered by the front end; `default` answers without a version, if any."""

    model: str
    places: dict[str, Place]
    default: str = ""


class Retract(msgspec.Struct, tag=True):
    """A model may not be answered by the front end any more; to be acknowledged."""

    number: int
    model: str


class Count(msgspec.Struct, tag=True):
    """Tell what was counted up to now."""

    number: int


class LogSettings(msgspec.Struct, tag=True):
    """What is to be logged from now on."""

    settings: dict[str, Any]


class Stop(msgspec.Struct, tag=True):
    """Take no connection, answer what is under way, and end."""

    timeout_s: float


class Up(msgspec.Struct, tag=True):
    """The front end listens."""


class Done(msgspec.Struct, tag=True):
    """That number has been seen to; with what was counted since the last time."""

    number: int
    counts: list[Counts] = []


class Refused(msgspec.Struct, tag=True):
    """The front end cannot be."""

    text: str


ToFrontEnd = Begin | Offer | Retract | Count | LogSettings | Stop
ToOwner = Up | Done | Refused

_encode: Final = msgspec.msgpack.Encoder().encode


class Link(asyncio.Protocol):
    """One end of a socket between the owner and a front end: whole messages, in order."""

    def __init__(self, kind: Any, took: Callable[[Any], None], gone: Callable[[], None]) -> None:
        """`kind` is what comes in; `gone` is called once, when the other end is no more."""
        self._decode = msgspec.msgpack.Decoder(kind).decode
        self._took = took
        self._gone = gone
        self._data = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._data += data
        while len(self._data) >= _LENGTH:
            end = _LENGTH + int.from_bytes(self._data[:_LENGTH], "little")
            if len(self._data) < end:
                return
            message = bytes(self._data[_LENGTH:end])
            del self._data[:end]
            self._took(self._decode(message))

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._gone()

    def send(self, message: ToFrontEnd | ToOwner) -> None:
        """Send a message; to nobody, if the other end is gone."""
        if self._transport is not None:
            raw = _encode(message)
            self._transport.write(len(raw).to_bytes(_LENGTH, "little") + raw)

    def close(self) -> None:
        """Hang up, after what was sent."""
        if self._transport is not None:
            self._transport.close()


def options_text(options: ServerOptions) -> str:
    """The options of a server as text."""
    return msgspec.json.encode(options, enc_hook=str).decode()


def options_of(text: str) -> ServerOptions:
    """The options in such a text."""
    return _decode_options(text)


def _path(kind: type, value: Any) -> Any:
    return Path(value) if issubclass(kind, Path) else value


_decode_options: Final = msgspec.json.Decoder(ServerOptions, dec_hook=_path).decode
