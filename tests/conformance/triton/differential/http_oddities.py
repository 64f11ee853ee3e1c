"""JSON that parsers disagree about, shapes beyond all measure, gRPC's own service of health."""

from __future__ import annotations

import json
from typing import Any

import grpc

from tests.conformance.triton.differential.wire import Case, Observed, Peer, http

_PATH = "/v2/models/add_sub/infer"
_NUMBERS = ",".join("0" * 16)


def _infer(
    shape: str = "[1,16]", data: str = f"[{_NUMBERS}]", more: str = "", top: str = ""
) -> str:
    """An infer request to add_sub as text; what is put in may be no JSON at all."""
    first = f'{{"name":"INPUT0","datatype":"INT32","shape":{shape},"data":{data}{more}}}'
    second = f'{{"name":"INPUT1","datatype":"INT32","shape":[1,16],"data":[{_NUMBERS}]}}'
    return f'{{{top}"inputs":[{first},{second}]}}'


def _nested(depth: int) -> str:
    return "[" * depth + _NUMBERS + "]" * depth


_BODIES: dict[str, str | bytes] = {
    "as ever": _infer(),
    "data twice": _infer(more=f',"data":[{_NUMBERS.replace("0", "1")}]'),
    "name twice": _infer(more=',"name":"INPUT9"'),
    "inputs twice": '{"inputs":[],' + _infer()[1:],
    "id twice": _infer(top='"id":"a","id":"b",'),
    "byte order mark": b"\xef\xbb\xbf" + _infer().encode(),
    "in UTF-16": _infer().encode("utf-16"),
    "id with a surrogate": _infer(top=r'"id":"\ud800",'),
    "id with escapes": _infer(top=r'"id":"a\u00e9\n\"\\\/",'),
    "id not UTF-8": _infer(top='"id":"x",').encode().replace(b'"x"', b'"\xff"'),
    "garbage behind": _infer() + "x",
    "blanks behind": _infer() + " \n\t",
    "a second document behind": _infer() + "{}",
    "a comma too many": _infer(data=f"[{_NUMBERS},]"),
    "a comment": "/* a */" + _infer(),
    "one quote": _infer().replace('"', "'"),
    "number with a plus": _infer(data=f"[+1{_NUMBERS[1:]}]"),
    "number with a leading zero": _infer(data=f"[01{_NUMBERS[1:]}]"),
    "number without an end": _infer(data=f"[1.{_NUMBERS[1:]}]"),
    "number beyond f64": _infer(data=f"[1e999{_NUMBERS[1:]}]"),
    "dim beyond int64": _infer(shape="[1,9223372036854775808]"),
    "dim of a thousand digits": _infer(shape=f"[1,{'9' * 1000}]"),
    "empty, beyond all measure": _infer(shape="[0,9223372036854775807,4]", data="[]"),
    "of 33 dims": _infer(shape=json.dumps([1] * 33), data="[0]"),
    "nested 70 deep": _infer(data=_nested(70)),
    "nested 95 deep": _infer(data=_nested(95)),
    "nested in parameters": _infer(top=f'"parameters":{{"a":{_nested(50)}}},'),
    "true": "true",
    "a number": "1",
    "a text": '"inputs"',
    "blanks": "   ",
}


def _health(service: str) -> Case:
    """`grpc.health.v1.Health/Check` of one service, by its bytes: a text in field 1."""

    def check(peer: Peer) -> Observed:
        call: Any = peer.channel.unary_unary("/grpc.health.v1.Health/Check")
        name = service.encode()
        try:
            answer = call(b"\x0a" + bytes((len(name),)) + name if name else b"", timeout=20)
        except grpc.RpcError as error:
            return Observed(str(error.code().name), str(error.details()))
        return Observed("OK", body=answer.hex())

    return Case(f"rpc/Health Check {service or 'of the server'}", check)


def _unknown(path: str) -> Case:
    """A method that is not there."""

    def call(peer: Peer) -> Observed:
        try:
            peer.channel.unary_unary(path)(b"", timeout=20)
        except grpc.RpcError as error:
            return Observed(str(error.code().name), str(error.details()))
        return Observed("OK")

    return Case(f"rpc/unknown {path}", call)


def cases() -> list[Case]:
    """All of them."""
    found = [http(f"odd/{name}", "POST", _PATH, body)
             for name, body in _BODIES.items()]  # fmt: skip
    found.append(http("odd/expected", "POST", _PATH, _infer(), Expect="100-continue"))
    found += [_health(name) for name in ("", "inference.GRPCInferenceService", "nobody")]
    service = "/inference.GRPCInferenceService/"
    return [*found, *map(_unknown, (service + "Nothing", service + "modelInfer", "/a.B/C", "/"))]
