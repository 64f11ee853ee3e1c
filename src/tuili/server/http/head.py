"""The head of an HTTP/1.1 request: bytes in, `Head` out, nothing a proxy could read differently.

RFC 9112 is obeyed on its strict side.  Whatever two parsers might understand in two ways (a second
Content-Length, one beside Transfer-Encoding unless that is allowed, folded lines, bare CR or LF,
spaces before a colon) is refused and the connection is closed, because that is how requests are
smuggled.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote_to_bytes

from tuili.server.http.negotiation import choose_coding
from tuili.server.strangers import stranger

# RFC 9112 section 3: method SP request-target SP HTTP-version; no lenient whitespace.
_REQUEST_LINE: Final = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]{1,32}) ([!-~]+) HTTP/(\d)\.(\d)")
# RFC 9110 section 5.5: visible bytes, blanks and tabs inside; the surrounding blanks are not part.
_FIELD_LINE: Final = re.compile(
    rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):"
    rb"[ \t]*((?:[!-~\x80-\xff](?:[\t -~\x80-\xff]*[!-~\x80-\xff])?)?)[ \t]*"
)
_LENGTH: Final = re.compile(rb"[0-9]{1,18}")
_ABSOLUTE: Final = re.compile(rb"https?://[^/?#]*", re.IGNORECASE)
_SINGLETONS: Final = frozenset(
    (b"content-length", b"transfer-encoding", b"host", b"inference-header-content-length")
)
_CODED_AND_MEASURED: Final = frozenset((b"content-length", b"transfer-encoding"))
_MAX_FIELDS: Final = 128

CHUNKED: Final = -1

_PLAIN: Final = "HTTP/1.1 in plain text"
_TLS_HANDSHAKE: Final = b"\x16\x03"
# Of a method, or of an empty line before it.
_STARTS: Final = frozenset(
    b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz\r\n"
)


class BadHead(Exception):
    """A request head that must not be acted on; `status` says how to refuse it."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass(slots=True)
class Head:
    """One request head, understood.

    `content_length` is CHUNKED for a chunked body; `json_length` is None without the
    Inference-Header-Content-Length field; `route` is a slot for the router's answer, so that a
    cached head carries it along.
    """

    method: str
    target: bytes
    path: tuple[str, ...]
    query: bytes
    headers: dict[bytes, bytes]
    content_length: int
    keep_alive: bool
    json_length: int | None = None
    expect_continue: bool = False
    content_encoding: bytes = b""
    coding: bytes = b"identity"  # the one the client likes best
    old: bool = False  # HTTP/1.0
    route: object = field(default=None, compare=False)
    block: bytes = b""  # its bytes, if requests with the same ones find it again

    def field(self, name: str) -> str:
        """A header field, "" without one."""
        return self.headers.get(name.encode(), b"").decode("latin-1")


def require_start(first: int) -> None:
    """Refuse at once what no request begins with: a TLS client waits for the server's word."""
    if first == _TLS_HANDSHAKE[0]:
        raise BadHead(400, stranger(_TLS_HANDSHAKE, _PLAIN))
    if first not in _STARTS:
        raise BadHead(400, "malformed request line")


def parse_head(
    block: bytes, *, length_beside_chunks: bool = False, host_optional: bool = False
) -> Head:
    """The head in `block`: request line and fields, without the blank line that ends them.

    RFC 9112 section 6.1 leaves two ways with a Content-Length beside Transfer-Encoding: to refuse
    it, or with `length_beside_chunks` to disregard it and to close the connection afterwards.
    Section 3.2 has a request without Host refused; with `host_optional` it is not.
    """
    lines = block.split(b"\r\n")
    request = _REQUEST_LINE.fullmatch(lines[0])
    if request is None:
        raise BadHead(400, stranger(block, _PLAIN) or "malformed request line")
    method, target, major, minor = request.groups()
    if major != b"1":
        text = stranger(block, "HTTP/1.1") or "unsupported HTTP version, expected HTTP/1.1"
        raise BadHead(505, text)
    headers = _fields(lines[1:])
    ambiguous = length_beside_chunks and headers.keys() >= _CODED_AND_MEASURED
    if ambiguous:
        del headers[b"content-length"]
    path, query = _split_target(target)
    old = minor == b"0"
    if not (old or host_optional or b"host" in headers):
        raise BadHead(400, "missing Host header")
    return Head(
        method=method.decode("ascii"),
        target=target,
        path=path,
        query=query,
        headers=headers,
        content_length=_body_length(headers, old),
        keep_alive=_keep_alive(headers, old) and not ambiguous,
        json_length=_json_length(headers),
        expect_continue=_expects_continue(headers, old),
        content_encoding=headers.get(b"content-encoding", b"").lower(),
        coding=choose_coding(headers.get(b"accept-encoding", b"")),
        old=old,
    )


def _fields(lines: list[bytes]) -> dict[bytes, bytes]:
    """Header fields by lower-case name; repeated ones joined by a comma, as RFC 9110 5.3 allows."""
    if len(lines) > _MAX_FIELDS:
        raise BadHead(431, f"more than {_MAX_FIELDS} header fields")
    headers: dict[bytes, bytes] = {}
    for line in lines:
        match = _FIELD_LINE.fullmatch(line)
        if match is None:
            raise BadHead(400, "malformed header field")
        name, value = match[1].lower(), match[2]
        if name in headers:
            if name in _SINGLETONS:
                raise BadHead(400, f"duplicate {name.decode('ascii')} header")
            value = headers[name] + b", " + value
        headers[name] = value
    return headers


def _split_target(target: bytes) -> tuple[tuple[str, ...], bytes]:
    """Decoded path segments and the raw query of a request target."""
    absolute = _ABSOLUTE.match(target)
    if absolute is not None:
        target = target[absolute.end() :] or b"/"
    path, _, query = target.partition(b"?")
    if not path.startswith(b"/"):
        if target == b"*":
            return ("*",), b""
        raise BadHead(400, "malformed request target")
    try:
        # Split first, decode second: an escaped slash belongs to a name, it does not end one.
        return tuple(unquote_to_bytes(part).decode() for part in path[1:].split(b"/")), query
    except UnicodeDecodeError:
        raise BadHead(400, "request target is not UTF-8") from None


def _body_length(headers: dict[bytes, bytes], old: bool) -> int:
    """How the body is framed (RFC 9112 section 6.3)."""
    coding = headers.get(b"transfer-encoding")
    length = headers.get(b"content-length")
    if coding is not None:
        if length is not None:
            raise BadHead(400, "both Transfer-Encoding and Content-Length")
        if old:
            raise BadHead(400, "Transfer-Encoding in an HTTP/1.0 request")
        if coding.lower() != b"chunked":
            raise BadHead(501, "unsupported Transfer-Encoding, expected chunked")
        return CHUNKED
    if length is None:
        return 0
    if _LENGTH.fullmatch(length) is None:
        raise BadHead(400, "malformed Content-Length header")
    return int(length)


def _keep_alive(headers: dict[bytes, bytes], old: bool) -> bool:
    connection = headers.get(b"connection")
    if connection is None:
        return not old
    options = {option.strip() for option in connection.lower().split(b",")}
    return b"keep-alive" in options if old else b"close" not in options


def _json_length(headers: dict[bytes, bytes]) -> int | None:
    """The length of the JSON part, -1 when its field makes no sense, None when there is none."""
    text = headers.get(b"inference-header-content-length")
    if text is None:
        return None
    # What is no length at all is as far out of range as can be; the route refuses it.
    return int(text) if _LENGTH.fullmatch(text) else -1


def _expects_continue(headers: dict[bytes, bytes], old: bool) -> bool:
    expect = headers.get(b"expect")
    if expect is None or old:
        return False
    if expect.lower() != b"100-continue":
        raise BadHead(417, "unknown expectation, expected 100-continue")
    return True
