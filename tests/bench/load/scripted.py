"""A server of one HTTP connection that answers what its script says, for tests of the generator."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO

from tuili.bench.load.sockets import Target

_LENGTH = re.compile(rb"Content-Length: (\d+)")
Script = Callable[[int, bytes], bytes | None]


@contextmanager
def scripted(script: Script) -> Iterator[Target]:
    """`script(number, body)` gives the whole answer; None ends the connection without one."""
    listener = socket.create_server(("127.0.0.1", 0))
    count = iter(range(1 << 30))

    def serve(client: socket.socket) -> None:
        with client, client.makefile("rb") as file:
            while head := _head(file):
                body = file.read(int(_LENGTH.search(head)[1]))
                answer = script(next(count), body)
                if answer is None:
                    return
                try:
                    client.sendall(answer)
                except OSError:
                    return

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(client,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield Target("http", "127.0.0.1", listener.getsockname()[1])
    finally:
        listener.close()


def _head(file: BinaryIO) -> bytes:
    """The lines up to the empty one; nothing when the client has gone."""
    lines = []
    while (line := file.readline()) != b"\r\n":
        if not line:
            return b""
        lines.append(line)
    return b"".join(lines)


def answer(body: bytes, status: str = "200 OK", fields: str = "") -> bytes:
    """An HTTP answer."""
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{fields}\r\n".encode() + body
