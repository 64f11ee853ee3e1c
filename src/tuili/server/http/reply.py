"""An HTTP reply as bytes: status line, fields, body; and the error body that clients expect."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, TypeAlias

import orjson

JSON: Final = b"application/json"
OCTETS: Final = b"application/octet-stream"
TEXT: Final = b"text/plain; charset=utf-8"
EVENTS: Final = b"text/event-stream; charset=utf-8"

Buffer: TypeAlias = "bytes | bytearray | memoryview"

_STATUS_LINES: Final = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
}


@dataclass(slots=True)
class Reply:
    """One answer: `parts` are the body, sent one after the other without being joined."""

    status: int = 200
    parts: Sequence[Buffer] = ()
    content_type: bytes = JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()


def json_reply(
    value: Any, status: int = 200, headers: tuple[tuple[bytes, bytes], ...] = ()
) -> Reply:
    """`value` as a JSON body."""
    return Reply(status, (orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY),), JSON, headers)


def error_reply(status: int, text: str, headers: tuple[tuple[bytes, bytes], ...] = ()) -> Reply:
    """`{"error": text}`, the body of every refusal."""
    # Surrogates can come in with a decoded body; they must not turn an error into a crash.
    safe = text.encode("utf-8", "replace").decode()
    return Reply(status, (orjson.dumps({"error": safe}),), JSON, headers)


def error_event(text: str) -> bytes:
    """The server-sent event of an error."""
    safe = text.encode("utf-8", "replace").decode()
    return event_of(orjson.dumps({"error": safe}))


def event_of(data: bytes) -> bytes:
    """A server-sent event."""
    return b"data: %b\n\n" % data


def encode_head(reply: Reply, persistence: bytes, length: int | None) -> bytes:
    """Status line and fields of `reply`; a `length` of None means that its body comes in chunks.

    `persistence` is the Connection field, or nothing.
    """
    lines = [_STATUS_LINES[reply.status]]
    if length != 0 or reply.content_type is TEXT:
        lines += (b"Content-Type: ", reply.content_type, b"\r\n")
    for name, value in reply.headers:
        lines += (name, b": ", value, b"\r\n")
    lines.append(persistence)
    if length is None:
        lines.append(b"Transfer-Encoding: chunked\r\n\r\n")
    else:
        lines.append(b"Content-Length: %d\r\n\r\n" % length)
    return b"".join(lines)


def encode_endless_head(reply: Reply, persistence: bytes) -> bytes:
    """Head of a streamed reply whose end is that of the connection, for clients without chunks."""
    chunked = encode_head(reply, persistence, None)
    return chunked.replace(b"Transfer-Encoding: chunked\r\n", b"", 1)
