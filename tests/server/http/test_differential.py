"""Our head parser against llhttp: where both accept, both must have read the same request.

A difference here is how requests are smuggled past a proxy.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuili.server.http.head import CHUNKED, BadHead, parse_head

httptools = pytest.importorskip("httptools")

NAMES = [
    "Host", "Content-Length", "content-length", "Transfer-Encoding", "Connection", "X", "Expect",
    "Content-Length ", " Content-Length", "Content\tLength", "Inference-Header-Content-Length",
]  # fmt: skip
VALUES = [
    "a", "0", "3", "03", "+3", "3, 3", "3;", "0x3", "-1", "chunked", "Chunked", "gzip, chunked",
    "chunked, identity", "\x0bchunked", "close", "keep-alive", "close, x", "100-continue", "",
    "3\r\n 4", "3\n", "\xff",
]  # fmt: skip
FIELD = st.tuples(
    st.sampled_from(NAMES), st.sampled_from([":", ": ", ":\t", " :", ""]), st.sampled_from(VALUES)
)
LINE = st.sampled_from(
    [
        "GET /v2 HTTP/1.1", "POST /v2/models/m/infer?x=1 HTTP/1.1", "POST /a HTTP/1.0",
        "POST http://a/b HTTP/1.1", "POST /a  HTTP/1.1", "POST /a HTTP/1.1 ", "POST /a\tHTTP/1.1",
        "PO\x00ST /a HTTP/1.1", "POST /a HTTP/1.2", "POST /a",
    ]
)  # fmt: skip


class Callbacks:
    def __init__(self) -> None:
        self.url = b""
        self.headers: dict[bytes, bytes] = {}
        self.body = b""
        self.complete = False

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.lower()] = value

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.complete = True


@settings(max_examples=500)
@given(LINE, st.lists(FIELD, max_size=4), st.sampled_from(["\r\n", "\n", "\r"]))
def test_what_both_accept_both_read_alike(line: str, fields: list[Any], ending: str):
    lines = [line, "Host: a", *("".join(field) for field in fields)]
    block = ending.join(lines).encode("latin-1")
    try:
        head = parse_head(block)
    except BadHead:
        return
    assert ending == "\r\n" or len(lines) == 1
    seen = Callbacks()
    parser = httptools.HttpRequestParser(seen)
    try:
        parser.feed_data(block + b"\r\n\r\n")
        method = parser.get_method()
        if head.content_length > 0:
            assert not seen.complete
            parser.feed_data(b"x" * head.content_length)
        elif head.content_length == CHUNKED:
            assert not seen.complete
            parser.feed_data(b"1\r\nx\r\n0\r\n\r\n")
    except httptools.HttpParserError:
        return
    assert seen.complete
    assert seen.url == head.target
    assert method == head.method.encode()
    assert len(seen.body) == (1 if head.content_length == CHUNKED else head.content_length)
    assert {
        name: value.strip() for name, value in seen.headers.items()
    }.keys() == head.headers.keys()
