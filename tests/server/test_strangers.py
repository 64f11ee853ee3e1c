"""A client that speaks another protocol hears which, and the log tells the operator once."""

import logging

import pytest

from tests.server.grpc.wire import Raw
from tests.server.http.wire import Wire
from tuili.server.grpc import frames

HELLO = b"GET /v2/health/ready HTTP/1.1\r\nHost: a\r\n\r\n"
PROXY_1 = b"PROXY TCP4 192.0.2.1 192.0.2.2 5 6\r\n"
PROXY_2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\1\2\3\4\1\2\3\4\0\5\0\6"
TLS = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"


@pytest.mark.parametrize(
    ("sent", "status", "text"),
    [
        (TLS, 400, "found TLS, expected HTTP/1.1 in plain text: this port has no TLS"),
        (PROXY_1 + HELLO, 400, "found the PROXY protocol, expected HTTP/1.1"),
        (PROXY_2 + HELLO, 400, "found the PROXY protocol, expected HTTP/1.1"),
        (frames.PREFACE, 505, "found HTTP/2, expected HTTP/1.1: gRPC has a port of its own"),
        (b"\r\n\r\n" + HELLO, 400, "malformed request line"),
    ],
)
def test_http_names_the_other_protocol(sent: bytes, status: int, text: str):
    wire = Wire()
    wire.feed(sent)
    (answer,) = wire.answers()
    assert answer.status == status
    assert text in answer.error


@pytest.mark.parametrize(
    ("sent", "text"),
    [
        (TLS, "found TLS"),
        (PROXY_1 + frames.PREFACE, "found the PROXY protocol"),
        (PROXY_2 + frames.PREFACE, "turn it off in the proxy"),
        (
            HELLO,
            "found HTTP/1, expected HTTP/2 in plain text, for gRPC: HTTP has a port",
        ),
        (b"hello", "no HTTP/2 preface"),
    ],
)
def test_grpc_names_the_other_protocol(sent: bytes, text: str):
    raw = Raw()
    raw.feed(sent)
    assert text.encode() in raw.transport.sent


def test_the_log_tells_of_each_kind_of_stranger_once(caplog: pytest.LogCaptureFixture):
    first = Raw()
    with caplog.at_level(logging.WARNING, "tuili.server"):
        for sent in (HELLO, HELLO, TLS, b"hello"):
            Raw(beside=first).feed(sent)
    found = [record.getMessage() for record in caplog.records]
    assert [text.split(", ")[0] for text in found] == [
        "a client at ? was refused: found HTTP/1",
        "a client at ? was refused: found TLS",
    ]
