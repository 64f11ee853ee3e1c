from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuili.server.http.head import CHUNKED, BadHead, parse_head

GET = b"GET /v2 HTTP/1.1\r\nHost: a"


def test_a_plain_request_is_understood():
    head = parse_head(
        b"POST /v2/models/m%2Fx/infer?a=1 HTTP/1.1\r\nHost: a:80\r\ncontent-length: 12\r\n"
        b"Inference-Header-Content-Length:7 \r\nAccept-Encoding: gzip;q=0.5, identity;q=0.1\r\n"
        b"X-A: 1\r\nx-a:\t2\t\r\nContent-Encoding: GZIP"
    )
    assert (head.method, head.path) == ("POST", ("v2", "models", "m/x", "infer"))
    assert (head.query, head.content_length, head.json_length) == (b"a=1", 12, 7)
    assert head.headers[b"x-a"] == b"1, 2"
    assert head.content_encoding == b"gzip"
    assert head.keep_alive
    assert head.coding == b"gzip"


@pytest.mark.parametrize(
    ("block", "keep_alive"),
    [
        (GET, True),
        (GET + b"\r\nConnection: close", False),
        (GET + b"\r\nConnection: Upgrade, CLOSE", False),
        (b"GET / HTTP/1.0", False),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive", True),
    ],
)
def test_keep_alive_follows_version_and_connection(block: bytes, keep_alive: bool):
    assert parse_head(block).keep_alive is keep_alive


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (b"/", ("",)),
        (b"/v2/", ("v2", "")),
        (b"http://host:1/v2", ("v2",)),
        (b"http://host", ("",)),
        (b"*", ("*",)),
        (b"/a%20b?x", ("a b",)),
    ],
)
def test_targets_have_several_forms(target: bytes, path: tuple[str, ...]):
    assert parse_head(b"OPTIONS " + target + b" HTTP/1.1\r\nHost: a").path == path


@pytest.mark.parametrize(
    ("block", "status", "text"),
    [
        (b"", 400, "request line"),
        (b"GET /v2", 400, "request line"),
        (b"GET  /v2 HTTP/1.1\r\nHost: a", 400, "request line"),
        (b"GET /v2 HTTP/1.1 \r\nHost: a", 400, "request line"),
        (b" GET /v2 HTTP/1.1\r\nHost: a", 400, "request line"),
        (b"G(T /v2 HTTP/1.1\r\nHost: a", 400, "request line"),
        (b"GET /\x00 HTTP/1.1\r\nHost: a", 400, "request line"),
        (b"GET /v2 http/1.1\r\nHost: a", 400, "request line"),
        (b"GET /v2 HTTP/2.0\r\nHost: a", 505, "version"),
        (b"GET v2 HTTP/1.1\r\nHost: a", 400, "target"),
        (b"GET /%ff HTTP/1.1\r\nHost: a", 400, "UTF-8"),
        (b"GET /v2 HTTP/1.1", 400, "Host"),
        (GET + b"\r\nHost: b", 400, "duplicate host"),
        (GET + b"\r\nX : 1", 400, "header field"),
        (GET + b"\r\n folded", 400, "header field"),
        (GET + b"\r\nX: a\nY: b", 400, "header field"),
        (GET + b"\r\nX: a\rb", 400, "header field"),
        (GET + b"\r\nX: a\x00b", 400, "header field"),
        (GET + b"\r\n: b", 400, "header field"),
        (GET + b"\r\nX: 1" * 200, 431, "header fields"),
        (GET + b"\r\nContent-Length: 1\r\nContent-Length: 1", 400, "duplicate content-length"),
        (GET + b"\r\nContent-Length: 1, 1", 400, "Content-Length"),
        (GET + b"\r\nContent-Length: +1", 400, "Content-Length"),
        (GET + b"\r\nContent-Length: -1", 400, "Content-Length"),
        (GET + b"\r\nContent-Length: 0x1", 400, "Content-Length"),
        (GET + b"\r\nContent-Length: 1_0", 400, "Content-Length"),
        (GET + b"\r\nContent-Length: \xb2", 400, "Content-Length"),
        (GET + b"\r\nContent-Length:", 400, "Content-Length"),
        (GET + b"\r\nContent-Length: 1\r\nTransfer-Encoding: chunked", 400, "both"),
        (GET + b"\r\nTransfer-Encoding: chunked\r\ntransfer-encoding: chunked", 400, "duplicate"),
        (GET + b"\r\nTransfer-Encoding: gzip, chunked", 501, "Transfer-Encoding"),
        (GET + b"\r\nTransfer-Encoding: identity", 501, "Transfer-Encoding"),
        (b"GET / HTTP/1.0\r\nTransfer-Encoding: chunked", 400, "1.0"),
        (GET + b"\r\nExpect: magic", 417, "expectation"),
    ],
)
def test_what_can_be_read_in_two_ways_is_refused(block: bytes, status: int, text: str):
    with pytest.raises(BadHead, match=text) as caught:
        parse_head(block)
    assert caught.value.status == status


def test_a_chunked_body_has_no_length():
    assert parse_head(GET + b"\r\nTransfer-Encoding: Chunked").content_length == CHUNKED


@given(st.binary(max_size=300))
def test_no_bytes_crash_the_parser(block: bytes):
    with suppress(BadHead):
        parse_head(block)


@given(
    st.binary(max_size=60), st.sampled_from([b"GET ", b"GET / HTTP/1.1\r\n", GET, GET + b"\r\nX"])
)
def test_no_end_of_a_good_head_crashes_the_parser(block: bytes, start: bytes):
    with suppress(BadHead):
        parse_head(start + block)
