"""Long JSON is read slice by slice, and means the same as read at once."""

from __future__ import annotations

import asyncio
import gzip
import json
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.server.http.wire import Wire
from tuili.errors import TuiliError
from tuili.server.http import long_json, long_values
from tuili.server.http.codec import plan_request
from tuili.server.http.json_tensors import read_long_data
from tuili.server.http.json_text import parse_json, repeated_keys
from tuili.server.http.limits import HttpLimits
from tuili.server.http.long_json import parse_long
from tuili.server.http.long_values import LongArray
from tuili.server.protocol.datatypes import encode
from tuili.server.slices import Slices

LIMITS = HttpLimits()
START = b'{"id":"%b","inputs":[{"name":"x","datatype":"%b","shape":%b,"data":'
FLAT = b"[1.5,-2e3, 3,4,5.25 ,6,7,8,9,10,11,12,13,14,15,16]"
NESTED = b"[[1,2,3,4],[5,6,7,8] ,[9,10,11,12], [13,14,15,16]]"


def request(
    data: bytes, kind: bytes = b"FP32", shape: bytes = b"[16]", ident: bytes = b""
) -> bytes:
    return START % (ident, kind, shape) + data + b"}]}"


def exhaust(work: Any) -> tuple[Any, int]:
    """What a generator returns, and how often it yields."""
    turns = 0
    while True:
        try:
            next(work)
            turns += 1
        except StopIteration as end:
            return end.value, turns


def outcome(read: Callable[[bytes], Any], text: bytes) -> str:
    try:
        plan = plan_request(read(text))
    except TuiliError as error:
        # Where it is wrong is told in bytes or in lines and columns.
        return "malformed" if "JSON" in str(error) else str(error)
    arrays = [None if each.array is None else each.array.tolist() for each in plan.inputs]
    return str((plan.id, [(each.datatype, each.shape) for each in plan.inputs], arrays))


def by_slices(text: bytes) -> Any:
    document = exhaust(parse_long(text, LIMITS))[0]
    exhaust(read_long_data(document))
    return document


def both(text: bytes) -> tuple[str, str]:
    return outcome(by_slices, text), outcome(lambda given: parse_json(given, LIMITS), text)


@pytest.fixture
def short_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_json, "_SLICE", 12)


@pytest.mark.usefixtures("short_slices")
@pytest.mark.parametrize(
    "data", [FLAT, NESTED, b"[[[1,2],[3,4]],[[5,6],[7,8]],[9,10,11,12,13],[14,15,16]]"]
)
@pytest.mark.parametrize(
    "kind", [b"FP32", b"FP64", b"INT32", b"UINT64", b"BOOL", b"BYTES", b"BF16"]
)
def test_arrays_of_numbers_mean_the_same_as_read_at_once(data: bytes, kind: bytes):
    sliced, at_once = both(request(data, kind))
    assert sliced == at_once


@pytest.mark.usefixtures("short_slices")
@pytest.mark.parametrize("data", [FLAT, NESTED])
def test_no_list_is_made_of_them(monkeypatch: pytest.MonkeyPatch, data: bytes):
    monkeypatch.setattr(long_values, "SHORT", 3)
    document, turns = exhaust(parse_long(request(data), LIMITS))
    assert isinstance(document["inputs"][0]["data"], LongArray)
    assert turns > 4


@pytest.mark.usefixtures("short_slices")
@pytest.mark.parametrize(
    "text",
    [
        request(FLAT, ident=FLAT),
        request(FLAT, ident=rb"\"" + FLAT),
        request(FLAT, ident=b"\\\\" + FLAT),
        request(FLAT, shape=FLAT),
        request(b'["a","bc","d","e,f[","\\"g\\\\",\n"h"]', b"BYTES", b"[6]"),
        request(b'[["a","bc"],["d","e,f[{"],["\\u00e9","\xc3\xa9,"]]', b"BYTES", b"[6]"),
        request(b"[true,false,true,true,false,false]", b"BOOL", b"[6]"),
        request(b"[true,false,true,1,false,false]", b"BOOL", b"[6]"),
        request(b'[1,2,3,4,"5",6,7,8]', b"FP32", b"[8]"),
        request(b"[1,2,3,null,5,6,7,8]", b"FP32", b"[8]"),
        request(b'[1,2,{"a":[3,4,5,6,7,8]},9]', b"FP32", b"[8]"),
        request(b'["a","b","c",1,2,3,4,5]', b"BYTES", b"[8]"),
        request(b"[1,2,3,4,5,6,7]", shape=b"[1,1,1,1,1,1,1,1,7]"),
        request(b"[18446744073709551615,1,2,9223372036854775808]", b"UINT64", b"[4]"),
        request(b"[18446744073709551615,-1,2,9223372036854775808]", b"INT64", b"[4]"),
        request(b"[1e400,1,2,99999999999999999999999999999999999]", b"FP64", b"[4]"),
        request(b"[NaN,1.5,Infinity,4.5,-Infinity,5.5]", b"FP64", b"[6]"),
        request(b"[" * 120 + b"1,2,3,4,5,6,7,8,9" + b"]" * 120, shape=b"[9]"),
        request(b"[" + b" " * 40 + b"]", shape=b"[0]"),
        request(b"[" + b"[]," * 20 + b"[]]", shape=b"[0]"),
        b"\xef\xbb\xbf" + request(FLAT),
        b"[" + FLAT + b"]",
        FLAT,
        b'{"inputs":' + FLAT + b"}",
        b'{"parameters":{"a":' + FLAT + b'},"inputs":[]}',
        b"[" * 100_000,
        b'{"a":"' + b'\\"' * 100,
        b'{"id":"a long id, without end", "inputs":[' + b"a" * 5000,
        FLAT + b"," + FLAT,
        b"[" + FLAT + b"],1",
        request(FLAT) + b"]",
        request(FLAT) + b" \n" * 50,
        request(FLAT) + b"\x0c" * 50,
        request(FLAT)[:-1],
        request(FLAT)[:-2] + b"]}",
        bytes(100),
        b"",
    ],
)
def test_whatever_is_odd_means_what_it_always_did(text: bytes):
    sliced, at_once = both(text)
    assert sliced == at_once


@pytest.mark.usefixtures("short_slices")
@pytest.mark.parametrize("seed", range(20))
def test_damaged_texts_mean_the_same_as_read_at_once(seed: int):
    rng = random.Random(seed)
    for _ in range(300):
        data = rng.choice([FLAT, NESTED, b'["a,b","[c]","\\"d", "e{f"]'])
        kind = b"BYTES" if b'"' in data else b"FP32"
        text = bytearray(request(data, kind, b"[4]" if b'"' in data else b"[16]"))
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(text))
            text[at : at + rng.randint(0, 2)] = bytes(
                rng.choices(b'[],0 1.-e"{}:t\\\\', k=rng.randint(0, 2))
            )
        sliced, at_once = both(bytes(text))
        assert sliced == at_once, bytes(text)


def test_pieces_of_work_have_turns_of_the_loop_and_those_given_up_none():
    async def check() -> None:
        slices, loop, seen = Slices(), asyncio.get_running_loop(), []

        def work(name: str, turns: int) -> Any:
            for _ in range(turns):
                seen.append(name)
                yield
            if name == "c":
                raise ValueError("odd")
            return name

        loops = 0

        def count() -> None:
            nonlocal loops
            loops += 1
            loop.call_soon(count)

        count()
        found = [
            slices.run(work(name, turns), loop) for name, turns in (("a", 3), ("b", 2), ("c", 1))
        ]
        given_up = slices.run(work("d", 9), loop)
        given_up.cancel()
        first, second, third = await asyncio.gather(*found, return_exceptions=True)
        assert (first, second, str(third)) == ("a", "b", "odd")
        assert seen == ["a", "b", "c", "a", "b", "a"]
        assert loops >= len(seen)

    asyncio.run(check())


def post(body: bytes, path: bytes = b"/v2/models/identity/infer") -> bytes:
    head = b"POST %b HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"
    return head % (path, len(body)) + body


def long_wire() -> Wire:
    """A connection on the running loop, to which a long body is fed at once."""
    wire = Wire()
    wire.listener.connections.loop = asyncio.get_running_loop()
    return without_turns(wire)


def without_turns(wire: Wire) -> Wire:
    wire.transport.pause_reading = lambda: None  # type: ignore[method-assign]
    return wire


def test_others_are_answered_while_a_long_text_is_read():
    async def check() -> None:
        wire = long_wire()
        other, gone = Wire(beside=wire), without_turns(Wire(beside=wire))
        numbers = np.random.default_rng(3).standard_normal(100_000)
        long = request(json.dumps(numbers.tolist()).encode(), b"FP64", b"[100000]", b"long")
        wire.feed(post(long) + post(request(FLAT, ident=b"behind")))
        gone.feed(post(long))
        gone.connection.connection_lost(None)
        assert other.answer(post(request(FLAT, ident=b"other"))).json["id"] == "other"
        assert not wire.transport.sent
        async with asyncio.timeout(10):
            while b"behind" not in wire.transport.sent:  # noqa: ASYNC110 - as in `running`
                await asyncio.sleep(0)
        first, second = (answer.json for answer in wire.answers())
        assert (first["id"], second["id"]) == ("long", "behind")
        assert np.array_equal(first["outputs"][0]["data"], numbers)
        assert [each.id for each in wire.dataplane.requests] == ["other", "long", "behind"]

    asyncio.run(check())


def test_a_long_text_that_is_wrong_is_refused():
    async def check() -> None:
        wire = long_wire()
        wire.feed(post(request(b"[" + b"1.5," * 300_000 + b"]")))
        async with asyncio.timeout(10):
            while not wire.transport.sent:  # noqa: ASYNC110 - as in `running`
                await asyncio.sleep(0)
        assert wire.status == 400

    asyncio.run(check())


@pytest.mark.usefixtures("short_slices")
@pytest.mark.parametrize("seed", range(40))
def test_any_document_is_read_as_at_once(seed: int):
    rng = random.Random(seed)

    def value(depth: int) -> Any:
        kind = rng.randrange(9 if depth else 6)
        if kind >= 6:
            members = [value(depth - 1) for _ in range(rng.randrange(6))]
            if kind < 8:
                return members
            return {f"k,{at}]": each for at, each in enumerate(members)}
        return [rng.randrange(-9, 1 << 40), rng.random(), None, rng.random() < 0.5,
                'a"b\\,[', "{}é\n"][kind]  # fmt: skip

    for _ in range(50):
        document = {"a": value(5), "b": [value(4), value(4)]}
        text = json.dumps(document, indent=rng.choice([None, 1])).encode()
        assert as_lists(exhaust(parse_long(text, LIMITS))[0]) == document


def as_lists(value: Any) -> Any:
    if isinstance(value, LongArray):
        parts = [each if isinstance(each, list) else each.tolist() for each in value.parts]
        assert value.size == sum(map(len, parts))
        return [as_lists(item) for part in parts for item in part]
    if isinstance(value, dict):
        return {key: as_lists(item) for key, item in value.items()}
    return [as_lists(item) for item in value] if isinstance(value, list) else value


def test_an_object_of_too_many_members_is_refused():
    text = json.dumps(dict.fromkeys(map(str, range(40_000)), 1)).encode()
    with pytest.raises(TuiliError, match="more than 16384 members"):
        exhaust(parse_long(text, LIMITS))


LONG_TEXT = b'["%b"]' % b'","'.join([b"ab"] * 100_000)
LONG_NUMBERS = b"[%b]" % b",".join([b"1.5"] * 100_000)
LONG_ROWS = b"[%b]" % b",".join([b'{"INPUT0":[1,2],"INPUT1":[3,4]}'] * 10_000)


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v2/models/identity/infer", request(LONG_TEXT, b"BYTES", b"[100000]"), 200),
        ("/v2/models/identity/infer", request(LONG_TEXT, b"INT32", b"[100000]"), 400),
        ("/v2/models/identity/jobs", request(LONG_TEXT, b"BYTES", b"[100000]"), 202),
        ("/v1/models/simple:predict", b'{"instances":%b}' % LONG_ROWS, 200),
        ("/v2/models/repeat/generate", b'{"IN":%b}' % LONG_NUMBERS, 400),
        ("/v2/repository/index", b'{"ready":%b}' % LONG_TEXT, 400),
        ("/v2/repository/index", b'{"ready":%b1%b}' % (b"[" * 250_000, b"]" * 250_000), 400),
        ("/v2/trace/setting", b'{"trace_level":%b}' % LONG_TEXT, 400),
    ],
)
def test_long_json_of_all_routes_is_read_slice_by_slice(path: str, body: bytes, status: int):
    async def check() -> None:
        wire = long_wire()
        other = Wire(beside=wire)
        wire.feed(post(body, path.encode()))
        assert other.answer(b"GET /v2/health/live HTTP/1.1\r\nHost: a\r\n\r\n").status == 200
        assert not wire.transport.sent
        async with asyncio.timeout(10):
            while not wire.transport.sent:  # noqa: ASYNC110 - as in `running`
                await asyncio.sleep(0)
        assert wire.status == status, bytes(wire.transport.sent[:300])

    asyncio.run(check())


TEXTS = np.array([b"%d" % at for at in range(50_000)], object)
HEAD = (
    b'{"inputs":[{"name":"x","datatype":"%b","shape":[%d],"parameters":{"binary_data_size":%d}}]%b}'
)
ALL_BINARY = b',"parameters":{"binary_data_output":true}'


@pytest.mark.parametrize(
    ("kind", "array", "more"),
    [
        (b"BYTES", TEXTS, b""),
        (b"BYTES", TEXTS, ALL_BINARY),
        (b"FP32", np.arange(50_000, dtype=np.float32), b""),
    ],
)
@pytest.mark.parametrize("coding", [b"", b"Accept-Encoding: gzip\r\n"])
def test_many_elements_are_read_and_written_slice_by_slice(
    kind: bytes, array: Any, more: bytes, coding: bytes
):
    raw = bytes(encode(array, kind.decode()))
    text = HEAD % (kind, array.size, len(raw), more)
    size = coding + b"Inference-Header-Content-Length: %d\r\n" % len(text)

    async def check() -> None:
        wire = long_wire()
        other = Wire(beside=wire)
        wire.feed(post(text + raw).replace(b"Content-Length", size + b"Content-Length", 1))
        assert other.answer(b"GET /v2/health/live HTTP/1.1\r\nHost: a\r\n\r\n").status == 200
        assert not wire.transport.sent
        async with asyncio.timeout(10):
            while not wire.transport.sent:  # noqa: ASYNC110 - as in `running`
                await asyncio.sleep(0)
        (answer,) = wire.answers()
        body = gzip.decompress(answer.body) if coding else answer.body
        start = int(answer.headers.get("inference-header-content-length", len(body)))
        (output,) = json.loads(body[:start])["outputs"]
        if more:
            assert body[start:] == raw
        else:
            assert output["data"] == [
                each.decode() if isinstance(each, bytes) else each for each in array.tolist()
            ]

    asyncio.run(check())


def test_an_answer_that_nobody_waits_for_is_not_written_to_its_end():
    async def check() -> None:
        wire = long_wire()
        raw = np.arange(1 << 20, dtype=np.float32).tobytes()
        text = HEAD % (b"FP32", 1 << 20, len(raw), b"")
        size = b"Inference-Header-Content-Length: %d\r\n" % len(text)
        wire.feed(post(text + raw).replace(b"Content-Length", size + b"Content-Length", 1))
        written = wire.connection.work
        wire.connection.connection_lost(None)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert isinstance(written, asyncio.Future)
        assert written.cancelled()
        assert not wire.transport.sent

    asyncio.run(check())


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("/v1/models/identity:predict", b'{"instances":%b}' % LONG_NUMBERS, ["predictions"]),
        ("/v1/models/identity:predict", b'{"inputs":%b}' % LONG_NUMBERS, ["outputs"]),
        ("/v2/models/identity/generate", b'{"INPUT":%b}' % LONG_NUMBERS, ["OUTPUT"]),
        ("/v2/models/identity/generate_stream", b'{"INPUT":%b}' % LONG_NUMBERS, ["OUTPUT"]),
    ],
)
def test_long_answers_of_other_routes_are_written_slice_by_slice(
    path: str, body: bytes, expected: list[str]
):
    async def check() -> None:
        wire = long_wire()
        other = Wire(beside=wire)
        wire.feed(post(body, path.encode()))
        async with asyncio.timeout(10):
            while not wire.dataplane.requests:  # noqa: ASYNC110 - as in `running`
                await asyncio.sleep(0)
            assert other.answer(b"GET /v2/health/live HTTP/1.1\r\nHost: a\r\n\r\n").status == 200
            assert not wire.transport.sent
            while not wire.transport.sent:  # noqa: ASYNC110
                await asyncio.sleep(0)
        (answer,) = wire.answers()
        found = json.loads(answer.body.removeprefix(b"data: "))
        for key in expected:
            found = found[key]
        assert found == [1.5] * 100_000

    asyncio.run(check())


def test_an_event_that_nobody_waits_for_is_not_sent():
    async def check() -> None:
        wire = long_wire()
        wire.feed(post(b'{"INPUT":%b}' % LONG_NUMBERS, b"/v2/models/identity/generate_stream"))
        async with asyncio.timeout(10):
            while not wire.dataplane.requests:  # noqa: ASYNC110 - as in `running`
                await asyncio.sleep(0)
        wire.connection.connection_lost(None)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not wire.transport.sent

    asyncio.run(check())


def test_the_long_answer_of_a_job_is_written_slice_by_slice():
    async def check() -> None:
        wire = long_wire()
        other = Wire(beside=wire)
        wire.feed(post(request(LONG_NUMBERS, b"FP32", b"[100000]"), b"/v2/models/identity/jobs"))
        async with asyncio.timeout(10):
            while not wire.transport.sent:  # noqa: ASYNC110 - as in `running`
                await asyncio.sleep(0)
            (answer,) = wire.answers()
            where = answer.headers["location"].encode()
            ask = b"GET %b/result HTTP/1.1\r\nHost: a\r\n\r\n" % where
            assert (found := other.answer(ask)).status == 202
            while (found := other.answer(ask)).status == 202:  # noqa: ASYNC110
                await asyncio.sleep(0)
        assert found.json["outputs"][0]["data"] == [1.5] * 100_000

    asyncio.run(check())


@pytest.mark.parametrize("more", [b"", b'"OTHER":[1],' * 3, b'"OTHER":"%b",' % (b"a" * 90_000)])
@pytest.mark.parametrize("last", [True, False])
def test_a_key_that_comes_twice_is_told_of_a_long_text_as_of_a_short_one(more: bytes, last: bool):
    short, long = b'"INPUT":[1.5]', b'"INPUT":%b' % LONG_NUMBERS
    pair = (long, short) if last else (short, long)
    for text in (b"{%b,%b%b}" % (pair[0], more.replace(b'"OTHER":[1],' * 3, b""), pair[1]),
                 b'{%b"x":%b,"y":1,"y":2}' % (more, LONG_NUMBERS)):  # fmt: skip
        repeated: list[str] = []
        exhaust(parse_long(text, LIMITS, repeated))
        assert repeated == repeated_keys(text)


def test_a_key_that_comes_twice_is_no_input():
    async def check() -> None:
        wire = long_wire()
        body = b'{"INPUT":%b,"INPUT":[1]}' % LONG_NUMBERS
        wire.feed(post(body, b"/v2/models/identity/generate"))
        async with asyncio.timeout(10):
            while not wire.transport.sent:  # noqa: ASYNC110 - as in `running`
                await asyncio.sleep(0)
        (answer,) = wire.answers()
        assert (answer.status, answer.error) == (400, "input 'INPUT' already exists in request")

    asyncio.run(check())
