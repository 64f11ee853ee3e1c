"""Inference over HTTP: JSON and binary, right and wrong."""

# ruff: noqa: E501 - one case, one line

from __future__ import annotations

import gzip
import json
import struct
import zlib
from typing import Any

import numpy as np

from tests.conformance.triton.differential.models import DATATYPES
from tests.conformance.triton.differential.wire import Case, Peer, http

Json = dict[str, Any]

_DATA = list(range(16))
_ADD = "/v2/models/add_sub/infer"


def _input(name: str = "INPUT0", **changes: Any) -> Json:
    """An input of `add_sub`; None as a change takes the field away."""
    entry = {"name": name, "shape": [1, 16], "datatype": "INT32", "data": _DATA} | changes
    return {key: value for key, value in entry.items() if value is not None}


def _add(first: Any = None, **more: Any) -> Json:
    return {"inputs": [_input() if first is None else first, _input("INPUT1")], **more}


def _cases_of_documents() -> list[Case]:
    """Whole documents that are wrong in one thing each."""
    bodies: dict[str, Any] = {
        "plain": _add(),
        "empty body": b"",
        "no object": b"[]",
        "a number": b"7",
        "null": b"null",
        "cut": b'{"inputs": [',
        "no json": b"hello",
        "trailing text": json.dumps(_add()) + " x",
        "byte order mark": b"\xef\xbb\xbf" + json.dumps(_add()).encode(),
        "bad utf8": b'{"id": "\xff", "inputs": []}',
        "no inputs": {},
        "inputs null": {"inputs": None},
        "inputs object": {"inputs": {}},
        "inputs empty": {"inputs": []},
        "inputs of numbers": {"inputs": [1, 2]},
        "one input": {"inputs": [_input()]},
        "three inputs": {"inputs": [_input(), _input("INPUT1"), _input("INPUT2")]},
        "unknown input": {"inputs": [_input("X"), _input("INPUT1")]},
        "input twice": {"inputs": [_input(), _input()]},
        "inputs swapped": {"inputs": [_input("INPUT1"), _input()]},
        "id text": _add(id="seven"),
        "id empty": _add(id=""),
        "id number": _add(id=7),
        "id null": _add(id=None),
        "unknown key": _add(extra=1),
        "deep": b'{"inputs":' + b"[" * 200 + b"]" * 200 + b"}",
        "outputs null": _add(outputs=None),
        "outputs empty": _add(outputs=[]),
        "outputs object": _add(outputs={}),
        "outputs numbers": _add(outputs=[1]),
        "one output": _add(outputs=[{"name": "OUTPUT1"}]),
        "outputs swapped": _add(outputs=[{"name": "OUTPUT1"}, {"name": "OUTPUT0"}]),
        "output unknown": _add(outputs=[{"name": "NONE"}]),
        "output no name": _add(outputs=[{}]),
        "output name number": _add(outputs=[{"name": 3}]),
        "output parameters list": _add(outputs=[{"name": "OUTPUT0", "parameters": []}]),
        "parameters list": _add(parameters=[]),
        "parameters null": _add(parameters=None),
        "parameters text": _add(parameters="x"),
        "parameters empty": _add(parameters={}),
        "bad model name in body": _add(model_name="other"),
    }
    return [http(f"document/{name}", "POST", _ADD, body) for name, body in bodies.items()]


def _cases_of_inputs() -> list[Case]:
    """One input that is wrong in one thing."""
    entries: dict[str, Json] = {
        "no name": _input(name=None),
        "name number": _input(name=5),
        "no shape": _input(shape=None),
        "shape text": _input(shape="1,16"),
        "shape of text": _input(shape=["1", "16"]),
        "shape of floats": _input(shape=[1.0, 16.0]),
        "shape negative": _input(shape=[-1, 16]),
        "shape empty": _input(shape=[]),
        "shape rank 1": _input(shape=[16]),
        "shape rank 3": _input(shape=[1, 4, 4]),
        "shape too wide": _input(shape=[1, 17], data=list(range(17))),
        "shape too small": _input(shape=[1, 15], data=list(range(15))),
        "batch 0": _input(shape=[0, 16], data=[]),
        "batch 9": _input(shape=[9, 16], data=_DATA * 9),
        "batch differs": _input(shape=[2, 16], data=_DATA * 2),
        "shape huge": _input(shape=[1, 1 << 62]),
        "shape overflow": _input(shape=[1 << 40, 1 << 40]),
        "shape beyond int64": _input(shape=[1, 1 << 63]),
        "shape beyond uint64": _input(shape=[1, 1 << 64]),
        "no datatype": _input(datatype=None),
        "datatype number": _input(datatype=1),
        "datatype unknown": _input(datatype="INT33"),
        "datatype lower case": _input(datatype="int32"),
        "datatype other": _input(datatype="INT64"),
        "datatype float": _input(datatype="FP32"),
        "no data": _input(data=None),
        "data null": {**_input(), "data": None},
        "data object": _input(data={}),
        "data number": _input(data=3),
        "data short": _input(data=_DATA[:15]),
        "data long": _input(data=[*_DATA, 1]),
        "data empty": _input(data=[]),
        "data nested": _input(data=[_DATA]),
        "data ragged": _input(data=[_DATA[:3], _DATA[3:]]),
        "data deeper": _input(data=[[[value] for value in _DATA]]),
        "data text": _input(data=["1"] * 16),
        "data float": _input(data=[1.5] * 16),
        "data whole float": _input(data=[1.0] * 16),
        "data bool": _input(data=[True] * 16),
        "data with null": _input(data=[None, *_DATA[1:]]),
        "data too large": _input(data=[1 << 31] * 16),
        "data most": _input(data=[(1 << 31) - 1] * 16),
        "data least": _input(data=[-(1 << 31)] * 16),
        "parameters list": _input(parameters=[]),
        "parameters unknown": _input(parameters={"what": 1}),
        "parameters empty": _input(parameters={}),
        "binary size and data": _input(parameters={"binary_data_size": 64}),
        "binary size alone": _input(data=None, parameters={"binary_data_size": 64}),
        "binary size text": _input(data=None, parameters={"binary_data_size": "64"}),
        "binary size negative": _input(data=None, parameters={"binary_data_size": -1}),
        "region unknown": _input(
            data=None,
            parameters={"shared_memory_region": "none", "shared_memory_byte_size": 64},
        ),
        "region and data": _input(
            parameters={"shared_memory_region": "none", "shared_memory_byte_size": 64}
        ),
        "region without size": _input(data=None, parameters={"shared_memory_region": "none"}),
        "region a number": _input(
            data=None, parameters={"shared_memory_region": 1, "shared_memory_byte_size": 64}
        ),
    }
    return [http(f"input/{name}", "POST", _ADD, _add(entry)) for name, entry in entries.items()]


_VALUES: dict[str, list[Any]] = {
    "BOOL": [True, False, True],
    "FP16": [0.5, 1.5, -2.0],
    "FP32": [0.1, 1e30, -2.5],
    "FP64": [0.1, 1e300, -2.5],
    "BYTES": ["a", "", "日本"],
}
_PACKED = {"BOOL": "?", "UINT8": "B", "UINT16": "H", "UINT32": "I", "UINT64": "Q", "INT8": "b",
           "INT16": "h", "INT32": "i", "INT64": "q", "FP16": "e", "FP32": "f", "FP64": "d"}  # fmt: skip
_WRONG: dict[str, Any] = {
    "bool": True, "text": "x", "number": 1, "float": 1.5, "minus": -1, "huge": 1 << 70, "null": None,
}  # fmt: skip


def pack(datatype: str, values: list[Any]) -> bytes:
    """The raw bytes of a tensor."""
    if datatype == "BYTES":
        texts = [value.encode() if isinstance(value, str) else value for value in values]
        return b"".join(struct.pack("<I", len(text)) + text for text in texts)
    return struct.pack(f"<{len(values)}{_PACKED[datatype]}", *values)


def binary(
    document: Json, tail: bytes, model: str = "everything", **headers: str
) -> tuple[Any, ...]:
    """Verb, path, body and headers of a binary request."""
    text = json.dumps(document).encode()
    named = {"Inference-Header-Content-Length": str(len(text)), **headers}
    return "POST", f"/v2/models/{model}/infer", text + tail, named


def _binary_case(
    name: str, document: Json, tail: bytes, model: str = "everything", **h: str
) -> Case:
    sent = binary(document, tail, model, **h)
    return Case(name, lambda peer: peer.http(*sent))


def _typed(datatype: str, **changes: Any) -> Json:
    values = _VALUES.get(datatype, [1, 2, 3])
    entry = {"name": f"IN_{datatype}", "datatype": datatype, "shape": [3], "data": values}
    return {key: value for key, value in (entry | changes).items() if value is not None}


def _cases_of_types() -> list[Case]:
    found: list[Case] = []
    path = "/v2/models/everything/infer"
    for datatype in DATATYPES:
        values = _VALUES.get(datatype, [1, 2, 3])
        tail = pack(datatype, values)
        wanted = [{"name": f"OUT_{datatype}"}]
        as_json = {"inputs": [_typed(datatype)], "outputs": wanted}
        found.append(http(f"type/{datatype}/json", "POST", path, as_json))
        empty = {"inputs": [_typed(datatype, shape=[0], data=[])], "outputs": wanted}
        found.append(http(f"type/{datatype}/empty", "POST", path, empty))
        for kind, value in _WRONG.items():
            wrong = {"inputs": [_typed(datatype, shape=[1], data=[value])], "outputs": wanted}
            found.append(http(f"type/{datatype}/of {kind}", "POST", path, wrong))
        sized = _typed(datatype, data=None, parameters={"binary_data_size": len(tail)})
        document = {
            "inputs": [sized],
            "outputs": [{**wanted[0], "parameters": {"binary_data": True}}],
        }
        found.append(_binary_case(f"type/{datatype}/binary", document, tail))
        found.append(
            _binary_case(
                f"type/{datatype}/binary to json", {"inputs": [sized], "outputs": wanted}, tail
            )
        )
        found.append(_binary_case(f"type/{datatype}/binary short", document, tail[:-1]))
        found.append(_binary_case(f"type/{datatype}/binary long", document, tail + b"x"))
    found.append(http("type/BF16/json", "POST", path, {"inputs": [_typed("BF16", name="IN_FP16")]}))
    for text in ("NaN", "Infinity", "-Infinity"):
        raw = '{"inputs":[{"name":"IN_FP32","datatype":"FP32","shape":[1],"data":[%s]}],"outputs":[{"name":"OUT_FP32"}]}'
        found.append(http(f"type/FP32/{text}", "POST", path, raw % text))
    return found


def _cases_of_binary() -> list[Case]:
    tail = pack("INT32", _DATA)
    one = _input(data=None, parameters={"binary_data_size": 64})
    two = _input("INPUT1", data=None, parameters={"binary_data_size": 64})
    both = {"inputs": [one, two]}
    sized = {**both, "parameters": {"binary_data_output": True}}
    mixed = {"inputs": [one, _input("INPUT1")]}

    def length(value: str) -> Case:
        text = json.dumps(both).encode()
        headers = {"Inference-Header-Content-Length": value}
        return Case(
            f"binary/header length {value!r}",
            lambda peer: peer.http("POST", _ADD, text + tail * 2, headers),
        )

    odd = {"inputs": [{**one, "parameters": {"binary_data_size": 63}}, two]}
    text_in = {"name": "IN", "datatype": "BYTES", "shape": [1, 1]}
    packed = pack("BYTES", ["abc"])

    def text(size: int) -> Json:
        return {"inputs": [{**text_in, "parameters": {"binary_data_size": size}}]}

    found = [
        _binary_case("binary/both", both, tail * 2, "add_sub"),
        _binary_case("binary/both, all out", sized, tail * 2, "add_sub"),
        _binary_case("binary/mixed", mixed, tail, "add_sub"),
        _binary_case("binary/none left", both, b"", "add_sub"),
        _binary_case("binary/one left", both, tail, "add_sub"),
        _binary_case("binary/extra", both, tail * 2 + b"!", "add_sub"),
        _binary_case("binary/size 63", odd, tail * 2, "add_sub"),
        _binary_case("binary/size 63, tail 127", odd, (tail * 2)[:127], "add_sub"),
        _binary_case("binary/unknown model", both, tail * 2, "nobody"),
        _binary_case("binary/text", text(7), packed, "text"),
        _binary_case("binary/text length beyond", text(7), b"\x09" + packed[1:], "text"),
        _binary_case("binary/text two for one", text(14), packed * 2, "text"),
        _binary_case("binary/text cut length", text(3), packed[:3], "text"),
        _binary_case("binary/text none", text(0), b"", "text"),
        *map(length, ("", "abc", "-1", "0", "999999", "99999999999999999999", "1.5", " 12")),
    ]
    outputs = {
        "one binary": [
            {"name": "OUTPUT0", "parameters": {"binary_data": True}},
            {"name": "OUTPUT1"},
        ],
        "one json": [
            {"name": "OUTPUT0", "parameters": {"binary_data": False}},
            {"name": "OUTPUT1"},
        ],
        "flag text": [{"name": "OUTPUT0", "parameters": {"binary_data": "yes"}}],
        "flag number": [{"name": "OUTPUT0", "parameters": {"binary_data": 1}}],
    }
    for name, entries in outputs.items():
        found.append(http(f"binary/output {name}", "POST", _ADD, _add(outputs=entries)))
        everything = _add(outputs=entries, parameters={"binary_data_output": True})
        found.append(http(f"binary/default and {name}", "POST", _ADD, everything))
    for value in (True, False, "x", 1):
        body = _add(parameters={"binary_data_output": value})
        found.append(http(f"binary/default {value!r}", "POST", _ADD, body))
    raw = {"Inference-Header-Content-Length": "0"}
    for model, data in (("text", b"hello"), ("text", b""), ("matrix", bytes(24)), ("rows", bytes(24)),
                        ("rows", bytes(23)), ("add_sub", bytes(64)), ("everything", bytes(4)),
                        ("scores", bytes(16)), ("scores", bytes(15)), ("nobody", b"x")):  # fmt: skip
        path = f"/v2/models/{model}/infer"
        found.append(
            Case(
                f"raw/{model} {len(data)}",
                lambda peer, path=path, data=data: peer.http("POST", path, data, raw),
            )
        )
    return found


def _cases_of_classes() -> list[Case]:
    scores = {
        "name": "IN",
        "datatype": "FP32",
        "shape": [2, 4],
        "data": [0.1, 0.7, 0.2, 0.3, 5, 4, 5, 1],
    }

    def ask(value: Any, **more: Any) -> Json:
        wanted = {"name": "OUT", "parameters": {"classification": value, **more}}
        return {"inputs": [scores], "outputs": [wanted]}

    found = [
        http(f"classes/{value!r}", "POST", "/v2/models/scores/infer", ask(value))
        for value in (0, 1, 2, 4, 5, 1000, -1, "2", 1.5, True)
    ]
    found.append(
        http("classes/binary", "POST", "/v2/models/scores/infer", ask(2, binary_data=True))
    )
    found.append(
        http(
            "classes/region",
            "POST",
            "/v2/models/scores/infer",
            ask(2, shared_memory_region="r", shared_memory_byte_size=8),
        )
    )
    wanted = [{"name": "OUTPUT0", "parameters": {"classification": 3}}, {"name": "OUTPUT1"}]
    found.append(http("classes/int32 labels", "POST", _ADD, _add(outputs=wanted)))
    wanted = [{"name": "OUTPUT1", "parameters": {"classification": 3}}]
    found.append(http("classes/int32 without labels", "POST", _ADD, _add(outputs=wanted)))
    matrix = {"inputs": [{"name": "IN", "datatype": "FP32", "shape": [2, 3], "data": [1, 2, 3, 4, 5, 6]}],
              "outputs": [{"name": "OUT", "parameters": {"classification": 2}}]}  # fmt: skip
    found.append(http("classes/matrix", "POST", "/v2/models/matrix/infer", matrix))
    text = {"inputs": [{"name": "IN", "datatype": "BYTES", "shape": [1, 1], "data": ["x"]}],
            "outputs": [{"name": "OUT", "parameters": {"classification": 1}}]}  # fmt: skip
    found.append(http("classes/text", "POST", "/v2/models/text/infer", text))
    return found


def _cases_of_parameters() -> list[Case]:
    tells = {"name": "IN", "datatype": "INT32", "shape": [1, 1], "data": [1]}
    values: dict[str, Any] = {
        "priority 1": {"priority": 1},
        "priority 0": {"priority": 0},
        "priority text": {"priority": "1"},
        "priority negative": {"priority": -1},
        "priority huge": {"priority": 1 << 63},
        "timeout 0": {"timeout": 0},
        "timeout text": {"timeout": "1"},
        "timeout negative": {"timeout": -1},
        "sequence id": {"sequence_id": 3},
        "sequence id text": {"sequence_id": "three"},
        "sequence id float": {"sequence_id": 1.5},
        "sequence id bool": {"sequence_id": True},
        "sequence id negative": {"sequence_id": -3},
        "start text": {"sequence_start": "yes"},
        "start number": {"sequence_start": 1},
        "end": {"sequence_end": True},
        "end null": {"sequence_end": None},
        "own text": {"mine": "a"},
        "own number": {"mine": 7},
        "own big number": {"mine": 1 << 63},
        "own float": {"mine": 1.5},
        "own bool": {"mine": True},
        "own null": {"mine": None},
        "own list": {"mine": [1]},
        "own object": {"mine": {}},
        "empty key": {"": 1},
        "reserved": {"triton_x": 1},
        "reserved final": {"triton_enable_empty_final_response": True},
        "headers": {"headers": "x"},
        "two": {"a": 1, "b": "x"},
    }
    found = [
        http(
            f"parameter/{name}",
            "POST",
            "/v2/models/tells/infer",
            {"inputs": [tells], "parameters": given},
        )
        for name, given in values.items()
    ]
    found.append(
        http("parameter/id", "POST", "/v2/models/tells/infer", {"inputs": [tells], "id": "i1"})
    )
    two = {"inputs": [{**tells, "shape": [2, 1], "data": [1, 2]}]}
    found.append(http("parameter/rows differ from answer", "POST", "/v2/models/tells/infer", two))
    return found


def _cases_of_models() -> list[Case]:
    """Other models, and the errors that models make."""

    def of(model: str, *inputs: Json, **more: Any) -> tuple[str, str, Json]:
        return "POST", f"/v2/models/{model}/infer", {"inputs": list(inputs), **more}

    def one(value: int, shape: tuple[int, ...] = (1, 1)) -> Json:
        return {"name": "IN", "datatype": "INT32", "shape": list(shape), "data": [value]}

    matrix = {"name": "IN", "datatype": "FP32", "shape": [2, 3], "data": [1, 2, 3, 4, 5, 6]}
    rows = {"name": "IN", "datatype": "FP32", "shape": [1, 3, 2], "data": [1, 2, 3, 4, 5, 6]}
    found = [http(f"fails/{how}", *of("fails", one(how))) for how in range(9)]
    found += [
        http("matrix/right", *of("matrix", matrix)),
        http("matrix/wrong", *of("matrix", {**matrix, "shape": [3, 2]})),
        http("matrix/flat", *of("matrix", {**matrix, "shape": [6]})),
        http("rows/right", *of("rows", rows)),
        http("rows/wrong", *of("rows", {**rows, "shape": [1, 2, 3]})),
        http("rows/none", *of("rows", {**rows, "shape": [1, 0, 2], "data": []})),
        http("rows/batch 5", *of("rows", {**rows, "shape": [5, 1, 2], "data": list(range(10))})),
        http("reshaped/right", *of("reshaped", one(5))),
        http("reshaped/wrong", *of("reshaped", one(5, (1,)))),
        http("everything/nothing", *of("everything")),
        http(
            "everything/not made", *of("everything", _typed("INT8"), outputs=[{"name": "OUT_FP32"}])
        ),
        http(
            "everything/two",
            *of(
                "everything",
                _typed("INT8"),
                _typed("BYTES"),
                outputs=[{"name": "OUT_INT8"}, {"name": "OUT_BYTES"}],
            ),
        ),
        http("everything/all outputs", *of("everything", _typed("INT8"))),
        http("unary/decoupled", *of("repeat", one(2, (1,)))),
        http("unary/spare", *of("spare", _input(), _input("INPUT1"))),
        http("unary/broken", *of("broken", _input(), _input("INPUT1"))),
        http("unary/nobody", *of("nobody", _input())),
        http("ensemble/right", *of("ensemble", _input(), _input("INPUT1"))),
        http(
            "ensemble/one output",
            *of("ensemble", _input(), _input("INPUT1"), outputs=[{"name": "OUTPUT1"}]),
        ),
        http("ensemble/inner output", *of("ensemble", _input(), outputs=[{"name": "sum"}])),
        http("ensemble/one input", *of("ensemble", _input())),
        http(
            "ensemble/wrong shape",
            *of("ensemble", _input(shape=[1, 15], data=_DATA[:15]), _input("INPUT1")),
        ),
        http("ensemble/wrong type", *of("ensemble", _input(datatype="INT64"), _input("INPUT1"))),
        http(
            "ensemble/classes",
            *of(
                "ensemble",
                _input(),
                _input("INPUT1"),
                outputs=[{"name": "OUTPUT0", "parameters": {"classification": 2}}],
            ),
        ),
    ]
    for version in ("1", "2", "3", "9", "0", "abc"):
        body = _add()
        found.append(
            http(
                f"version/{version}", "POST", f"/v2/models/versions/versions/{version}/infer", body
            )
        )
    return found


def _sequence(ident: Any, value: int, start: bool = False, end: bool = False, **more: Any) -> Json:
    entry = {"name": "INPUT", "datatype": "INT32", "shape": [1, 1], "data": [value]}
    given = {"sequence_id": ident, "sequence_start": start, "sequence_end": end}
    return {"inputs": [entry | more], "parameters": given}


def _cases_of_sequences() -> list[Case]:
    path = "/v2/models/accumulate/infer"

    def steps(*bodies: Json) -> Any:
        return lambda peer: [peer.http("POST", path, body) for body in bodies]

    plain = {"inputs": _sequence(1, 1)["inputs"]}
    return [
        Case("sequence/three", steps(_sequence(11, 1, start=True), _sequence(11, 2), _sequence(11, 3, end=True))),
        Case("sequence/alone", steps(_sequence(12, 4, start=True, end=True))),
        Case("sequence/no start", steps(_sequence(13, 4))),
        Case("sequence/after end", steps(_sequence(14, 4, start=True, end=True), _sequence(14, 4))),
        Case("sequence/restart", steps(_sequence(15, 4, start=True), _sequence(15, 5, start=True), _sequence(15, 1, end=True))),
        Case("sequence/no id", steps(plain)),
        Case("sequence/id 0", steps(_sequence(0, 1, start=True, end=True))),
        Case("sequence/id empty", steps(_sequence("", 1, start=True, end=True))),
        Case("sequence/id text", steps(_sequence("abc", 1, start=True, end=True))),
        Case("sequence/batch 2", steps(_sequence(16, 1, start=True, end=True, shape=[2, 1], data=[1, 2]))),
        Case("sequence/wrong shape", steps(_sequence(17, 1, start=True, shape=[1, 2], data=[1, 2]), _sequence(17, 1, start=True, end=True))),
        Case("sequence/control given", steps({**_sequence(18, 1, start=True, end=True), "inputs": [
            {"name": "INPUT", "datatype": "INT32", "shape": [1, 1], "data": [1]},
            {"name": "START", "datatype": "INT32", "shape": [1, 1], "data": [1]}]})),
    ]  # fmt: skip


def _cases_of_encodings() -> list[Case]:
    text = json.dumps(_add()).encode()
    packed = {"gzip": gzip.compress(text), "deflate": zlib.compress(text), "identity": text}

    def send(name: str, body: bytes, **headers: str) -> Case:
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        return Case(f"encoding/{name}", lambda peer: peer.http("POST", _ADD, body, named))

    found = [send(f"in {name}", body, Content_Encoding=name) for name, body in packed.items()]
    found += [
        send("in br", text, Content_Encoding="br"),
        send("in gzip, gzip", gzip.compress(packed["gzip"]), Content_Encoding="gzip, gzip"),
        send("in GZIP", packed["gzip"], Content_Encoding="GZIP"),
        send("in gzip, plain body", text, Content_Encoding="gzip"),
        send("in gzip, cut", packed["gzip"][:-9], Content_Encoding="gzip"),
        send("in deflate, plain body", text, Content_Encoding="deflate"),
    ]
    for wanted in (
        "gzip",
        "deflate",
        "identity",
        "br",
        "*",
        "gzip;q=0",
        "br, gzip;q=0.5",
        "gzip, deflate",
        "",
    ):
        found.append(send(f"out {wanted!r}", text, Accept_Encoding=wanted))
    for kind in ("application/json", "text/plain", "application/octet-stream", ""):
        found.append(send(f"content type {kind!r}", text, Content_Type=kind))
    return found


def _cases_of_queues() -> list[Case]:
    def slow(milliseconds: int, **parameters: Any) -> Json:
        entry = {"name": "IN", "datatype": "INT32", "shape": [1, 1], "data": [milliseconds]}
        return {"inputs": [entry], "parameters": parameters}

    def behind(peer: Peer, **parameters: Any) -> Any:
        """Ask while another request keeps the model busy."""
        from concurrent.futures import ThreadPoolExecutor
        from time import sleep

        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(peer.http, "POST", "/v2/models/slow/infer", slow(700))
            sleep(0.25)
            second = peer.http("POST", "/v2/models/slow/infer", slow(0, **parameters))
            return [first.result(), second]

    return [
        http("queue/alone", "POST", "/v2/models/slow/infer", slow(1)),
        Case("queue/waits", behind),
        Case("queue/times out", lambda peer: behind(peer, timeout=100_000)),
    ]


def cases() -> list[Case]:
    """All of them."""
    assert np.little_endian
    return [
        *_cases_of_documents(),
        *_cases_of_inputs(),
        *_cases_of_types(),
        *_cases_of_binary(),
        *_cases_of_classes(),
        *_cases_of_parameters(),
        *_cases_of_models(),
        *_cases_of_sequences(),
        *_cases_of_encodings(),
        *_cases_of_queues(),
    ]
