from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuili.server.http.chunked import ChunkedBody
from tuili.server.http.head import BadHead


def encode(chunks: list[bytes], ending: bytes = b"0\r\n\r\n") -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + ending


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=8), st.lists(st.integers(0, 500)))
def test_any_split_of_the_bytes_gives_the_same_body(chunks: list[bytes], cuts: list[int]):
    data = encode(chunks, b"0;last=1\r\nTrailer: x\r\n\r\n") + b"NEXT"
    body = ChunkedBody(1 << 20, 100)
    rest = b""
    for piece in split(data, cuts):
        rest += piece[body.feed(piece) :]
    assert body.done
    assert (bytes(body.data), rest) == (b"".join(chunks), b"NEXT")


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"x\r\n", "chunk size"),
        (b"-1\r\n", "chunk size"),
        (b"0x1\r\n", "chunk size"),
        (b" 1\r\n", "chunk size"),
        (b"\r\n", "chunk size"),
        (b"1\n", "bare LF"),
        (b"1\r\nab\r\n", "longer"),
        (b"1\r\na\n", "bare LF"),
        (b"fffffffffffffff\r\n", "exceeds"),
        (b"1111111111111111111\r\n", "chunk size"),
        (b"1" + b";" * 2000, "too long"),
        (b"200\r\n" + b"a" * 512 + b"\r\n200\r\n", "exceeds"),
        (encode([b"a"] * 11), "maximum of 10 non-empty chunks"),
        (b"0\r\n" + (b"a" * 1000 + b"\r\n") * 9, "trailer"),
    ],
)
def test_malformed_and_excessive_bodies_are_refused(data: bytes, text: str):
    with pytest.raises(BadHead, match=text):
        ChunkedBody(1000, 10).feed(data)


@given(st.binary(max_size=200))
def test_no_bytes_crash_the_decoder(data: bytes):
    try:
        used = ChunkedBody(1000, 10).feed(data)
    except BadHead:
        return
    assert used <= len(data)
