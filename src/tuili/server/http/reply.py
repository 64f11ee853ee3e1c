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


def json_reply(value: Any, status: int = 200) -> Reply:
    """`value` as a JSON body."""
    return Reply(status, (orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY),))


def error_reply(status: int, text: str, headers: tuple[tuple[bytes, bytes], ...] = ()) -> Reply:
    """`{"error": text}`, the body of every refusal."""
    # Surrogates can come in with a decoded body; they must not turn an error into a crash.
    safe = text.encode("utf-8", "replace").decode()
    return Reply(status, (orjson.dumps({"error": safe}),), JSON, headers)


def encode_head(reply: Reply, length: int, close: bool) -> bytes:
    """Status line and fields of `reply`, whose body has `length` bytes."""
    lines = [_STATUS_LINES[reply.status]]
    if reply.content_type and (length or reply.content_type is TEXT):
        lines += (b"Content-Type: ", reply.content_type, b"\r\n")
    for name, value in reply.headers:
        lines += (name, b": ", value, b"\r\n")
    if close:
        lines.append(b"Connection: close\r\n")
    lines.append(b"Content-Length: %d\r\n\r\n" % length)
    return b"".join(lines)


def encode_stream_head(reply: Reply, close: bool) -> bytes:
    """Head of a reply whose body comes in chunks."""
    lines = [_STATUS_LINES[reply.status], b"Content-Type: ", reply.content_type, b"\r\n"]
    for name, value in reply.headers:
        lines += (name, b": ", value, b"\r\n")
    if close:
        lines.append(b"Connection: close\r\n")
    lines.append(b"Transfer-Encoding: chunked\r\n\r\n")
    return b"".join(lines)
