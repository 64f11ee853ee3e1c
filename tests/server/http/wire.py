"""A client's end of an HTTP connection without any socket: bytes in, replies out."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.server.fake_dataplane import FakeDataPlane
from tuili.server.http.application import Application
from tuili.server.http.limits import HttpLimits
from tuili.server.http.listener import HttpListener


class Transport:
    """What a connection asks of its socket, remembered."""

    def __init__(self) -> None:
        self.sent = bytearray()
        self.closed = False
        self.aborted = False
        self.reading = True
        self.eof = False
        self.unsent = 0
        self.socket: Any = None
        self.on_write: Callable[[], None] = lambda: None

    def write(self, data: bytes) -> None:
        self.sent += data
        self.on_write()

    def writelines(self, parts: Any) -> None:
        for part in parts:
            self.sent += part
        self.on_write()

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def abort(self) -> None:
        self.aborted = self.closed = True

    def get_extra_info(self, name: str) -> Any:
        return self.socket if name == "socket" else None

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.eof = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        return self.json["error"]


class Wire:
    """One connection to a server over a fake data plane."""

    def __init__(
        self,
        limits: HttpLimits | None = None,
        dataplane: Any = None,
        beside: Wire | None = None,
        application: Application | None = None,
    ) -> None:
        limits = limits or HttpLimits()
        self.dataplane = dataplane or FakeDataPlane()
        if beside is None:
            application = application or Application(self.dataplane, limits)
            self.listener = HttpListener(application.dispatch, limits, foresee=application.foresee)
        else:
            self.listener = beside.listener
        self.transport = Transport()
        self.connection = self.listener.connect()
        self.connection.connection_made(self.transport)  # type: ignore[arg-type]

    def feed(self, data: bytes) -> None:
        """Deliver bytes as a socket would: into the connection's buffer, as much as fits."""
        at = 0
        while at < len(data) and not self.transport.closed:
            assert self.transport.reading, "the connection does not want more"
            buffer = self.connection.get_buffer(-1)
            assert len(buffer) > 0
            size = min(len(buffer), len(data) - at)
            buffer[:size] = data[at : at + size]
            self.connection.buffer_updated(size)
            at += size

    def answers(self, heads: bool = False) -> list[Answer]:
        """The replies sent so far."""
        found, data = [], bytes(self.transport.sent)
        while data:
            head, _, data = data.partition(b"\r\n\r\n")
            lines = head.decode().split("\r\n")
            status = int(lines[0].split(" ")[1])
            headers = {
                name.lower(): value
                for name, _, value in (line.partition(": ") for line in lines[1:])
            }
            body = b""
            if status == 100 or heads:
                pass
            elif headers.get("transfer-encoding") == "chunked":
                while True:
                    size, _, data = data.partition(b"\r\n")
                    piece, data = data[: int(size, 16)], data[int(size, 16) + 2 :]
                    body += piece
                    if not piece:
                        break
            else:
                length = int(headers["content-length"])
                body, data = data[:length], data[length:]
                assert len(body) == length
            found.append(Answer(status, headers, body))
        return found

    @property
    def status(self) -> int:
        """The status of the first reply, which may still be under way."""
        return int(bytes(self.transport.sent).split(b" ")[1])

    def answer(self, data: bytes) -> Answer:
        """The one reply to `data`."""
        before = len(self.answers())
        self.feed(data)
        (answer,) = self.answers()[before:]
        return answer

    def call(
        self, method: str, path: str, body: Any = b"", headers: dict[str, str] | None = None
    ) -> Answer:
        """The reply to a request; a body that is no bytes is sent as JSON."""
        return self.answer(request(method, path, body, headers))


def request(
    method: str, path: str, body: Any = b"", headers: dict[str, str] | None = None
) -> bytes:
    """A whole request as bytes."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    fields = {"Host": "test", **(headers or {})}
    if content and "Transfer-Encoding" not in fields:
        fields.setdefault("Content-Length", str(len(content)))
    lines = [f"{method} {path} HTTP/1.1", *(f"{key}: {value}" for key, value in fields.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


def binary_infer(document: Any, data: bytes, model: str = "identity", **extra: str) -> bytes:
    """An infer request with the binary tensor extension."""
    text = json.dumps(document).encode()
    headers = {"Inference-Header-Content-Length": str(len(text)), **extra}
    return request("POST", f"/v2/models/{model}/infer", text + data, headers)
