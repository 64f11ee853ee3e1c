"""HTTP/2 frames (RFC 9113) as far as a gRPC server needs them: numbers, and their packing."""

from __future__ import annotations

import struct
from typing import Final
from urllib.parse import quote

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME_HEAD: Final = struct.Struct(">HBBBI")  # length (16 + 8 bits), type, flags, stream
FRAME_BYTES: Final = 9  # of a frame's head
PREFIX_BYTES: Final = 5  # gRPC's, before each message: whether it is compressed, and its length
_PACK_HEAD: Final = struct.Struct(">IBI").pack  # length << 8 | type, flags, stream
_SETTING: Final = struct.Struct(">HI")

# Frame types, section 6.
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS = 0, 1, 2, 3, 4
PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 5, 6, 7, 8, 9

# Flags.
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITIZED = 0x1, 0x1, 0x4, 0x8, 0x20

# Error codes, section 7.
NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR = 0, 1, 2, 3
STREAM_CLOSED, FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL = 5, 6, 7, 8
COMPRESSION_ERROR, ENHANCE_YOUR_CALM, INADEQUATE_SECURITY = 9, 11, 12

# Settings, section 6.5.2.
HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS = 1, 2, 3
INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = 4, 5, 6

DEFAULT_WINDOW: Final = 65_535
MAX_WINDOW: Final = (1 << 31) - 1
DEFAULT_FRAME: Final = 16_384


class ConnectionFault(Exception):
    """The peer broke HTTP/2 in a way that ends the connection; `code` goes into GOAWAY."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


def frame_head(kind: int, flags: int, stream: int, length: int) -> bytes:
    """The nine bytes before a payload of `length` bytes."""
    return _PACK_HEAD(length << 8 | kind, flags, stream)


def settings_frame(values: dict[int, int]) -> bytes:
    """A SETTINGS frame."""
    payload = b"".join(_SETTING.pack(key, value) for key, value in values.items())
    return frame_head(SETTINGS, 0, 0, len(payload)) + payload


def read_settings(payload: bytes) -> list[tuple[int, int]]:
    """The (identifier, value) pairs of a SETTINGS payload."""
    return list(_SETTING.iter_unpack(payload))


def window_update_frame(stream: int, amount: int) -> bytes:
    """A WINDOW_UPDATE frame."""
    return frame_head(WINDOW_UPDATE, 0, stream, 4) + amount.to_bytes(4, "big")


def rst_frame(stream: int, code: int) -> bytes:
    """A RST_STREAM frame."""
    return frame_head(RST_STREAM, 0, stream, 4) + code.to_bytes(4, "big")


def goaway_frame(last_stream: int, code: int, text: str = "") -> bytes:
    """A GOAWAY frame."""
    payload = last_stream.to_bytes(4, "big") + code.to_bytes(4, "big") + text.encode()
    return frame_head(GOAWAY, 0, 0, len(payload)) + payload


def literal(name: bytes, value: bytes) -> bytes:
    """A header field as HPACK literal without indexing and without Huffman (RFC 7541, 6.2.2)."""
    return b"\x00" + _string(name) + _string(value)


def _string(text: bytes) -> bytes:
    size = len(text)
    if size < 127:
        return bytes((size,)) + text
    out = bytearray(b"\x7f")
    size -= 127
    while size > 127:
        out.append(size & 127 | 128)
        size >>= 7
    out.append(size)
    return bytes(out) + text


_STATUS_200: Final = b"\x88"  # RFC 7541 appendix A, entry 8
_GRPC: Final = literal(b"content-type", b"application/grpc")

_OPEN: Final = _STATUS_200 + _GRPC
_OK: Final = literal(b"grpc-status", b"0")
OPEN_HEAD: Final = frame_head(HEADERS, END_HEADERS, 0, len(_OPEN))[:5]
OPEN_BLOCK: Final = _OPEN
OK_HEAD: Final = frame_head(HEADERS, END_HEADERS | END_STREAM, 0, len(_OK))[:5]
OK_BLOCK: Final = _OK

_MAX_STATUS_TEXT: Final = 4096
PUSHBACK: Final = b"grpc-retry-pushback-ms"


def open_frame(stream: int) -> bytes:
    """HEADERS that begin a response."""
    return OPEN_HEAD + stream.to_bytes(4, "big") + OPEN_BLOCK


def status_frame(
    stream: int, code: int, text: str, opened: bool, pushback_ms: int | None = None
) -> bytes:
    """HEADERS that end a response: trailers, or (not `opened`) all there is of it.

    `pushback_ms` says when a try may pass, to clients that try again by themselves (gRFC A6).
    """
    block = b"" if opened else _OPEN
    block += literal(b"grpc-status", b"%d" % code)
    if text:
        # gRPC: percent-encoded UTF-8; bounded, since it may quote what the client sent.
        escaped = quote(
            text[:_MAX_STATUS_TEXT], safe=" !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~", errors="replace"
        )
        block += literal(b"grpc-message", escaped.encode())
    if pushback_ms is not None:
        block += literal(PUSHBACK, b"%d" % pushback_ms)
    if code == 12:
        block += literal(b"grpc-accept-encoding", b"identity,deflate,gzip")
    return frame_head(HEADERS, END_HEADERS | END_STREAM, stream, len(block)) + block


def http_status_frame(stream: int, status: int) -> bytes:
    """HEADERS that refuse a request that is not gRPC."""
    block = literal(b":status", b"%d" % status)
    return frame_head(HEADERS, END_HEADERS | END_STREAM, stream, len(block)) + block


def expect(condition: bool, code: int, text: str) -> None:
    """End the connection unless `condition` holds."""
    if not condition:
        raise ConnectionFault(code, text)


def check_length(length: int, most: int) -> None:
    """End the connection over a frame that is longer than it may be."""
    if length > most:
        text = f"frame of {length} bytes, where {most} are the most"
        raise ConnectionFault(FRAME_SIZE_ERROR, text)


def pad_length(data: bytes, start: int, length: int) -> int:
    """The number of padding bytes of a padded DATA frame."""
    expect(length > 0, FRAME_SIZE_ERROR, "padded DATA without a pad length")
    pad = data[start]
    expect(pad < length, PROTOCOL_ERROR, "padding longer than the frame")
    return pad


def unpad_headers(flags: int, payload: bytes) -> bytes:
    """The header block of HEADERS with padding or (ignored) priority."""
    start, stop = 0, len(payload)
    if flags & PADDED:
        expect(stop >= 1, FRAME_SIZE_ERROR, "padded HEADERS without a pad length")
        start, stop = 1, stop - payload[0]
    if flags & PRIORITIZED:
        start += 5
    expect(start <= stop, PROTOCOL_ERROR, "padding longer than the frame")
    return payload[start:stop]
