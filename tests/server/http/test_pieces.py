"""Long answers are written, coded and sent in pieces, none of which takes long."""

from __future__ import annotations

import json
import zlib
from typing import Any

import numpy as np
import pytest

from tuili.server.http.compression import compress
from tuili.server.http.infer_reply import NONE_BINARY, frame_body, write_body
from tuili.server.http.json_text import dump_json
from tuili.server.http.pieces import PLACE, spliced
from tuili.server.protocol.messages import InferResponse, OutputTensor
from tuili.server.steps import Steps, at_once

LONG = np.arange(300_000, dtype=np.int32).reshape(3, 100, 1000)
WIDE = np.arange(200_000, dtype=np.int32).reshape(2, 100_000)
SHORT = np.arange(3, dtype=np.int32)


def outputs(*arrays: np.ndarray[Any, Any]) -> list[OutputTensor]:
    return [OutputTensor(f"y{n}", "INT32", a.shape, a) for n, a in enumerate(arrays)]


@pytest.mark.parametrize("arrays", [(LONG,), (SHORT, LONG), (LONG, SHORT, WIDE)])
def test_a_long_answer_is_the_same_in_pieces(arrays: tuple[np.ndarray[Any, Any], ...]):
    response = InferResponse("m\0", "1", outputs(*arrays), "id\0")
    parts = frame_body(response, *at_once(write_body(response, NONE_BINARY)))
    assert max(map(len, parts)) < 200_000
    head, _, text = b"".join(parts).partition(b"\r\n\r\n")
    assert f"Content-Length: {len(text)}".encode() in head
    document = json.loads(text)
    assert (document["model_name"], document["id"]) == ("m\0", "id\0")
    for entry, array in zip(document["outputs"], arrays, strict=True):
        np.testing.assert_array_equal(np.array(entry["data"]).reshape(-1), array.reshape(-1))


@pytest.mark.parametrize(("coding", "wbits"), [(b"gzip", 31), (b"deflate", 15)])
def test_a_coding_takes_a_step_for_each_few_bytes(coding: bytes, wbits: int):
    parts = [bytes(200_000), b"a", memoryview(b"b" * 100_000), *[b"c" * 1000] * 100]
    found: list[bytes] = []

    def coded() -> Steps[None]:
        found.extend((yield from compress(coding, parts)))

    steps = sum(1 for _ in coded())
    assert steps >= 400_000 // (64 << 10) - 1
    assert zlib.decompress(b"".join(found), wbits) == b"".join(parts)


def test_places_are_no_text_of_clients():
    text = dump_json({"a\0": PLACE, "b": "\0", "c": PLACE})
    assert json.loads(b"".join(spliced(text, [[b"[1", b"]"], [b"2"]]))) == {
        "a\0": [1], "b": "\0", "c": 2,
    }  # fmt: skip
