"""One request to one server, and what came back in a form that can be compared."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from http.client import HTTPConnection, HTTPException
from typing import Any

import grpc
from google.protobuf.json_format import MessageToDict
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tests.conformance.triton.servers import Server

_TIMEOUT_S = 20
_RPC_OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


@dataclass(frozen=True, slots=True)
class Observed:
    """The answer to one step: a status, the error text, the body's content and its type."""

    status: str
    text: str = ""
    body: Any = None
    kind: str = ""


class Peer:
    """A server as the cases see it."""

    def __init__(self, server: Server) -> None:
        self.server = server

    @cached_property
    def rpc(self) -> service_pb2_grpc.GRPCInferenceServiceStub:
        """The gRPC stub, one channel for all cases."""
        return service_pb2_grpc.GRPCInferenceServiceStub(self.channel)

    @cached_property
    def channel(self) -> grpc.Channel:
        """The channel below the stub."""
        return grpc.insecure_channel(f"127.0.0.1:{self.server.ports['grpc']}", _RPC_OPTIONS)

    def http(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> Observed:
        """Send one HTTP request; `body` may be bytes, text or what JSON can hold."""
        if body is not None and not isinstance(body, bytes | str):
            body = json.dumps(body)
        if isinstance(body, str):
            body = body.encode()
        connection = HTTPConnection("127.0.0.1", self.server.ports["http"], timeout=_TIMEOUT_S)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            raw = response.read()
        except (OSError, HTTPException) as error:
            return Observed(f"no answer: {type(error).__name__}")
        finally:
            connection.close()
        return _observe_http(response.status, response.headers, raw)

    def unary(self, method: str, request: Any, /, **fields: Any) -> Observed:
        """Call one unary method; `request` is a message or None to make one of `fields`."""
        if request is None:
            request = getattr(service_pb2, f"{method}Request")(**fields)
        try:
            answer = getattr(self.rpc, method)(request, timeout=_TIMEOUT_S)
        except grpc.RpcError as error:
            return Observed(str(error.code().name), str(error.details()))
        return Observed("OK", body=_shown(answer))

    def stream(self, requests: list[Any], metadata: Any = ()) -> list[Observed]:
        """Send requests over one stream; one observation per answer, and the status at last."""
        found: list[Observed] = []
        call = self.rpc.ModelStreamInfer(iter(requests), timeout=_TIMEOUT_S, metadata=metadata)
        try:
            found.extend(
                Observed("part", answer.error_message, _shown(answer.infer_response))
                for answer in call
            )
        except grpc.RpcError as error:
            found.append(Observed(str(error.code().name), str(error.details())))
        else:
            found.append(Observed("OK"))
        return found


def _shown(message: Any) -> Any:
    return MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def _observe_http(status: int, headers: Any, raw: bytes) -> Observed:
    length = headers.get("Inference-Header-Content-Length")
    encoding = headers.get("Content-Encoding", "")
    shown, kind = str(status), headers.get("Content-Type", "")
    if encoding:
        return Observed(shown, kind=f"{kind} in {encoding}")
    if length is not None:
        split = int(length)
        tail = raw[split:].hex()
        return Observed(shown, body={"json": json.loads(raw[:split]), "tail": tail}, kind=kind)
    if kind.startswith("text/event-stream"):
        events = [json.loads(part) for part in re.findall(rb"data: (.*?)\n\n", raw)]
        return Observed(shown, body=events, kind=kind)
    try:
        document = json.loads(raw) if raw else None
    except ValueError:
        return Observed(shown, raw.decode(errors="replace"), kind=kind)
    if isinstance(document, dict) and set(document) == {"error"}:
        return Observed(shown, str(document["error"]), kind=kind)
    return Observed(shown, body=document, kind=kind)


Step = Callable[[Peer], "Observed | list[Observed]"]


@dataclass(frozen=True, slots=True)
class Case:
    """A named request, or a few in a row that belong together."""

    name: str
    send: Step


def http(name: str, method: str, path: str, body: Any = None, **headers: str) -> Case:
    """A case of one HTTP request; header names with `_` for `-`."""
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    return Case(name, lambda peer: peer.http(method, path, body, named))


def unary(title: str, method: str, request: Any = None, /, **fields: Any) -> Case:
    """A case of one unary gRPC call."""
    return Case(title, lambda peer: peer.unary(method, request, **fields))
